//! Reads tar streams that nobody vouches for.
//!
//! It is our own because two readers that disagree on where an entry ends see two different images (CVE-2025-62518,
//! CVE-2026-33055): here each entry has exactly one size, used for reading and for skipping, and what the formats leave open
//! is refused instead of guessed. Formats: v7, ustar, GNU, star, PAX; sparse files of old GNU and of PAX 0.0, 0.1 and 1.0.
//! Source: POSIX.1-2017 `pax`, GNU tar's manual ("Tar Internals").

mod header;
mod pax;
mod sparse;
mod walk;

pub use sparse::Segment;
pub use walk::{Limits, Reader};

/// Size of everything in a tar.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in tar(5)")]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member of the tar, after all headers that describe it are merged.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// As written: may be absolute, hold `..`, be empty. Never holds a NUL.
    pub path: Vec<u8>,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// The lower 12 bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last modification: seconds since 1970.
    pub mtime: i64,
    /// 0 to 999,999,999.
    pub mtime_nsec: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes of the file as it will be read; holes included.
    pub size: u64,
    /// Of a sparse file: where its stored bytes belong, ascending, not overlapping, within `size`.
    pub sparse: Option<Vec<Segment>>,
    /// Full names and values, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A name for messages.
#[must_use]
pub fn printable(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]).into_owned();
    if name.len() > SHOWN { format!("{text}… ({} bytes)", name.len()) } else { text }
}
