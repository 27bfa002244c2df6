//! Tar archives written byte by byte, so that a test can write one that no tool would.
//!
//! The format is ustar (POSIX.1-1988) with PAX records (POSIX.1-2001) where asked for.

/// Size of a record of a tar archive.
const BLOCK: usize = 512;

/// One member of an archive. The defaults are an empty file of root.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name, at most 100 bytes; longer ones go into a PAX record.
    pub name: Vec<u8>,
    /// `0` file, `1` hard link, `2` symbolic link, `3` character device, `4` block device, `5` directory, `6` fifo.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Device number.
    pub device: (u32, u32),
    /// Content of a file.
    pub data: Vec<u8>,
    /// PAX records that go before it.
    pub pax: Vec<(String, Vec<u8>)>,
    /// Says another size in the header than the content has.
    pub claimed_size: Option<u64>,
}

impl Entry {
    fn new(name: &str, kind: u8, mode: u32) -> Self {
        let (name, data, link, pax) = (name.as_bytes().to_vec(), Vec::new(), Vec::new(), Vec::new());
        let (mtime, device) = (1_700_000_000, (0, 0));
        Self { name, kind, mode, uid: 0, gid: 0, mtime, link, device, data, pax, claimed_size: None }
    }

    /// A regular file.
    pub fn file(name: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(name, b'0', mode) }
    }

    /// A directory.
    pub fn folder(name: &str, mode: u32) -> Self {
        Self::new(name, b'5', mode)
    }

    /// A symbolic link.
    pub fn symlink(name: &str, target: &str) -> Self {
        Self { link: target.as_bytes().to_vec(), ..Self::new(name, b'2', 0o777) }
    }

    /// A hard link.
    pub fn hardlink(name: &str, target: &str) -> Self {
        Self { link: target.as_bytes().to_vec(), ..Self::new(name, b'1', 0o644) }
    }

    /// A device node: `b'3'` character, `b'4'` block.
    pub fn device(name: &str, kind: u8, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(name, kind, 0o666) }
    }

    /// A fifo.
    pub fn fifo(name: &str) -> Self {
        Self::new(name, b'6', 0o644)
    }

    /// Owned by somebody else.
    pub fn owned(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    /// With a PAX record.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut records = self.pax.clone();
        if self.name.len() > 100 {
            records.push(("path".to_owned(), self.name.clone()));
        }
        if self.link.len() > 100 {
            records.push(("linkpath".to_owned(), self.link.clone()));
        }
        if !records.is_empty() {
            let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            let header = Self { data, ..Self::new("PaxHeaders/x", b'x', 0o644) };
            header.write_plain(out);
        }
        self.write_plain(out);
    }

    fn write_plain(&self, out: &mut Vec<u8>) {
        let mut header = [0_u8; BLOCK];
        put(&mut header[..100], &self.name);
        octal(&mut header[100..108], u64::from(self.mode));
        octal(&mut header[108..116], self.uid);
        octal(&mut header[116..124], self.gid);
        octal(&mut header[124..136], self.claimed_size.unwrap_or(self.data.len() as u64));
        octal(&mut header[136..148], self.mtime);
        header[148..156].fill(b' ');
        header[156] = self.kind;
        put(&mut header[157..257], &self.link);
        put(&mut header[257..265], b"ustar\x0000");
        octal(&mut header[329..337], u64::from(self.device.0));
        octal(&mut header[337..345], u64::from(self.device.1));
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut header[148..155], sum);
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    put(field, format!("{value:0width$o}").as_bytes());
}

/// `LENGTH key=value\n`, where LENGTH counts itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = body.len() + 1;
    while length.to_string().len() + body.len() != length {
        length += 1;
    }
    [length.to_string().into_bytes(), body].concat()
}

/// An archive with the two zero records at its end.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write(&mut out);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}
