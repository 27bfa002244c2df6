//! What the server asks of the host's kernel. Everything goes by descriptor and, below a directory, by one name without a
//! slash: no path of the guest is ever resolved, so no symbolic link, no `..` and no renaming on the host leads anywhere.
//!
//! A node is held by a descriptor opened with `O_PATH`, which reads and writes nothing and runs no driver. What needs a real
//! one opens it again through the directory `/proc/self/fd`, which the owner has opened before the process confined itself:
//! that leads to the very same file, however often its name has changed.

mod budget;
mod identity;
mod status;
mod sys;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mkdirat, mknodat};
use nix::unistd::{linkat, symlinkat};

pub(super) use budget::{Budget, Descriptor};
pub(super) use identity::Identity;
pub(super) use status::{Key, Status, Version};

type Result<T> = std::result::Result<T, Errno>;

/// `O_PATH` and nothing of what is behind a symbolic link.
const NODE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How often a lookup is made again that a renaming on the host has disturbed (`EAGAIN` of openat2(2)).
const ATTEMPTS: usize = 16;

/// The way from a descriptor to another descriptor of the same file.
#[derive(Debug)]
pub(super) struct Host {
    proc: OwnedFd,
}

impl Host {
    /// Takes the directory `/proc/self/fd`.
    ///
    /// # Errors
    /// `ENOTDIR` where it is something else, or that of another process (opened before a fork).
    pub(super) fn new(proc: OwnedFd) -> Result<Self> {
        let path = number(proc.as_fd());
        let itself = openat(&proc, path.as_c_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|_| Errno::ENOTDIR)?;
        if Status::of(itself.as_fd())?.key() != Status::of(proc.as_fd())?.key() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Self { proc })
    }

    /// Makes this thread one that serves.
    pub(super) fn enter(&self) -> Result<Identity> {
        Identity::enter(self.proc.as_fd())
    }

    /// Opens the file behind a descriptor again. The caller has seen that it is a regular file or a directory: opening
    /// anything else would wait for a peer or run a driver.
    pub(super) fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd> {
        openat(&self.proc, number(fd).as_c_str(), flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
    }

    /// Another `O_PATH` descriptor of an open file.
    pub(super) fn node_of(&self, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
        openat(&self.proc, number(fd).as_c_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Changes permissions of what a descriptor stands for.
    pub(super) fn set_mode(&self, fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
        fchmodat(&self.proc, number(fd).as_c_str(), mode_bits(mode), FchmodatFlags::FollowSymlink)
    }

    /// Gives the file behind a descriptor another name.
    pub(super) fn link(&self, fd: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        linkat(&self.proc, number(fd).as_c_str(), directory, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

/// Name of a descriptor in `/proc/self/fd`.
fn number(fd: BorrowedFd<'_>) -> CString {
    CString::new(fd.as_raw_fd().to_string()).unwrap_or_default()
}

fn mode_bits(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}

fn how(flags: OFlag, mode: u32) -> OpenHow {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).mode(mode_bits(mode)).resolve(resolve)
}

fn open_below(directory: BorrowedFd<'_>, name: &CStr, how: OpenHow) -> Result<OwnedFd> {
    let mut attempt = 1;
    loop {
        match openat2(directory, name, how) {
            Err(Errno::EAGAIN) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// The node behind a name of a directory.
pub(super) fn open_node(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    open_below(directory, name, how(NODE, 0))
}

/// Makes a regular file and opens it. Never opens one that is there.
pub(super) fn create(directory: BorrowedFd<'_>, name: &CStr, flags: OFlag, mode: u32) -> Result<OwnedFd> {
    open_below(directory, name, how(flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOCTTY, mode))
}

/// Makes a regular file without a name and opens it.
pub(super) fn create_unnamed(directory: BorrowedFd<'_>, flags: OFlag, mode: u32) -> Result<OwnedFd> {
    openat(directory, c".", flags | OFlag::O_TMPFILE | OFlag::O_CLOEXEC, mode_bits(mode))
}

/// Makes a directory.
pub(super) fn make_directory(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    mkdirat(directory, name, mode_bits(mode))
}

/// Makes a file of any kind but a directory or a symbolic link; `device` is as the protocol has it.
pub(super) fn make_node(directory: BorrowedFd<'_>, name: &CStr, mode: u32, device: u32) -> Result<()> {
    // The protocol has the kernel's own encoding: twelve bits of major, twenty of minor, in three parts.
    let (major, minor) = (device >> 8 & 0xfff, (device & 0xff) | (device >> 12 & 0xf_ff00));
    let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
    mknodat(directory, name, kind, mode_bits(mode), libc::makedev(major, minor))
}

/// Makes a symbolic link.
pub(super) fn make_link(directory: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<()> {
    symlinkat(target, directory, name)
}

/// Removes a name.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    sys::unlink(directory, name, 0)
}

/// Removes an empty directory.
pub(super) fn remove_directory(directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    sys::unlink(directory, name, libc::AT_REMOVEDIR)
}

pub(super) use sys::{allocate, copy, flock, read_directory, read_link, rename, seek, set_owner, set_times};

/// Extended attributes, through the working directory that [`Host::enter`] has set: there is no call for descriptors that
/// takes one of `O_PATH` (before Linux 6.13).
pub(super) mod xattr {
    use super::{BorrowedFd, CStr, Result, number, sys};

    /// Length of a value, and the value as far as the buffer is not empty.
    pub(in super::super) fn get(fd: BorrowedFd<'_>, name: &CStr, into: &mut [u8]) -> Result<usize> {
        sys::get_xattr(&number(fd), name, into)
    }

    /// Length of the list of names, and the list as far as the buffer is not empty.
    pub(in super::super) fn list(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
        sys::list_xattr(&number(fd), into)
    }

    /// Sets a value.
    pub(in super::super) fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        sys::set_xattr(&number(fd), name, value, flags)
    }

    /// Removes a value.
    pub(in super::super) fn remove(fd: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        sys::remove_xattr(&number(fd), name)
    }
}

/// A lock of an open file description over a range: what other processes of the host see, whichever way they lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(super) kind: i32,
    /// First byte.
    pub(super) start: u64,
    /// Last byte; `i64::MAX` is the end of every file.
    pub(super) end: u64,
}

impl Range {
    fn flock(self) -> Result<libc::flock> {
        let start = i64::try_from(self.start).map_err(|_| Errno::EINVAL)?;
        let end = i64::try_from(self.end).map_err(|_| Errno::EINVAL)?;
        if end < start {
            return Err(Errno::EINVAL);
        }
        let length = if end == i64::MAX { 0 } else { end - start + 1 };
        let whence = libc::SEEK_SET as i16;
        Ok(libc::flock { l_type: self.kind as i16, l_whence: whence, l_start: start, l_len: length, l_pid: 0 })
    }
}

/// Sets or removes a lock, without waiting: `EAGAIN` where somebody else has it.
pub(super) fn set_lock(fd: BorrowedFd<'_>, range: Range) -> Result<()> {
    fcntl(fd, FcntlArg::F_OFD_SETLK(&range.flock()?)).map(drop)
}

/// The first lock that stands in the way of this one.
pub(super) fn conflicting_lock(fd: BorrowedFd<'_>, range: Range) -> Result<Option<Range>> {
    let mut lock = range.flock()?;
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock))?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let end = if lock.l_len == 0 { i64::MAX } else { lock.l_start + lock.l_len - 1 };
    Ok(Some(Range { kind: i32::from(lock.l_type), start: lock.l_start as u64, end: end as u64 }))
}
