//! Names: finding, making, removing and changing them.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;

use super::request::{component, string};
use super::{Reply, Request, Result, Server, Shown};
use crate::virtio::fs::abi::{
    ATTR_SUBMOUNT, Attr, BatchForgetIn, EntryOut, ForgetIn, ForgetOne, MkdirIn, MknodIn, Rename2In, RenameIn, init,
    opcode,
};
use crate::virtio::fs::host::{self, Status};
use crate::virtio::fs::nodes::{Found, Place};

impl Server {
    pub(super) fn lookup(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let name = request.name()?;
        match self.find(request.header.nodeid, &name) {
            Ok(found) => reply.put(&self.entry(&found)),
            // An entry without a node is a name that the guest may believe to be free for a while.
            Err(Errno::ENOENT) if !self.caching.names.is_zero() => {
                let (entry_valid, entry_valid_nsec) = lifetime(self.caching.names);
                reply.put(&EntryOut { entry_valid, entry_valid_nsec, ..EntryOut::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// The node behind a name, told to the guest.
    pub(super) fn find(&mut self, parent: u64, name: &CStr) -> Result<Found> {
        if self.is_single_root(parent) {
            return self.find_single(name);
        }
        let directory = self.node(parent)?;
        let place = Place { parent, name: name.to_owned() };
        let status = Status::at(directory.as_fd(), name)?;
        if let Some(found) = self.nodes.tell_known(&status, &place) {
            return Ok(found);
        }
        let fd = self.nodes.open(|| host::open_node(directory.as_fd(), name))?;
        self.nodes.tell(fd, Some(place))
    }

    fn find_single(&mut self, wanted: &CStr) -> Result<Found> {
        let Shown::Single { file, name } = &self.shown else { return Err(Errno::ENOENT) };
        if name.as_c_str() != wanted {
            return Err(Errno::ENOENT);
        }
        let fd = self.nodes.open(|| self.host.node_of(file.as_fd()))?;
        self.nodes.tell(fd, None)
    }

    /// What the guest is told of a node.
    pub(super) fn entry(&self, found: &Found) -> EntryOut {
        let (entry_valid, entry_valid_nsec) = lifetime(self.caching.names);
        let (attr_valid, attr_valid_nsec) = lifetime(self.caching.attributes);
        let marked = found.is_mount && self.session.is_some_and(|session| session.has(init::SUBMOUNTS));
        let attr = Attr { flags: if marked { ATTR_SUBMOUNT } else { 0 }, ..found.status.attr() };
        EntryOut { nodeid: found.id, generation: 0, entry_valid, attr_valid, entry_valid_nsec, attr_valid_nsec, attr }
    }

    /// `FORGET` and `BATCH_FORGET`, and nothing else.
    pub(super) fn forgetting(&mut self, request: &mut Request<'_>) {
        match request.header.opcode {
            opcode::FORGET => {
                if let Ok(ForgetIn { nlookup }) = request.take() {
                    self.nodes.forget(request.header.nodeid, nlookup);
                }
            }
            opcode::BATCH_FORGET => {
                let count = request.take::<BatchForgetIn>().map_or(0, |batch| batch.count);
                for _ in 0..count {
                    let Ok(ForgetOne { nodeid, nlookup }) = request.take() else { return };
                    self.nodes.forget(nodeid, nlookup);
                }
            }
            _ => {}
        }
    }

    pub(super) fn mkdir(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let MkdirIn { mode, umask } = request.take()?;
        let name = request.name()?;
        self.make(request, reply, umask, &name, |directory, name| host::make_directory(directory, name, mode))
    }

    pub(super) fn mknod(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let MknodIn { mode, rdev, umask, .. } = request.take()?;
        let name = request.name()?;
        if !matches!(
            mode & libc::S_IFMT,
            libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK
        ) {
            return Err(Errno::EINVAL);
        }
        self.make(request, reply, umask, &name, |directory, name| host::make_node(directory, name, mode, rdev))
    }

    pub(super) fn symlink(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let tail = request.tail()?;
        let mut rest = tail.as_slice();
        let name = component(&mut rest)?;
        let target = string(&mut rest)?;
        self.make(request, reply, 0, &name, |directory, name| host::make_link(directory, name, &target))
    }

    /// Makes something that is not opened, as the caller, and tells the guest of it.
    fn make(
        &mut self,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
        umask: u32,
        name: &CStr,
        make: impl FnOnce(std::os::fd::BorrowedFd<'_>, &CStr) -> Result<()>,
    ) -> Result<()> {
        self.writable()?;
        let parent = request.header.nodeid;
        let directory = self.node(parent)?;
        self.make_as(request, umask)?;
        make(directory.as_fd(), name)?;
        let found = self.find(parent, name)?;
        reply.put(&self.entry(&found))
    }

    pub(super) fn unlink(&mut self, request: &mut Request<'_>) -> Result<()> {
        self.remove(request, host::remove)
    }

    pub(super) fn rmdir(&mut self, request: &mut Request<'_>) -> Result<()> {
        self.remove(request, host::remove_directory)
    }

    fn remove(
        &mut self,
        request: &mut Request<'_>,
        remove: impl FnOnce(std::os::fd::BorrowedFd<'_>, &CStr) -> Result<()>,
    ) -> Result<()> {
        let name = request.name()?;
        self.writable()?;
        let parent = request.header.nodeid;
        self.refuse_single(parent)?;
        let directory = self.node(parent)?;
        let known = self.hold_known(parent, &name);
        remove(directory.as_fd(), &name)?;
        if let Some(id) = known {
            self.nodes.unplace(id, parent, &name);
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, request: &mut Request<'_>) -> Result<()> {
        let RenameIn { newdir } = request.take()?;
        self.rename_to(request, newdir, 0)
    }

    pub(super) fn rename_with_flags(&mut self, request: &mut Request<'_>) -> Result<()> {
        let Rename2In { newdir, flags, .. } = request.take()?;
        self.rename_to(request, newdir, flags)
    }

    fn rename_to(&mut self, request: &mut Request<'_>, to: u64, flags: u32) -> Result<()> {
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT) != 0 {
            return Err(Errno::EINVAL);
        }
        let tail = request.tail()?;
        let mut rest = tail.as_slice();
        let (old, new) = (component(&mut rest)?, component(&mut rest)?);
        self.writable()?;
        let from = request.header.nodeid;
        self.refuse_single(from)?;
        let (old_directory, new_directory) = (self.node(from)?, self.node(to)?);
        if flags & libc::RENAME_WHITEOUT != 0 {
            self.make_as(request, 0)?;
        }
        let (moved, replaced) = (self.hold_known(from, &old), self.hold_known(to, &new));
        host::rename((old_directory.as_fd(), &old), (new_directory.as_fd(), &new), flags)?;
        match replaced {
            Some(id) if flags & libc::RENAME_EXCHANGE != 0 => self.nodes.place(id, from, &old),
            // Two names of one file: renaming does nothing (rename(2)).
            Some(id) if replaced == moved => self.nodes.place(id, to, &new),
            Some(id) => self.nodes.unplace(id, to, &new),
            None => {}
        }
        if let Some(id) = moved {
            self.nodes.place(id, to, &new);
        }
        Ok(())
    }

    /// The node behind a name that is about to change, if the guest knows it.
    fn hold_known(&mut self, parent: u64, name: &CStr) -> Option<u64> {
        let directory = self.node(parent).ok()?;
        let fd = self.nodes.open(|| host::open_node(directory.as_fd(), name)).ok()?;
        self.nodes.hold_known(fd)
    }

    /// The one name of a single file is, like a mount point, not to be moved or removed.
    fn refuse_single(&self, directory: u64) -> Result<()> {
        if self.is_single_root(directory) { Err(Errno::EBUSY) } else { Ok(()) }
    }
}

/// Seconds and nanoseconds, as the protocol has them.
pub(super) fn lifetime(time: Duration) -> (u64, u32) {
    (time.as_secs(), time.subsec_nanos())
}
