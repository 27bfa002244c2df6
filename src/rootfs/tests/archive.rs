//! Tars made field by field, so that they can be wrong in every way.

/// One header and what follows it.
#[derive(Clone)]
pub(crate) struct Member {
    header: [u8; 512],
    body: Vec<u8>,
    keep_checksum: bool,
}

/// A member of the given type, 0644, root's, dated 1,700,000,000.
pub(crate) fn member(kind: u8, name: &str) -> Member {
    let mut header = [0; 512];
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[156] = kind;
    Member { header, body: Vec::new(), keep_checksum: false }
        .name(name.as_bytes())
        .octal(100, 8, 0o644)
        .octal(108, 8, 0)
        .octal(116, 8, 0)
        .octal(124, 12, 0)
        .octal(136, 12, 1_700_000_000)
        .octal(329, 8, 0)
        .octal(337, 8, 0)
}

pub(crate) fn file(name: &str, content: &[u8]) -> Member {
    member(b'0', name).content(content)
}

pub(crate) fn dir(name: &str) -> Member {
    member(b'5', name).mode(0o755)
}

pub(crate) fn link(kind: u8, name: &str, target: &str) -> Member {
    member(kind, name).bytes(157, target.as_bytes())
}

pub(crate) fn device(kind: u8, name: &str, major: u64, minor: u64) -> Member {
    member(kind, name).octal(329, 8, major).octal(337, 8, minor)
}

/// A PAX record.
pub(crate) type Record = (String, Vec<u8>);

pub(crate) fn r(key: &str, value: impl AsRef<[u8]>) -> Record {
    (key.to_owned(), value.as_ref().to_vec())
}

/// A PAX header with these records.
pub(crate) fn pax(records: &[Record]) -> Member {
    member(b'x', "PaxHeaders/x").content(&pax_records(records))
}

pub(crate) fn pax_records(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length += 1;
        }
        out.extend(format!("{length} {key}=").into_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// GNU's header for a name (`L`) or a link target (`K`) of any length.
pub(crate) fn long(kind: u8, text: &[u8]) -> Member {
    member(kind, "././@LongLink").content(&[text, b"\0"].concat())
}

impl Member {
    pub(crate) fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn octal(self, at: usize, width: usize, value: u64) -> Self {
        self.bytes(at, format!("{value:00$o}\0", width - 1).as_bytes())
    }

    /// The name; what is longer than its field goes to ustar's prefix.
    pub(crate) fn name(self, name: &[u8]) -> Self {
        if name.len() <= 100 {
            return self.bytes(0, name);
        }
        let slash =
            (0..name.len()).find(|&i| name[i] == b'/' && name.len() - i <= 101).expect("name too long for ustar");
        self.bytes(345, &name[..slash]).bytes(0, &name[slash + 1..])
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub(crate) fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 12, mtime)
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.body = content.to_vec();
        self.size(content.len() as u64)
    }

    /// What stands after the header, whatever the size says.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn gnu(self) -> Self {
        self.bytes(257, b"ustar  \0")
    }

    pub(crate) fn checksum(mut self, checksum: &[u8; 8]) -> Self {
        self.keep_checksum = true;
        self.bytes(148, checksum)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut header = self.header;
        if !self.keep_checksum {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut out = header.to_vec();
        out.extend_from_slice(&self.body);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

/// A whole tar.
pub(crate) fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = unfinished(members);
    out.resize(out.len() + 1024, 0);
    out
}

/// A tar without its end mark.
pub(crate) fn unfinished(members: &[Member]) -> Vec<u8> {
    members.iter().flat_map(Member::encode).collect()
}
