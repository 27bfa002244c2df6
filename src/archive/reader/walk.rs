//! The walk over a tar: merge the headers of each entry, hand out its data, skip to the next.

use std::io::{self, Read};

use super::header::{self, Header};
use super::pax::{self, Records};
use super::sparse::{self, Segment};
use super::{BLOCK, Entry, Kind, printable};
use crate::error::Error;

/// What is read from below at a time, unless it goes straight to where the caller wants it.
const BUFFER: usize = 256 << 10;

/// How much an archive may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole stream, padding included. Default 1 TiB.
    pub bytes: u64,
    /// Bytes of one extended header (PAX or GNU long name). Default 1 MiB, as Go's reader and with it Docker.
    pub header_bytes: u64,
    /// Data segments of all sparse files together (24 bytes of memory each). Default 1 million.
    pub sparse_segments: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 40, header_bytes: 1 << 20, sparse_segments: 1_000_000 }
    }
}

/// A tar being read.
pub struct Reader<'a> {
    source: &'a mut dyn Read,
    limits: Limits,
    buffer: Box<[u8]>,
    /// The part of `buffer` that is not used yet.
    ready: std::ops::Range<usize>,
    /// Bytes taken from the tar.
    offset: u64,
    /// Bytes of the current entry that were not taken yet, and the padding behind them.
    data_left: u64,
    padding: u64,
    segments: u64,
    at_end: bool,
}

/// The headers before an entry's own.
#[derive(Default)]
struct Extensions {
    pax: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extensions {
    fn any(&self) -> bool {
        self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some()
    }
}

impl<'a> Reader<'a> {
    /// Reads from the stream's beginning.
    pub fn new(source: &'a mut dyn Read, limits: Limits) -> Self {
        Self {
            source,
            limits,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            ready: 0..0,
            offset: 0,
            data_left: 0,
            padding: 0,
            segments: 0,
            at_end: false,
        }
    }

    /// Bytes of the stream read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes to the next entry, past what is left of the current one. `None` is the tar's end mark or a clean end of the stream.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.skip(self.data_left + self.padding, "an entry's content")?;
        (self.data_left, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        loop {
            let start = self.offset;
            let Some(block) = self.header_block(&extensions)? else {
                return Ok(None);
            };
            let header = Header(&block);
            if !header.checksum_holds() {
                return Err(malformed(start, "header whose checksum does not match"));
            }
            let size = header.size().map_err(|what| malformed(start, format!("size: {what}")))?;
            match header.type_flag() {
                b'x' => {
                    let payload = self.payload(start, size)?;
                    let records = Records::parse(&payload).map_err(|what| malformed(start, what))?;
                    once(&mut extensions.pax, records, start, "PAX")?;
                }
                b'g' if extensions.any() => {
                    return Err(malformed(start, "global header between an entry and its headers"));
                }
                b'g' => {
                    let payload = self.payload(start, size)?;
                    pax::check_global(&payload).map_err(|what| malformed(start, what))?;
                }
                b'L' => {
                    let name = self.long_text(start, size)?;
                    once(&mut extensions.long_name, name, start, "long name")?;
                }
                b'K' => {
                    let link = self.long_text(start, size)?;
                    once(&mut extensions.long_link, link, start, "long link")?;
                }
                _ => return self.entry(&header, start, size, extensions).map(Some),
            }
        }
    }

    /// The current entry's data, as the tar stores it; 0 at its end.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let want = usize::try_from(self.data_left).map_or(into.len(), |left| left.min(into.len()));
        if want == 0 {
            return Ok(0);
        }
        let got = if self.ready.is_empty() && want >= BUFFER / 4 {
            self.read_source_into(&mut into[..want])?
        } else {
            if self.ready.is_empty() {
                self.fill()?;
            }
            let got = want.min(self.ready.len());
            into[..got].copy_from_slice(&self.buffer[self.ready.start..self.ready.start + got]);
            self.take(got)?;
            got
        };
        if got == 0 {
            return Err(self.truncated("an entry's content"));
        }
        self.data_left -= got as u64;
        Ok(got)
    }

