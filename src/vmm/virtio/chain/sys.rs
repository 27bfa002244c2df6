//! Vectored input and output straight into and out of the guest's memory.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

use super::buffers::At;

/// Most pieces in one call; more make a short transfer (`IOV_MAX`, limits.h).
pub const MOST_PIECES: usize = 1024;

/// `preadv(2)` or `readv(2)`. Never made again by itself after an interruption: none is expected, and the caller knows.
pub(super) fn read<'m>(
    file: BorrowedFd<'_>,
    at: At,
    pieces: &mut dyn Iterator<Item = VolatileSlice<'m>>,
) -> io::Result<usize> {
    let vectors = vectors(pieces);
    let (fd, list, count) = (file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int);
    let result = match at {
        At::Offset(offset) => {
            let offset = file_offset(offset)?;
            // SAFETY: each vector is a piece of the guest's memory, which stays mapped for 'm. Only the kernel touches it, and the
            // guest may at the same time, which is why no reference to it exists.
            unsafe { libc::preadv(fd, list, count, offset) }
        }
        At::OffsetWith(..) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        // SAFETY: as above.
        At::Position => unsafe { libc::readv(fd, list, count) },
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `pwritev(2)` or `writev(2)`.
pub(super) fn write<'m>(
    file: BorrowedFd<'_>,
    at: At,
    pieces: &mut dyn Iterator<Item = VolatileSlice<'m>>,
) -> io::Result<usize> {
    let vectors = vectors(pieces);
    let (fd, list, count) = (file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int);
    let result = match at {
        At::Offset(offset) => {
            let offset = file_offset(offset)?;
            // SAFETY: as in `read`; the kernel only reads the memory.
            unsafe { libc::pwritev(fd, list, count, offset) }
        }
        At::OffsetWith(offset, flags) => {
            let offset = file_offset(offset)?;
            // By number: musl of the static target has no `pwritev2`. The kernel takes the offset in two halves, of which a
            // 64-bit one ignores the upper.
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_pwritev2, fd, list, count, offset, 0, flags) as isize }
        }
        // SAFETY: as above.
        At::Position => unsafe { libc::writev(fd, list, count) },
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The pointers outlive the guards that they come from: only memory mapped on demand needs a guard (Xen), ours is mapped
/// as long as the slice lives.
fn vectors<'m>(pieces: &mut dyn Iterator<Item = VolatileSlice<'m>>) -> Vec<libc::iovec> {
    pieces
        .take(MOST_PIECES)
        .map(|piece| libc::iovec { iov_base: piece.ptr_guard_mut().as_ptr().cast(), iov_len: piece.len() })
        .collect()
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}
