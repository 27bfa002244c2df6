//! Reading a tar from front to back, with bounds.
//!
//! Only what an image archive needs: names, links, sizes, file contents. The `tar` crate decodes the header block; its
//! iterator is not used since it collects long names and extended headers without a limit.

use std::io::{self, Read};

use tar::Header;

use crate::error::{Error, Result};

const BLOCK: u64 = 512;
/// Longest long name or extended header.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most entries.
const MAX_ENTRIES: usize = 200_000;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// To another name: symbolic, relative to the entry's directory.
    Symlink(String),
    /// To another name: hard, from the top of the archive.
    Link(String),
    Other,
}

/// One entry. Its content, if it is a file, is read from the iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Without `./`; not to be used as a path.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
}

/// The entries of a tar.
pub(super) struct Entries<R> {
    input: R,
    /// Of the current entry's content.
    left: u64,
    padding: u64,
    count: usize,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl<R: Read> Entries<R> {
    pub(super) fn new(input: R) -> Entries<R> {
        Entries { input, left: 0, padding: 0, count: 0 }
    }

    /// The next entry, past whatever is left of the current one.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.count += 1;
            if self.count > MAX_ENTRIES {
                return Err(Error::Archive(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let size = header.entry_size().map_err(|_| malformed("a size that cannot be read"))?;
            match header.entry_type().as_byte() {
                b'L' => extended.name = Some(text(self.extension(size)?)),
                b'K' => extended.link = Some(text(self.extension(size)?)),
                b'x' => extended.read(&self.extension(size)?)?,
                b'g' => drop(self.extension(size)?),
                kind => return self.entry(&header, kind, size, extended).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, kind: u8, size: u64, extended: Extended) -> Result<Entry> {
        let name = extended.name.unwrap_or_else(|| text(header.path_bytes().into_owned()));
        let link = extended.link.unwrap_or_else(|| text(header.link_name_bytes().unwrap_or_default().into_owned()));
        let kind = match kind {
            b'0' | b'7' | 0 if !name.ends_with('/') => Kind::File,
            b'1' => Kind::Link(plain_name(&link)),
            b'2' => Kind::Symlink(link),
            b'S' => return Err(malformed("a sparse file; such archives are not supported")),
            _ => Kind::Other,
        };
        // Links and directories have no content, whatever their size says (POSIX pax, "size").
        let size = if kind == Kind::File { extended.size.unwrap_or(size) } else { 0 };
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(Entry { name: plain_name(&name), kind, size })
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let n = fill(&mut self.input, block)?;
        if n == 0 || block.iter().all(|b| *b == 0) {
            if n == 0 && self.count == 0 {
                return Err(Error::Archive("it is empty".to_owned()));
            }
            // What follows the end is not looked at, but taken, so that the other end of a pipe does not break.
            io::copy(&mut self.input, &mut io::sink()).map_err(read_error)?;
            return Ok(None);
        }
        if n < block.len() {
            return Err(malformed("it is cut off"));
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
            .sum();
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ if self.count == 0 => Err(Error::Archive("it is not a tar".to_owned())),
            _ => Err(malformed("a header with a wrong checksum")),
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(malformed("a name or extended header longer than 1 MiB"));
        }
        let mut bytes = vec![0; size as usize];
        if fill(&mut self.input, &mut bytes)? < bytes.len() {
            return Err(malformed("it is cut off"));
        }
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(count), &mut io::sink()).map_err(read_error)?;
        match skipped == count {
            true => Ok(()),
            false => Err(malformed("it is cut off")),
        }
    }
}

/// The content of the current entry.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.input.read(&mut buffer[..wanted])?;
        if n == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

impl Extended {
    /// Records of the form `LENGTH KEY=VALUE\n` (POSIX pax).
    fn read(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let space = records.iter().position(|b| *b == b' ').ok_or_else(|| malformed("a bad extended header"))?;
            let length = std::str::from_utf8(&records[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let length = length
                .filter(|length| *length > space + 1 && *length <= records.len())
                .ok_or_else(|| malformed("a bad extended header"))?;
            let record = &records[space + 1..length - 1];
            records = &records[length..];
            let Some(equals) = record.iter().position(|b| *b == b'=') else {
                continue;
            };
            let (key, value) = (&record[..equals], text(record[equals + 1..].to_vec()));
            match key {
                b"path" => self.name = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => {
                    self.size = Some(value.parse().map_err(|_| malformed("a size that cannot be read"))?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The key under which an entry is known: its name without `./`, empty parts and a final `/`.
pub(super) fn plain_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}

fn text(mut bytes: Vec<u8>) -> String {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    Ok(filled)
}

pub(super) fn read_error(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::Unsupported => Error::Archive(source.to_string()),
        _ => Error::ArchiveIo { step: "read", source },
    }
}

fn malformed(problem: &str) -> Error {
    Error::Archive(format!("malformed tar: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut entries = Entries::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = entries.next()? {
            let mut content = Vec::new();
            (&mut entries).take(entry.size).read_to_end(&mut content).map_err(read_error)?;
            found.push((entry, content));
        }
        Ok(found)
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let long = "d/".repeat(120) + "file";
        for (name, content) in [("./a.json", b"{}".as_slice()), (&long, &[7; 1500])] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "x/layer.tar", "../y/layer.tar").unwrap();
        builder.append_pax_extensions([("path", b"pax-name".as_slice()), ("mtime", b"1.5")]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(3);
        builder.append_data(&mut header, "ignored", b"abc".as_slice()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn names_links_and_contents_are_read() {
        let found = all(&sample()).unwrap();
        let names: Vec<&str> = found.iter().map(|(entry, _)| entry.name.as_str()).collect();
        assert_eq!(names[0], "a.json");
        assert!(names[1].starts_with("d/d/") && names[1].ends_with("/file"));
        assert_eq!(found[1].1, [7; 1500]);
        assert_eq!(found[2].0.kind, Kind::Symlink("../y/layer.tar".into()));
        assert_eq!((names[3], found[3].1.as_slice()), ("pax-name", b"abc".as_slice()));
    }

    #[test]
    fn whatever_is_cut_or_altered_is_an_error_and_no_panic() {
        let whole = sample();
        for cut in (0..whole.len() - 1024).step_by(97) {
            if let Ok(found) = all(&whole[..cut]) {
                // A cut between two entries cannot be told from an archive without an end mark.
                assert!(cut % 512 == 0 && found.len() < 5, "{cut}");
            }
        }
        let mut altered = whole.clone();
        altered[600] ^= 1;
        all(&altered).unwrap();
        altered[5] ^= 1;
        assert!(all(&altered).unwrap_err().to_string().contains("not a tar"));
        assert!(all(b"").unwrap_err().to_string().contains("empty"));
        let mut huge = Header::new_gnu();
        huge.set_entry_type(tar::EntryType::GNULongName);
        huge.set_size(1 << 40);
        huge.set_cksum();
        assert!(all(huge.as_bytes()).unwrap_err().to_string().contains("longer than 1 MiB"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(at in 0usize..6000, byte in 0u8..=255) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = all(&bytes);
            let mut extended = Extended::default();
            let _ = extended.read(&bytes[at..]);
        }
    }
}