    /// Reads the stream to its end.
    pub fn drain(&mut self) -> Result<(), Error> {
        loop {
            self.take(self.ready.len())?;
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }

    fn header_block(&mut self, extensions: &Extensions) -> Result<Option<[u8; BLOCK]>, Error> {
        if self.at_end {
            return Ok(None);
        }
        let start = self.offset;
        let block = self.block("a header")?;
        let Some(block) = block.filter(|block| !Header(block).is_zero()) else {
            if extensions.any() {
                return Err(malformed(start, "extended header without an entry after it"));
            }
            if block.is_some() && self.block("the end mark")?.is_some_and(|second| !Header(&second).is_zero()) {
                return Err(malformed(start, "empty block where a header should be"));
            }
            self.at_end = true;
            return Ok(None);
        };
        Ok(Some(block))
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        start: u64,
        header_size: u64,
        extensions: Extensions,
    ) -> Result<Entry, Error> {
        let Extensions { pax, long_name, long_link } = extensions;
        let mut pax = pax.unwrap_or_default();
        let path = agree(long_name, pax.path.take(), start)?.unwrap_or_else(|| header.name());
        let link = agree(long_link, pax.link.take(), start)?.unwrap_or_else(|| header.link().to_vec());
        let name = pax.sparse.name.take().unwrap_or(path);
        let bad = |what: String| Error::Entry { name: printable(&name), what };
        let field = |which: &str| {
            let which = which.to_owned();
            move |what: &str| format!("{which}: {what}")
        };

        let type_flag = header.type_flag();
        let kind = kind(type_flag, &name).map_err(bad)?;
        let stored = pax.size.unwrap_or(header_size);
        if kind != Kind::File && (stored != 0 || header_size != 0) {
            return Err(bad(
                "only regular files may have content (readers disagree on where such an entry ends)".to_owned()
            ));
        }
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => device(header).map_err(bad)?,
            _ => (0, 0),
        };
        let mtime = header.mtime().map_err(field("modification time")).map_err(bad)?;
        let (mtime, mtime_nsec) = pax.mtime.unwrap_or((mtime, 0));
        let header_uid = if pax.uid.is_some() { Ok(0) } else { header.uid() };
        let header_gid = if pax.gid.is_some() { Ok(0) } else { header.gid() };
        let uid = id(pax.uid, header_uid).map_err(field("owner")).map_err(bad)?;
        let gid = id(pax.gid, header_gid).map_err(field("group")).map_err(bad)?;
        let mode = header.mode().map_err(field("mode")).map_err(bad)?;

        self.data_left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let (size, sparse) = if kind == Kind::File { self.sparse_map(header, &pax, &name)? } else { (0, None) };
        Ok(Entry {
            kind,
            path: name,
            link,
            mode: (mode & 0o7777) as u16,
            uid,
            gid,
            mtime,
            mtime_nsec,
            device,
            size,
            sparse,
            xattrs: pax.xattrs,
        })
    }

    /// The file's size and, if it is sparse, its map; reads what of the map stands after the header.
    fn sparse_map(
        &mut self,
        header: &Header<'_>,
        pax: &Records,
        name: &[u8],
    ) -> Result<(u64, Option<Vec<Segment>>), Error> {
        let bad = |what: &str| Error::Entry { name: printable(name), what: what.to_owned() };
        let sparse = &pax.sparse;
        let (size, mut map) = match (header.type_flag(), sparse.version) {
            (b'S', (None, None)) if sparse.map.is_none() => self.old_gnu_map(header, name)?,
            (b'S', _) => return Err(bad("two sparse maps, an old GNU one and a PAX one")),
            (_, (Some(1), Some(0))) => {
                let size = sparse.real_size.ok_or_else(|| bad("sparse file without its real size"))?;
                (size, self.pax_1_0_map(name)?)
            }
            (_, (None, None) | (Some(0), Some(0 | 1))) => {
                let Some(map) = sparse.map.clone() else {
                    return match sparse.real_size {
                        None if sparse.version == (None, None) => Ok((self.data_left, None)),
                        _ => Err(bad("sparse file without a map")),
                    };
                };
                let size = sparse.real_size.ok_or_else(|| bad("sparse file without its real size"))?;
                (size, map)
            }
            _ => return Err(bad("sparse file of an unknown version")),
        };
        sparse::check(&mut map, size, self.data_left).map_err(bad)?;
        self.count_segments(map.len())?;
        Ok((size, Some(map)))
    }

