//! The file server: FUSE requests in, answers out, over one share. It knows no transport: a request is a [`Reader`], room
//! for the answer a [`Writer`], in the guest's memory or in ours.
//!
//! It belongs to one thread, which [`Server::enter`] makes fit (see [`super::host`]): it acts on the host as the caller in
//! the guest, with the thread's own user ids, umask and working directory.

mod attributes;
mod data;
mod directories;
mod files;
mod handles;
mod links;
mod locks;
mod names;
mod request;
mod saved;
mod session;
mod xattrs;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::abi::{ROOT_ID, opcode};
use super::host::{Budget, Descriptor, Host, Identity, Status};
use super::nodes::Nodes;
use super::share::{Access, Caching, Limits, Root, Share, ShareError, TAG_MAX};
use crate::virtio::chain::{Reader, Writer};
use handles::Handles;
use locks::Locks;
use request::{Reply, Request};
use session::Session;

pub use locks::Ticket;
pub(super) use request::is_component;

type Result<T> = std::result::Result<T, Errno>;

/// What became of a request.
#[derive(Debug)]
pub enum Outcome<'m> {
    /// It is answered with so many bytes; none where it wants no answer or has no room for one.
    Done(usize),
    /// It waits for a lock. The answer comes from [`Server::settle`], under this ticket, and belongs in this room.
    Waits(Ticket, Writer<'m>),
}

/// An answer that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What [`Outcome::Waits`] has named.
    pub ticket: Ticket,
    /// The whole answer.
    pub answer: Vec<u8>,
}

/// What a handler leaves to be done.
enum Answer {
    /// Send what was written.
    Send,
    /// Send nothing.
    Nothing,
    /// Send an answer when a lock can be had.
    Wait(Ticket),
}

/// What the root is.
#[derive(Debug)]
enum Shown {
    Tree,
    Single { file: OwnedFd, name: CString },
}

/// A server of one share.
#[derive(Debug)]
pub struct Server {
    tag: String,
    host: Host,
    identity: Option<Identity>,
    shown: Shown,
    access: Access,
    mappable: bool,
    caching: Caching,
    nodes: Nodes,
    handles: Handles,
    locks: Locks,
    session: Option<Session>,
}

