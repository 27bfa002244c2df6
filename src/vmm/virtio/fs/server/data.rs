//! Reading, writing, and where the bytes lie. Data go straight between the guest's memory and the file.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{fdatasync, fsync, syncfs};

use super::session::MAX_TRANSFER;
use super::{Reply, Request, Result, Server};
use crate::virtio::fs::abi::{
    CopyFileRangeIn, FSYNC_DATA, FallocateIn, FsyncIn, LseekIn, LseekOut, ReadIn, WRITE_CACHE, WRITE_KILL_SUIDGID,
    WriteIn, WriteOut,
};
use crate::virtio::fs::host;

/// Most bytes copied for one request, so that one request does not hold up the others for long. The guest's programs go on
/// where a copy has ended (copy_file_range(2)).
const MOST_COPIED: u64 = 32 << 20;

impl Server {
    pub(super) fn read(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let ReadIn { fh, offset, size, .. } = request.take()?;
        let file = self.handles.file(fh, request.header.nodeid)?.file.clone();
        let mut left = (size.min(MAX_TRANSFER) as usize).min(reply.body.left());
        let mut position = offset;
        while left > 0 {
            match reply.body.read_from_file_at(file.as_fd(), position, left) {
                Ok(0) => break,
                Ok(count) => {
                    left -= count;
                    position += count as u64;
                }
                Err(_) if position > offset => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let WriteIn { fh, offset, size, write_flags, flags, .. } = request.take()?;
        self.writable()?;
        let file = self.handles.writable(fh, request.header.nodeid)?.file.clone();
        let mut data = request.body.split_to(size.min(MAX_TRANSFER) as usize);
        if data.left() != size as usize {
            return Err(Errno::EINVAL);
        }
        // Pages that are written back belong where they are; their flags are those of any handle of the file.
        let appends = write_flags & WRITE_CACHE == 0 && flags & OFlag::O_APPEND.bits() as u32 != 0;
        let how = if appends { libc::RWF_APPEND } else { 0 };
        let mut written = 0_u64;
        let mut write = || -> Result<()> {
            while data.left() > 0 {
                let most = data.left();
                match data.write_to_file_with(file.as_fd(), offset + written, how, most) {
                    Ok(0) => break,
                    Ok(count) => written += count as u64,
                    Err(_) if written > 0 => break,
                    Err(error) => return Err(errno(&error)),
                }
            }
            Ok(())
        };
        if write_flags & WRITE_KILL_SUIDGID == 0 {
            write()?;
        } else {
            self.identity.as_ref().ok_or(Errno::ENOTCONN)?.without_fsetid(write)?;
        }
        reply.put(&WriteOut { size: written as u32, ..WriteOut::default() })
    }

    pub(super) fn fsync(&mut self, request: &mut Request<'_>) -> Result<()> {
        let FsyncIn { fh, flags, .. } = request.take()?;
        let handle = self.handles.get(fh, request.header.nodeid)?;
        let Some(file) = handle.file() else { return Ok(()) };
        if flags & FSYNC_DATA != 0 { fdatasync(file.as_fd()) } else { fsync(file.as_fd()) }
    }

    /// Everything that was ever written to the file system of a node.
    pub(super) fn syncfs(&mut self, request: &mut Request<'_>) -> Result<()> {
        let id = request.header.nodeid;
        if self.is_single_root(id) {
            // Its one file is synced by handle.
            return Ok(());
        }
        let node = self.node(id)?;
        if self.nodes.kind(id)? != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let directory = self.nodes.open(|| self.host.reopen(node.as_fd(), OFlag::O_RDONLY | OFlag::O_DIRECTORY))?;
        syncfs(directory.as_fd())
    }

    pub(super) fn fallocate(&mut self, request: &mut Request<'_>) -> Result<()> {
        let FallocateIn { fh, offset, length, mode, .. } = request.take()?;
        self.writable()?;
        let file = self.handles.writable(fh, request.header.nodeid)?.file.clone();
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let length = i64::try_from(length).map_err(|_| Errno::EINVAL)?;
        self.as_caller(request, || host::allocate(file.as_fd(), mode, offset, length))
    }

    pub(super) fn lseek(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let LseekIn { fh, offset, whence, .. } = request.take()?;
        let file = self.handles.file(fh, request.header.nodeid)?;
        // Other origins are the guest's own affair: it keeps the position.
        if whence != libc::SEEK_DATA as u32 && whence != libc::SEEK_HOLE as u32 {
            return Err(Errno::EINVAL);
        }
        let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let offset = host::seek(file.file.as_fd(), offset, whence)?;
        reply.put(&LseekOut { offset })
    }

    pub(super) fn copy_file_range(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let CopyFileRangeIn { fh_in, off_in, nodeid_out, fh_out, off_out, len, flags } = request.take()?;
        self.writable()?;
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let from = self.handles.file(fh_in, request.header.nodeid)?.file.clone();
        let to = self.handles.writable(fh_out, nodeid_out)?.file.clone();
        let from_offset = i64::try_from(off_in).map_err(|_| Errno::EINVAL)?;
        let to_offset = i64::try_from(off_out).map_err(|_| Errno::EINVAL)?;
        let most = len.min(MOST_COPIED) as usize;
        let count =
            self.as_caller(request, || host::copy((from.as_fd(), from_offset), (to.as_fd(), to_offset), most))?;
        reply.put(&WriteOut { size: count as u32, ..WriteOut::default() })
    }

    /// Changes data where the protocol does not say whether the caller may keep set-user-id and set-group-id: root may.
    fn as_caller<T>(&self, request: &Request<'_>, act: impl FnOnce() -> Result<T>) -> Result<T> {
        if request.header.uid == 0 {
            return act();
        }
        self.identity.as_ref().ok_or(Errno::ENOTCONN)?.without_fsetid(act)
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