    fn count_segments(&mut self, more: usize) -> Result<(), Error> {
        self.segments += more as u64;
        if self.segments > self.limits.sparse_segments {
            return Err(Error::Limit { of: "segments of sparse files", limit: self.limits.sparse_segments });
        }
        Ok(())
    }

    fn old_gnu_map(&mut self, header: &Header<'_>, name: &[u8]) -> Result<(u64, Vec<Segment>), Error> {
        let bad = |what: &str| Error::Entry { name: printable(name), what: format!("sparse map: {what}") };
        let size = header.real_size().map_err(bad)?;
        let mut map = Vec::new();
        let (slots, mut more) = header.sparse_slots();
        let mut open = sparse::push_slots(slots, &mut map).map_err(bad)?;
        while more {
            let block = self.block("a sparse map")?.ok_or_else(|| self.truncated("a sparse map"))?;
            let (slots, again) = header::continuation_slots(&block);
            if !open {
                return Err(bad("continued after its end"));
            }
            open = sparse::push_slots(slots, &mut map).map_err(bad)?;
            self.limit_map(map.len())?;
            more = again;
        }
        Ok((size, map))
    }

    /// PAX 1.0: the map stands before the data, as decimal lines, padded to a block.
    fn pax_1_0_map(&mut self, name: &[u8]) -> Result<Vec<Segment>, Error> {
        let bad = |what: &str| Error::Entry { name: printable(name), what: format!("sparse map: {what}") };
        let mut lines = MapLines::default();
        let count = lines.next(self)?.ok_or_else(|| bad("not a number"))?;
        self.limit_map(usize::try_from(count).unwrap_or(usize::MAX))?;
        let mut map = Vec::new();
        for _ in 0..count {
            let offset = lines.next(self)?.ok_or_else(|| bad("not a number"))?;
            let length = lines.next(self)?.ok_or_else(|| bad("not a number"))?;
            map.push(Segment { offset, length });
        }
        Ok(map)
    }

    fn limit_map(&self, length: usize) -> Result<(), Error> {
        if self.segments.saturating_add(length as u64) > self.limits.sparse_segments {
            return Err(Error::Limit { of: "segments of sparse files", limit: self.limits.sparse_segments });
        }
        Ok(())
    }

    /// The content of an extended header, which must fit into memory.
    fn payload(&mut self, start: u64, size: u64) -> Result<Vec<u8>, Error> {
        if size > self.limits.header_bytes {
            return Err(Error::Limit { of: "bytes in one extended header", limit: self.limits.header_bytes });
        }
        let length = usize::try_from(size).map_err(|_| malformed(start, "extended header beyond memory"))?;
        let mut payload = vec![0; length];
        if !self.read_exact(&mut payload)? {
            return Err(self.truncated("an extended header"));
        }
        self.skip(size.wrapping_neg() % BLOCK as u64, "an extended header")?;
        Ok(payload)
    }

    fn long_text(&mut self, start: u64, size: u64) -> Result<Vec<u8>, Error> {
        let payload = self.payload(start, size)?;
        Ok(header::c_string(&payload).to_vec())
    }

    /// The next block, or `None` where the stream ends cleanly before it.
    fn block(&mut self, inside: &str) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        if self.ready.is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        if !self.read_exact(&mut block)? {
            return Err(self.truncated(inside));
        }
        Ok(Some(block))
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<bool, Error> {
        let mut done = 0;
        while done < into.len() {
            if self.ready.is_empty() && self.fill()? == 0 {
                return Ok(false);
            }
            let got = self.ready.len().min(into.len() - done);
            into[done..done + got].copy_from_slice(&self.buffer[self.ready.start..self.ready.start + got]);
            self.take(got)?;
            done += got;
        }
        Ok(true)
    }

