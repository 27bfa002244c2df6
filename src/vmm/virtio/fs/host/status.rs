//! What the host says of a file, and who the file is.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::sys;
use crate::virtio::fs::abi::{Attr, Statx, StatxTime};

/// Who a file is as long as somebody holds it: afterwards the numbers may be given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in super::super) struct Key {
    device: (u32, u32),
    inode: u64,
    /// The mount that it was found in: the same directory seen through two mounts is two nodes, as they differ in what can
    /// be renamed and linked, and in what `..` is.
    pub(in super::super) mount: u64,
}

/// What of a file changes whenever its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Version {
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// What statx(2) says.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Status(libc::statx);

impl Status {
    /// Of the file behind a descriptor.
    pub(in super::super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        sys::statx(fd, c"").map(Self)
    }

    /// Of the file behind a name of a directory, whatever it is.
    pub(in super::super) fn at(directory: BorrowedFd<'_>, name: &CStr) -> Result<Self, Errno> {
        sys::statx(directory, name).map(Self)
    }

    pub(in super::super) fn key(&self) -> Key {
        let Self(status) = self;
        Key { device: (status.stx_dev_major, status.stx_dev_minor), inode: status.stx_ino, mount: status.stx_mnt_id }
    }

    /// Type of the file (`S_IFMT`).
    pub(in super::super) fn kind(&self) -> u32 {
        self.mode() & libc::S_IFMT
    }

    pub(in super::super) fn mode(&self) -> u32 {
        u32::from(self.0.stx_mode)
    }

    pub(in super::super) fn inode(&self) -> u64 {
        self.0.stx_ino
    }

    /// When the file was made, where the file system keeps that: tells files apart that had the same number in turn.
    pub(in super::super) fn born(&self) -> Option<(i64, u32)> {
        let known = self.0.stx_mask & libc::STATX_BTIME != 0;
        known.then_some((self.0.stx_btime.tv_sec, self.0.stx_btime.tv_nsec))
    }

    pub(in super::super) fn version(&self) -> Version {
        let Self(status) = self;
        Version {
            size: status.stx_size,
            modified: (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
            changed: (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec),
        }
    }

    /// Time of the last change of content or attributes, in seconds.
    pub(in super::super) fn last_change(&self) -> i64 {
        self.0.stx_mtime.tv_sec.max(self.0.stx_ctime.tv_sec)
    }

    /// As `GETATTR` has it.
    pub(in super::super) fn attr(&self) -> Attr {
        let Self(status) = self;
        Attr {
            ino: status.stx_ino,
            size: status.stx_size,
            blocks: status.stx_blocks,
            atime: status.stx_atime.tv_sec as u64,
            mtime: status.stx_mtime.tv_sec as u64,
            ctime: status.stx_ctime.tv_sec as u64,
            atimensec: status.stx_atime.tv_nsec,
            mtimensec: status.stx_mtime.tv_nsec,
            ctimensec: status.stx_ctime.tv_nsec,
            mode: self.mode(),
            nlink: status.stx_nlink,
            uid: status.stx_uid,
            gid: status.stx_gid,
            rdev: encode_device(status.stx_rdev_major, status.stx_rdev_minor),
            blksize: status.stx_blksize,
            flags: 0,
        }
    }

    /// As `STATX` has it.
    pub(in super::super) fn statx(&self) -> Statx {
        let Self(status) = self;
        Statx {
            mask: status.stx_mask & (libc::STATX_BASIC_STATS | libc::STATX_BTIME),
            blksize: status.stx_blksize,
            attributes: status.stx_attributes,
            nlink: status.stx_nlink,
            uid: status.stx_uid,
            gid: status.stx_gid,
            mode: status.stx_mode,
            ino: status.stx_ino,
            size: status.stx_size,
            blocks: status.stx_blocks,
            attributes_mask: status.stx_attributes_mask,
            atime: time(status.stx_atime),
            btime: time(status.stx_btime),
            ctime: time(status.stx_ctime),
            mtime: time(status.stx_mtime),
            rdev_major: status.stx_rdev_major,
            rdev_minor: status.stx_rdev_minor,
            dev_major: status.stx_dev_major,
            dev_minor: status.stx_dev_minor,
            ..Statx::default()
        }
    }
}

fn time(time: libc::statx_timestamp) -> StatxTime {
    StatxTime { seconds: time.tv_sec, nanoseconds: time.tv_nsec, _reserved: 0 }
}

/// As the kernel shows devices to programs with 32-bit numbers (`new_encode_dev`).
fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}
