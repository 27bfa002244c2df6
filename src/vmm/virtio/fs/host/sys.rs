//! The system calls of a file server that `nix` has not, or not for musl.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long, c_uint};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

type Result<T> = std::result::Result<T, Errno>;

/// What of statx(2) the server needs: the basics, the birth time and the mount, by an id that is never used again (Linux
/// 6.8) where there is one.
const STATX_MASK: c_uint = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID | libc::STATX_MNT_ID_UNIQUE;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn done(result: c_long) -> Result<()> {
    Errno::result(result).map(drop)
}

fn count(result: c_long) -> Result<usize> {
    Errno::result(result).map(|count| count as usize)
}

/// statx(2) of a name below a directory, or, where the name is empty, of the file that the descriptor stands for.
pub(super) fn statx(fd: BorrowedFd<'_>, name: &CStr) -> Result<libc::statx> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name is a terminated string, and the kernel writes one `statx` at most.
    let result = unsafe {
        libc::syscall(libc::SYS_statx, fd.as_raw_fd(), name.as_ptr(), flags, STATX_MASK, status.as_mut_ptr())
    };
    done(result)?;
    // SAFETY: all of it was initialised to zero, which is a valid value, before the kernel wrote to it.
    Ok(unsafe { status.assume_init() })
}

/// renameat2(2).
pub(in super::super) fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), flags: u32) -> Result<()> {
    // SAFETY: both names are terminated strings that outlive the call.
    done(unsafe {
        libc::syscall(libc::SYS_renameat2, from.0.as_raw_fd(), from.1.as_ptr(), to.0.as_raw_fd(), to.1.as_ptr(), flags)
    })
}

/// unlinkat(2).
pub(super) fn unlink(directory: BorrowedFd<'_>, name: &CStr, flags: c_int) -> Result<()> {
    // SAFETY: the name is a terminated string that outlives the call.
    done(unsafe { libc::syscall(libc::SYS_unlinkat, directory.as_raw_fd(), name.as_ptr(), flags) })
}

/// Access and modification time of the file that a descriptor stands for, be it one of `O_PATH` or a symbolic link.
pub(in super::super) fn set_times(fd: BorrowedFd<'_>, times: [libc::timespec; 2]) -> Result<()> {
    // SAFETY: the path is a terminated string, and `times` has the two entries that the kernel reads.
    done(unsafe {
        libc::syscall(libc::SYS_utimensat, fd.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH)
    })
}

/// Owner and group of the file that a descriptor stands for; `u32::MAX` leaves one as it is.
pub(in super::super) fn set_owner(fd: BorrowedFd<'_>, user: u32, group: u32) -> Result<()> {
    // SAFETY: the path is a terminated string.
    done(unsafe { libc::syscall(libc::SYS_fchownat, fd.as_raw_fd(), c"".as_ptr(), user, group, libc::AT_EMPTY_PATH) })
}

/// Target of the symbolic link that a descriptor stands for; says how long it is.
pub(in super::super) fn read_link(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the path is a terminated string, and the kernel writes no more than the buffer's length.
    count(unsafe { libc::syscall(libc::SYS_readlinkat, fd.as_raw_fd(), c"".as_ptr(), into.as_mut_ptr(), into.len()) })
}

/// getdents64(2).
pub(in super::super) fn read_directory(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes no more than the buffer's length.
    count(unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), into.as_mut_ptr(), into.len()) })
}

/// getxattr(2): with an empty buffer, only the length.
pub(super) fn get_xattr(path: &CStr, name: &CStr, into: &mut [u8]) -> Result<usize> {
    // SAFETY: path and name are terminated strings, and the kernel writes no more than the buffer's length.
    count(unsafe { libc::syscall(libc::SYS_getxattr, path.as_ptr(), name.as_ptr(), into.as_mut_ptr(), into.len()) })
}

/// listxattr(2): with an empty buffer, only the length.
pub(super) fn list_xattr(path: &CStr, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the path is a terminated string, and the kernel writes no more than the buffer's length.
    count(unsafe { libc::syscall(libc::SYS_listxattr, path.as_ptr(), into.as_mut_ptr(), into.len()) })
}

/// setxattr(2).
pub(super) fn set_xattr(path: &CStr, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
    // SAFETY: path and name are terminated strings, and the kernel reads the value's length.
    done(unsafe { libc::syscall(libc::SYS_setxattr, path.as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), flags) })
}

/// removexattr(2).
pub(super) fn remove_xattr(path: &CStr, name: &CStr) -> Result<()> {
    // SAFETY: path and name are terminated strings.
    done(unsafe { libc::syscall(libc::SYS_removexattr, path.as_ptr(), name.as_ptr()) })
}

/// flock(2).
pub(in super::super) fn flock(fd: BorrowedFd<'_>, operation: c_int) -> Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { libc::syscall(libc::SYS_flock, fd.as_raw_fd(), operation) })
}

/// fallocate(2), with every mode.
pub(in super::super) fn allocate(fd: BorrowedFd<'_>, mode: u32, offset: i64, length: i64) -> Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { libc::syscall(libc::SYS_fallocate, fd.as_raw_fd(), mode, offset, length) })
}

/// copy_file_range(2); says how many bytes were copied.
pub(in super::super) fn copy(from: (BorrowedFd<'_>, i64), to: (BorrowedFd<'_>, i64), length: usize) -> Result<usize> {
    let ((from, mut from_offset), (to, mut to_offset)) = (from, to);
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: the kernel reads and writes the two offsets, which outlive the call.
    count(unsafe {
        libc::syscall(libc::SYS_copy_file_range, from, &raw mut from_offset, to, &raw mut to_offset, length, 0)
    })
}

/// lseek(2), with every origin.
pub(in super::super) fn seek(fd: BorrowedFd<'_>, offset: i64, origin: u32) -> Result<u64> {
    // SAFETY: no memory is involved.
    count(unsafe { libc::syscall(libc::SYS_lseek, fd.as_raw_fd(), offset, origin) }).map(|position| position as u64)
}

/// Effective, permitted and inheritable capabilities of this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// capget(2).
pub(super) fn capabilities() -> Result<Capabilities> {
    let header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut words = [0_u32; 6];
    // SAFETY: version 3 has two structures of three words each, which is what `words` has room for.
    done(unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) })?;
    let join = |at: usize| u64::from(words[at]) | u64::from(words[at + 3]) << 32;
    Ok(Capabilities { effective: join(0), permitted: join(1), inheritable: join(2) })
}

/// capset(2).
pub(super) fn set_capabilities(set: Capabilities) -> Result<()> {
    let header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
    let Capabilities { effective, permitted, inheritable } = set;
    let words = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: as in `capabilities`; the kernel only reads.
    done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) })
}

/// The thread's `SECBIT_*` bits.
pub(super) fn secure_bits() -> Result<c_int> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) })
}

/// Sets the thread's `SECBIT_*` bits.
pub(super) fn set_secure_bits(bits: c_int) -> Result<()> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits) }).map(drop)
}

/// Sets the user (`SYS_setfsuid`) or group (`SYS_setfsgid`) that this thread meets file systems as. By number: the C
/// library must not spread it over all threads.
pub(super) fn set_fs_id(call: c_long, id: u32) -> Result<()> {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(call, id) };
    // The call reports the old id and never an error. With an id that nobody has, it changes nothing.
    // SAFETY: as above.
    let now = unsafe { libc::syscall(call, u32::MAX) };
    if now as u32 == id { Ok(()) } else { Err(Errno::EPERM) }
}