    fn skip(&mut self, mut count: u64, inside: &str) -> Result<(), Error> {
        while count > 0 {
            if self.ready.is_empty() && self.fill()? == 0 {
                return Err(self.truncated(inside));
            }
            let step = usize::try_from(count).map_or(self.ready.len(), |count| count.min(self.ready.len()));
            self.take(step)?;
            count -= step as u64;
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<(), Error> {
        self.ready.start += count;
        self.count(count)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.offset += bytes as u64;
        if self.offset > self.limits.bytes {
            return Err(Error::Limit { of: "bytes of tar", limit: self.limits.bytes });
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<usize, Error> {
        let got = retry(|| self.source.read(&mut self.buffer)).map_err(Error::Read)?;
        self.ready = 0..got;
        Ok(got)
    }

    fn read_source_into(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let got = retry(|| self.source.read(into)).map_err(Error::Read)?;
        self.count(got)?;
        Ok(got)
    }

    fn truncated(&self, inside: &str) -> Error {
        Error::Truncated { offset: self.offset, inside: inside.to_owned() }
    }
}

/// Reads the decimal lines of a PAX 1.0 map from an entry's data, a block at a time.
#[derive(Default)]
struct MapLines {
    block: Vec<u8>,
    used: usize,
}

impl MapLines {
    fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<u64>, Error> {
        let mut digits = Vec::with_capacity(20);
        loop {
            if self.used == self.block.len() {
                self.block.resize(BLOCK, 0);
                let mut filled = 0;
                while filled < BLOCK {
                    match reader.read(&mut self.block[filled..])? {
                        0 => return Ok(None),
                        got => filled += got,
                    }
                }
                self.used = 0;
            }
            let byte = self.block[self.used];
            self.used += 1;
            match byte {
                b'\n' => return Ok(pax::decimal(&digits)),
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Ok(None),
            }
        }
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn malformed(offset: u64, what: impl Into<String>) -> Error {
    Error::Malformed { offset, what: what.into() }
}

fn once<T>(slot: &mut Option<T>, value: T, start: u64, which: &str) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(start, format!("two {which} headers for one entry"))),
    }
}

/// GNU's and PAX's long names: where both stand before an entry, readers differ on which wins, so they must be equal.
fn agree(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, start: u64) -> Result<Option<Vec<u8>>, Error> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            Err(malformed(start, "GNU and PAX headers that name one entry differently"))
        }
        (gnu, pax) => Ok(pax.or(gnu)),
    }
}

fn kind(type_flag: u8, name: &[u8]) -> Result<Kind, String> {
    let slash = name.ends_with(b"/");
    match type_flag {
        // v7 had no type for directories.
        0 if slash => Ok(Kind::Directory),
        0 | b'0' | b'7' | b'S' if !slash => Ok(Kind::File),
        b'0' | b'7' | b'S' => Err("a regular file whose name ends in a slash".to_owned()),
        b'1' => Ok(Kind::HardLink),
        b'2' => Ok(Kind::Symlink),
        b'3' => Ok(Kind::CharDevice),
        b'4' => Ok(Kind::BlockDevice),
        b'5' => Ok(Kind::Directory),
        b'6' => Ok(Kind::Fifo),
        other => Err(format!("unknown entry type {:?}", char::from(other))),
    }
}

fn id(pax: Option<u64>, header: Result<u64, &'static str>) -> Result<u32, &'static str> {
    let value = match pax {
        Some(value) => value,
        None => header?,
    };
    // (uid_t)-1 means "no one": chown(2) cannot set it and the kernel refuses inodes that have it.
    u32::try_from(value).ok().filter(|&id| id != u32::MAX).ok_or("not a user or group id")
}

fn device(header: &Header<'_>) -> Result<(u32, u32), String> {
    let (major, minor) = header.device().map_err(str::to_owned)?;
    // Linux's dev_t: 12 bits of major number, 20 of minor.
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(format!("device number {major}:{minor} that Linux does not have"));
    }
    Ok((major as u32, minor as u32))
}
