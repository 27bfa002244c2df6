//! The bytes of a disk, laid out over its extents. Every access is checked against the disk's length here, and reaches no
//! byte of a file beside its extent.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag};

use super::extent::Extent;
use crate::virtio::chain::{Reader, Writer};

/// Unit of addresses and lengths in virtio-blk, in bytes, whatever the block size (section 5.2).
pub(super) const SECTOR: u64 = 512;

/// What is asked of a range that a driver no longer needs or wants to read as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clear {
    /// The content does not matter any more: give the space back.
    Discard,
    /// Zeroes, and the space may be given back.
    ZeroAndUnmap,
    /// Zeroes, and the space stays allocated.
    Zero,
}

#[derive(Debug)]
struct Placed {
    start: u64,
    extent: Extent,
}

#[derive(Debug)]
pub(super) struct Disk {
    placed: Vec<Placed>,
    length: u64,
    writable: bool,
}

impl Disk {
    /// A disk that nobody can write to, whatever the files were opened for.
    pub(super) fn read_only(extents: Vec<Extent>) -> io::Result<Self> {
        Self::new(extents, false)
    }

    /// A disk that can be written to: every extent is a file that is open for it.
    pub(super) fn writable(extents: Vec<Extent>) -> io::Result<Self> {
        for extent in &extents {
            let Extent::File { file, .. } = extent else {
                return Err(invalid("a disk that can be written to consists of files only"));
            };
            let flags = nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_GETFL)?;
            if OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE != OFlag::O_RDWR {
                return Err(invalid("the file of a disk that can be written to is not open for reading and writing"));
            }
        }
        Self::new(extents, true)
    }

    fn new(extents: Vec<Extent>, writable: bool) -> io::Result<Self> {
        let mut length = 0_u64;
        let mut placed = Vec::new();
        for extent in extents {
            extent.check()?;
            let start = length;
            length = length.checked_add(extent.length()).ok_or_else(|| invalid("the disk is too long"))?;
            if extent.length() > 0 {
                placed.push(Placed { start, extent });
            }
        }
        if !length.is_multiple_of(SECTOR) {
            return Err(invalid(&format!("the disk has {length} bytes, which are not whole sectors of {SECTOR}")));
        }
        Ok(Self { placed, length, writable })
    }

    pub(super) fn sectors(&self) -> u64 {
        self.length / SECTOR
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where a request begins, in bytes, if all of it lies on the disk.
    pub(super) fn locate(&self, sector: u64, bytes: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR)?;
        (start.checked_add(bytes)? <= self.length).then_some(start)
    }

    /// Fills `data` from `start` on.
    pub(super) fn read(&self, start: u64, data: &mut Writer<'_>) -> io::Result<()> {
        let length = data.left() as u64;
        self.each(start, length, |extent, offset, count| match extent {
            Extent::File { file, offset: first, .. } => {
                exactly(count, offset + first, |at, left| data.read_from_file_at(file.as_fd(), at, left))
            }
            Extent::Bytes(bytes) => {
                let from = offset as usize;
                data.write_some(&bytes[from..from + count as usize]);
                Ok(())
            }
            Extent::Zeroes(_) => {
                data.write_zeroes(count as usize);
                Ok(())
            }
        })
    }

    /// Writes `data` from `start` on.
    pub(super) fn write(&self, start: u64, data: &mut Reader<'_>) -> io::Result<()> {
        let length = data.left() as u64;
        self.each_file(start, length, |file, offset, count| {
            exactly(count, offset, |at, left| data.write_to_file_at(file.as_fd(), at, left))
        })
    }

    /// Makes what was written durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        let mut done: Vec<&Arc<File>> = Vec::new();
        for placed in &self.placed {
            if let Extent::File { file, .. } = &placed.extent
                && !done.iter().any(|known| Arc::ptr_eq(known, file))
            {
                file.sync_data()?;
                done.push(file);
            }
        }
        Ok(())
    }

    /// Discards or zeroes a range.
    pub(super) fn clear(&self, start: u64, length: u64, how: Clear) -> io::Result<()> {
        self.each_file(start, length, |file, offset, count| clear(file, offset, count, how))
    }

    fn each_file(
        &self,
        start: u64,
        length: u64,
        mut act: impl FnMut(&File, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        self.each(start, length, |extent, offset, count| match extent {
            Extent::File { file, offset: first, .. } => act(file, offset + first, count),
            Extent::Bytes(_) | Extent::Zeroes(_) => Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)),
        })
    }

    /// Walks over the extents of a range: each with the offset in it and the number of bytes.
    fn each(
        &self,
        mut start: u64,
        length: u64,
        mut act: impl FnMut(&Extent, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = start.checked_add(length).filter(|end| *end <= self.length).ok_or_else(|| invalid("off the disk"))?;
        let mut index = self.placed.partition_point(|placed| placed.start <= start).saturating_sub(1);
        while start < end {
            let Placed { start: first, extent } = &self.placed[index];
            let offset = start - first;
            let count = (extent.length() - offset).min(end - start);
            act(extent, offset, count)?;
            start += count;
            index += 1;
        }
        Ok(())
    }
}

/// Repeats a transfer that may be short until all of it is done.
fn exactly(mut left: u64, mut at: u64, mut transfer: impl FnMut(u64, usize) -> io::Result<usize>) -> io::Result<()> {
    while left > 0 {
        match transfer(at, left as usize) {
            // The file has become shorter than its extent.
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(count) => {
                left -= count as u64;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn clear(file: &File, offset: u64, length: u64, how: Clear) -> io::Result<()> {
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let (punch, zero) = (keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE, keep | FallocateFlags::FALLOC_FL_ZERO_RANGE);
    let at = |value: u64| libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (from, count) = (at(offset)?, at(length)?);
    let allocate = |flags| nix::fcntl::fallocate(file, flags, from, count);
    let result = match how {
        Clear::Discard => return Ok(allocate(punch)?),
        // A file system that cannot punch a hole may know how to zero, and none has to know either.
        Clear::ZeroAndUnmap => match allocate(punch) {
            Err(Errno::EOPNOTSUPP) => allocate(zero),
            result => result,
        },
        Clear::Zero => allocate(zero),
    };
    match result {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP) => write_zeroes(file, offset, length),
        Err(error) => Err(error.into()),
    }
}

fn write_zeroes(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    static ZEROES: [u8; 65536] = [0; 65536];
    while length > 0 {
        let count = length.min(ZEROES.len() as u64);
        file.write_all_at(&ZEROES[..count as usize], offset)?;
        offset += count;
        length -= count;
    }
    Ok(())
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