impl Server {
    /// A server of a share.
    ///
    /// # Errors
    /// The share is none: a bad tag, name or limit, or descriptors of another kind than they should be.
    pub fn new(share: Share) -> std::result::Result<Self, ShareError> {
        let Share { tag, root, proc, access, mappable, caching, limits } = share;
        if tag.is_empty() || tag.len() > TAG_MAX || tag.contains('\0') {
            return Err(ShareError::Tag(tag));
        }
        let Limits { descriptors, nodes } = limits;
        if descriptors < 16 || nodes < 16 {
            return Err(ShareError::Limits { tag, limits });
        }
        let failed = |tag: &str, step: &'static str| {
            let tag = tag.to_owned();
            move |error: Errno| ShareError::Host { tag, step, source: error.into() }
        };
        let host = Host::new(proc).map_err(failed(&tag, "look at /proc/self/fd of this process"))?;
        let budget = Budget::new(descriptors);
        let mut table = Nodes::new(budget.clone(), nodes);
        let shown = match root {
            Root::Directory(fd) => {
                let status = Status::of(fd.as_fd()).map_err(failed(&tag, "look at its root"))?;
                if status.kind() != libc::S_IFDIR {
                    return Err(ShareError::Root { tag, wanted: "a directory" });
                }
                table.set_root(budget.count(fd), &status);
                Shown::Tree
            }
            Root::File { file, name } => {
                let status = Status::of(file.as_fd()).map_err(failed(&tag, "look at its file"))?;
                if matches!(status.kind(), libc::S_IFDIR | libc::S_IFLNK) {
                    return Err(ShareError::Root { tag, wanted: "a file, not a directory or a symbolic link" });
                }
                if is_component(&name).is_err() {
                    return Err(ShareError::Name { tag, name });
                }
                Shown::Single { file, name }
            }
        };
        let (handles, locks) = (Handles::default(), Locks::default());
        Ok(Self {
            tag,
            host,
            identity: None,
            shown,
            access,
            mappable,
            caching,
            nodes: table,
            handles,
            locks,
            session: None,
        })
    }

    /// Name of the share.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Makes the calling thread the one that serves: its umask, working directory and file system ids are its own from here
    /// on. Every request must come on this thread.
    ///
    /// # Errors
    /// The host refuses.
    pub fn enter(&mut self) -> std::io::Result<()> {
        if self.identity.is_none() {
            self.identity = Some(self.host.enter()?);
        }
        Ok(())
    }

    /// Serves a request.
    pub fn serve<'m>(&mut self, reader: &mut Reader<'m>, writer: &mut Writer<'m>) -> Outcome<'m> {
        let Some(mut request) = Request::read(reader) else { return Outcome::Done(0) };
        let unique = request.header.unique;
        let Some(mut reply) = Reply::new(writer) else {
            // Forgetting wants no answer; whatever else has no room for one is not done at all.
            self.forgetting(&mut request);
            return Outcome::Done(0);
        };
        match self.dispatch(&mut request, &mut reply) {
            Ok(Answer::Send) => Outcome::Done(reply.finish(unique, Ok(()))),
            Ok(Answer::Nothing) => Outcome::Done(0),
            Ok(Answer::Wait(ticket)) => Outcome::Waits(ticket, reply.header_room()),
            Err(error) => Outcome::Done(reply.finish(unique, Err(error))),
        }
    }

    /// Answers to requests that waited for a lock and have it now, or cannot have it any more.
    pub fn settle(&mut self, now: Instant) -> Vec<Settled> {
        self.locks.settle(now)
    }

    /// How long until [`Server::settle`] should be called again if no request comes before: somebody waits for a lock that
    /// another process of the host has. None where nobody waits.
    #[must_use]
    pub fn next_settling(&self, now: Instant) -> Option<Duration> {
        self.locks.next_try(now)
    }

    /// Forgets the guest: everything that it holds is closed.
    pub fn reset(&mut self) {
        self.handles.clear();
        self.locks.clear();
        self.nodes.clear();
        self.session = None;
    }

    fn dispatch(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<Answer> {
        let code = request.header.opcode;
        if self.identity.is_none() || (self.session.is_none() && code != opcode::INIT) {
            return Err(Errno::ENOTCONN);
        }
        match code {
            opcode::FORGET | opcode::BATCH_FORGET => {
                self.forgetting(request);
                return Ok(Answer::Nothing);
            }
            opcode::INTERRUPT => {
                self.interrupt(request)?;
                return Ok(Answer::Nothing);
            }
            opcode::SETLKW => return self.set_lock_waiting(request),
            _ => {}
        }
        self.answer(code, request, reply).map(|()| Answer::Send)
    }

    fn answer(&mut self, code: u32, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        match code {
            opcode::INIT => self.init(request, reply),
            opcode::DESTROY => self.destroy(),
            opcode::LOOKUP => self.lookup(request, reply),
            opcode::GETATTR => self.getattr(request, reply),
            opcode::SETATTR => self.setattr(request, reply),
            opcode::STATX => self.statx(request, reply),
            opcode::STATFS => self.statfs(request, reply),
            opcode::ACCESS => self.may_access(request),
            opcode::READLINK => self.readlink(request, reply),
            opcode::SYMLINK => self.symlink(request, reply),
            opcode::MKNOD => self.mknod(request, reply),
            opcode::MKDIR => self.mkdir(request, reply),
            opcode::UNLINK => self.unlink(request),
            opcode::RMDIR => self.rmdir(request),
            opcode::RENAME => self.rename(request),
            opcode::RENAME2 => self.rename_with_flags(request),
            opcode::LINK => self.link(request, reply),
            opcode::OPEN => self.open(request, reply),
            opcode::CREATE => self.create(request, reply),
            opcode::TMPFILE => self.tmpfile(request, reply),
            opcode::RELEASE | opcode::RELEASEDIR => self.release(request),
            opcode::FLUSH => self.flush(request),
            opcode::READ => self.read(request, reply),
            opcode::WRITE => self.write(request, reply),
            opcode::FSYNC | opcode::FSYNCDIR => self.fsync(request),
            opcode::SYNCFS => self.syncfs(request),
            opcode::FALLOCATE => self.fallocate(request),
            opcode::LSEEK => self.lseek(request, reply),
            opcode::COPY_FILE_RANGE => self.copy_file_range(request, reply),
            opcode::OPENDIR => self.opendir(request, reply),
            opcode::READDIR => self.readdir(request, reply),
            opcode::READDIRPLUS => self.readdirplus(request, reply),
            opcode::SETXATTR => self.setxattr(request),
            opcode::GETXATTR => self.getxattr(request, reply),
            opcode::LISTXATTR => self.listxattr(request, reply),
            opcode::REMOVEXATTR => self.removexattr(request),
            opcode::GETLK => self.get_lock(request, reply),
            opcode::SETLK => self.set_lock(request),
            // Flags and the like of the host's file systems are the host's business.
            opcode::IOCTL => Err(Errno::ENOTTY),
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The descriptor of a node.
    ///
    /// # Errors
    /// `ESTALE` where the guest does not know it, `EPERM` for the root of a single file, which no file stands behind.
    fn node(&mut self, id: u64) -> Result<Arc<Descriptor>> {
        if self.is_single_root(id) {
            return Err(Errno::EPERM);
        }
        self.nodes.hold(id)
    }

    /// Whether a node is the directory that is made up around a single file.
    fn is_single_root(&self, id: u64) -> bool {
        id == ROOT_ID && matches!(self.shown, Shown::Single { .. })
    }

    /// # Errors
    /// `EROFS` where nothing may be changed.
    fn writable(&self) -> Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Errno::EROFS),
        }
    }

    fn identity(&mut self) -> Result<&mut Identity> {
        self.identity.as_mut().ok_or(Errno::ENOTCONN)
    }

    /// From here on, what is made belongs to the caller, with no more permissions than its umask leaves.
    fn make_as(&mut self, request: &Request<'_>, umask: u32) -> Result<()> {
        let (user, group) = (request.header.uid, request.header.gid);
        let identity = self.identity()?;
        identity.act_as(user, group)?;
        identity.mask_with(umask);
        Ok(())
    }

    fn session(&self) -> Result<Session> {
        self.session.ok_or(Errno::ENOTCONN)
    }
}
