//! What a disk consists of: pieces of opened files, bytes, zeroes, one after the other.
//!
//! So several read-only images with a made-up partition table are one disk, and none of them is copied. Whoever makes an
//! extent has opened the file; nothing here, and no device, opens one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

/// A piece of a disk.
#[derive(Clone, Debug)]
pub enum Extent {
    /// `length` bytes of a file from `offset` on.
    File {
        /// The opened file; several extents may share it.
        file: Arc<File>,
        /// Where the piece begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
    /// These bytes; never writable.
    Bytes(Arc<[u8]>),
    /// So many zero bytes; never writable.
    Zeroes(u64),
}

impl Extent {
    /// All of a regular file, as long as it is now.
    ///
    /// # Errors
    /// The file has no status, or is not a regular one, and so has no length.
    pub fn whole(file: File) -> io::Result<Self> {
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file: its length must be given"));
        }
        Ok(Self::File { file: Arc::new(file), offset: 0, length: status.len() })
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } | Self::Zeroes(length) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Checks that a file has all that its extent claims. A regular file may have shrunk since; a block device says its
    /// length in another way, so it is believed.
    pub(super) fn check(&self) -> io::Result<()> {
        let Self::File { file, offset, length } = self else { return Ok(()) };
        let status = file.metadata()?;
        let end = offset.checked_add(*length);
        if status.is_file() && end.is_none_or(|end| end > status.len()) {
            let problem = format!("{length} bytes from {offset} on of a file that has {} bytes", status.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        if !status.is_file() && !status.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device"));
        }
        Ok(())
    }
}
