//! What files and file systems are like.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs::fstatfs;
use nix::unistd::ftruncate;

use super::names::lifetime;
use super::{Reply, Request, Result, Server, Shown};
use crate::virtio::fs::abi::{
    Attr, AttrOut, GETATTR_FH, GetattrIn, KernelStatfs, SetattrIn, Statx, StatxIn, StatxOut, fattr,
};
use crate::virtio::fs::host::{self, Descriptor, Status};

/// Mode of the directory that is made up around a single file.
const SINGLE_ROOT_MODE: u32 = libc::S_IFDIR | 0o555;
/// Its number, which a file on most file systems never has.
const SINGLE_ROOT_INODE: u64 = 1;

impl Server {
    pub(super) fn getattr(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let GetattrIn { flags, fh, .. } = request.take()?;
        let id = request.header.nodeid;
        let status = self.status(id, (flags & GETATTR_FH != 0).then_some(fh))?;
        reply.put(&self.attributes(id, &status))
    }

    pub(super) fn statx(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let StatxIn { flags, fh, .. } = request.take()?;
        let id = request.header.nodeid;
        let status = self.status(id, (flags & GETATTR_FH != 0).then_some(fh))?;
        let stat = if self.is_single_root(id) {
            let Attr { mode, nlink, ino, uid, gid, size, .. } = single_root(&status);
            Statx { mode: mode as u16, nlink, ino, uid, gid, size, ..status.statx() }
        } else {
            status.statx()
        };
        let (attr_valid, attr_valid_nsec) = lifetime(self.caching.attributes);
        reply.put(&StatxOut { attr_valid, attr_valid_nsec, stat, ..StatxOut::default() })
    }

    fn attributes(&self, id: u64, status: &Status) -> AttrOut {
        let (attr_valid, attr_valid_nsec) = lifetime(self.caching.attributes);
        let attr = if self.is_single_root(id) { single_root(status) } else { status.attr() };
        AttrOut { attr_valid, attr_valid_nsec, attr, ..AttrOut::default() }
    }

    /// Status of a node, by a handle where there is one. That of a made-up directory is its file's.
    fn status(&mut self, id: u64, handle: Option<u64>) -> Result<Status> {
        if let Shown::Single { file, .. } = &self.shown
            && self.is_single_root(id)
        {
            return Status::of(file.as_fd());
        }
        if let Some(file) = handle.and_then(|handle| self.handles.get(handle, id).ok()?.file()) {
            return Status::of(file.as_fd());
        }
        Status::of(self.node(id)?.as_fd())
    }

    pub(super) fn setattr(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let change: SetattrIn = request.take()?;
        let id = request.header.nodeid;
        self.writable()?;
        let node = self.node(id)?;
        if change.valid & fattr::SIZE != 0 {
            self.set_size(id, &node, &change)?;
        }
        // The owner before the mode: changing it takes set-user-id and set-group-id away, which the mode may give.
        if change.valid & (fattr::UID | fattr::GID) != 0 {
            let chosen = |flag: u32, value: u32| if change.valid & flag != 0 { value } else { u32::MAX };
            host::set_owner(node.as_fd(), chosen(fattr::UID, change.uid), chosen(fattr::GID, change.gid))?;
        }
        if change.valid & fattr::MODE != 0 {
            self.host.set_mode(node.as_fd(), change.mode)?;
        }
        if change.valid & (fattr::ATIME | fattr::MTIME) != 0 {
            host::set_times(node.as_fd(), times(&change))?;
        }
        let status = Status::of(node.as_fd())?;
        reply.put(&self.attributes(id, &status))
    }

    fn set_size(&mut self, id: u64, node: &Arc<Descriptor>, change: &SetattrIn) -> Result<()> {
        let size = i64::try_from(change.size).map_err(|_| Errno::EFBIG)?;
        let handle = (change.valid & fattr::FH != 0).then_some(change.fh);
        let open = handle.and_then(|handle| self.handles.writable(handle, id).ok()).map(|open| open.file.clone());
        let truncate = |file: std::os::fd::BorrowedFd<'_>| {
            if change.valid & fattr::KILL_SUIDGID == 0 {
                return ftruncate(file, size);
            }
            self.identity.as_ref().ok_or(Errno::ENOTCONN)?.without_fsetid(|| ftruncate(file, size))
        };
        match open {
            Some(file) => truncate(file.as_fd()),
            None => truncate(self.open_regular(id, node, OFlag::O_WRONLY)?.as_fd()),
        }
    }

    /// Opens a node for a moment.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` where it is no regular file: nothing else may be opened.
    pub(super) fn open_regular(&self, id: u64, node: &Arc<Descriptor>, flags: OFlag) -> Result<OwnedFd> {
        match self.nodes.kind(id)? {
            libc::S_IFREG => self.host.reopen(node.as_fd(), flags),
            libc::S_IFDIR => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// With `default_permissions`, which virtio-fs always has, the client judges by mode and access control lists, and asks
    /// this only where it cannot. It need not ask again.
    pub(super) fn may_access(&mut self, request: &mut Request<'_>) -> Result<()> {
        let mask: u32 = request.take()?;
        if mask & libc::W_OK as u32 != 0 {
            self.writable()?;
        }
        Err(Errno::ENOSYS)
    }

    pub(super) fn statfs(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let id = request.header.nodeid;
        let status = match &self.shown {
            Shown::Single { file, .. } if self.is_single_root(id) => fstatfs(file)?,
            _ => fstatfs(self.node(id)?.as_fd())?,
        };
        reply.put(&KernelStatfs {
            blocks: status.blocks(),
            bfree: status.blocks_free(),
            bavail: status.blocks_available(),
            files: status.files(),
            ffree: status.files_free(),
            bsize: status.block_size() as u32,
            namelen: status.maximum_name_length() as u32,
            // What `blocks` counts in; Linux has it the same as `bsize` wherever it says nothing else.
            frsize: status.block_size() as u32,
            ..KernelStatfs::default()
        })
    }
}

/// Access and modification time as utimensat(2) wants them.
fn times(change: &SetattrIn) -> [libc::timespec; 2] {
    let time = |set: u32, now: u32, seconds: u64, nanoseconds: u32| {
        let (tv_sec, tv_nsec) = match change.valid {
            valid if valid & set == 0 => (0, libc::UTIME_OMIT),
            valid if valid & now != 0 => (0, libc::UTIME_NOW),
            _ => (seconds as i64, i64::from(nanoseconds.min(999_999_999))),
        };
        libc::timespec { tv_sec, tv_nsec }
    };
    [
        time(fattr::ATIME, fattr::ATIME_NOW, change.atime, change.atimensec),
        time(fattr::MTIME, fattr::MTIME_NOW, change.mtime, change.mtimensec),
    ]
}

/// The directory around a single file: of root, for all to read, as old as the file.
fn single_root(file: &Status) -> Attr {
    let Attr { atime, mtime, ctime, atimensec, mtimensec, ctimensec, blksize, .. } = file.attr();
    Attr {
        ino: SINGLE_ROOT_INODE,
        mode: SINGLE_ROOT_MODE,
        nlink: 2,
        atime,
        mtime,
        ctime,
        atimensec,
        mtimensec,
        ctimensec,
        blksize,
        ..Attr::default()
    }
}
