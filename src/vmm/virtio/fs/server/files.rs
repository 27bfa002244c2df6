//! Opening, making and closing files.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::handles::{Handle, OpenFile};
use super::{Reply, Request, Result, Server};
use crate::virtio::fs::abi::{CreateIn, FOPEN_KEEP_CACHE, FlushIn, OPEN_KILL_SUIDGID, OpenIn, OpenOut, ReleaseIn};
use crate::virtio::fs::host::{self, Descriptor, Status};
use crate::virtio::fs::nodes::{Found, Place};
use crate::virtio::fs::share::Access;

/// How often a file is made or opened anew when the host makes and removes it at the same time.
const ATTEMPTS: usize = 16;

/// How a file is to be opened.
#[derive(Clone, Copy, Debug)]
struct Opening {
    flags: OFlag,
    writable: bool,
    /// Truncation takes set-user-id and set-group-id away.
    kills: bool,
}

impl Server {
    pub(super) fn open(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let OpenIn { flags, open_flags } = request.take()?;
        let opening = self.opening(flags, open_flags)?;
        let opened = self.open_node(request.header.nodeid, opening)?;
        reply.put(&opened)
    }

    /// What of the guest's flags is the host's business. Appending is told with each write; a descriptor of ours that
    /// appended would also append pages that the guest writes back. The guest asks for syncing when it is due. Direct
    /// transfers would make the guest's pages answer to the alignment of the host's disks.
    fn opening(&self, flags: u32, open_flags: u32) -> Result<Opening> {
        let asked = OFlag::from_bits_truncate(i32::try_from(flags).map_err(|_| Errno::EINVAL)?);
        let access = asked & OFlag::O_ACCMODE;
        if ![OFlag::O_RDONLY, OFlag::O_WRONLY, OFlag::O_RDWR].contains(&access) {
            return Err(Errno::EINVAL);
        }
        let writable = access != OFlag::O_RDONLY;
        if writable || asked.contains(OFlag::O_TRUNC) {
            self.writable()?;
        }
        let flags = access | asked & (OFlag::O_TRUNC | OFlag::O_EXCL | OFlag::O_NOATIME);
        Ok(Opening { flags, writable, kills: open_flags & OPEN_KILL_SUIDGID != 0 })
    }

    fn open_node(&mut self, id: u64, opening: Opening) -> Result<OpenOut> {
        let node = self.node(id)?;
        match self.nodes.kind(id)? {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(Errno::EISDIR),
            // Pipes, sockets and devices are the guest's own affair: its kernel opens them without us.
            _ => return Err(Errno::EINVAL),
        }
        let flags = opening.flags & !OFlag::O_EXCL;
        let file = match self.access {
            // Reading leaves no trace either where the host lets it.
            Access::ReadOnly => match self.reopen(&node, flags | OFlag::O_NOATIME, false) {
                Err(Errno::EPERM) => self.reopen(&node, flags, false)?,
                result => result?,
            },
            Access::ReadWrite => self.reopen(&node, flags, opening.kills && flags.contains(OFlag::O_TRUNC))?,
        };
        let keep = !flags.contains(OFlag::O_TRUNC) && {
            let status = Status::of(file.as_fd())?;
            self.nodes.may_keep_cache(id, &status, seconds_now())
        };
        Ok(self.opened(id, file, opening.writable, keep))
    }

    fn reopen(&mut self, node: &Arc<Descriptor>, flags: OFlag, kills: bool) -> Result<Descriptor> {
        let (host, identity) = (&self.host, self.identity.as_ref().ok_or(Errno::ENOTCONN)?);
        self.nodes.open(|| match kills {
            true => identity.without_fsetid(|| host.reopen(node.as_fd(), flags)),
            false => host.reopen(node.as_fd(), flags),
        })
    }

    fn opened(&mut self, node: u64, file: Descriptor, writable: bool, keep: bool) -> OpenOut {
        let fh = self.handles.add(Handle::File(OpenFile { node, file: Arc::new(file), writable }));
        OpenOut { fh, open_flags: if keep { FOPEN_KEEP_CACHE } else { 0 }, backing_id: 0 }
    }

    pub(super) fn create(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let CreateIn { flags, mode, umask, open_flags } = request.take()?;
        let name = request.name()?;
        self.writable()?;
        let opening = self.opening(flags, open_flags)?;
        let parent = request.header.nodeid;
        self.node(parent)?;
        self.make_as(request, umask)?;
        for _ in 0..ATTEMPTS {
            match self.create_new(parent, &name, opening, mode) {
                Err(Errno::EEXIST) if !opening.flags.contains(OFlag::O_EXCL) => {}
                result => return self.reply_created(reply, result?),
            }
            match self.open_existing(parent, &name, opening) {
                Err(Errno::ENOENT) => {}
                result => return self.reply_created(reply, result?),
            }
        }
        Err(Errno::ESTALE)
    }

    fn create_new(&mut self, parent: u64, name: &CStr, opening: Opening, mode: u32) -> Result<(Found, OpenOut)> {
        let directory = self.node(parent)?;
        let file = self.nodes.open(|| host::create(directory.as_fd(), name, opening.flags, mode))?;
        let place = Place { parent, name: name.to_owned() };
        self.tell_created(file, Some(place), opening)
    }

    fn tell_created(&mut self, file: Descriptor, place: Option<Place>, opening: Opening) -> Result<(Found, OpenOut)> {
        let node = self.nodes.open(|| self.host.node_of(file.as_fd()))?;
        let found = self.nodes.tell(node, place)?;
        let opened = self.opened(found.id, file, opening.writable, false);
        Ok((found, opened))
    }

    /// The host was faster: the guest found no such file, and now there is one.
    fn open_existing(&mut self, parent: u64, name: &CStr, opening: Opening) -> Result<(Found, OpenOut)> {
        let found = self.find(parent, name)?;
        let result = match found.status.kind() {
            // The client takes no other file for an answer. It looks the name up again.
            libc::S_IFREG | libc::S_IFDIR => self.open_node(found.id, opening),
            _ => Err(Errno::ESTALE),
        };
        match result {
            Ok(opened) => Ok((found, opened)),
            Err(error) => {
                self.nodes.forget(found.id, 1);
                Err(error)
            }
        }
    }

    fn reply_created(&mut self, reply: &mut Reply<'_>, (found, opened): (Found, OpenOut)) -> Result<()> {
        reply.put(&self.entry(&found))?;
        reply.put(&opened)
    }

    pub(super) fn tmpfile(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let CreateIn { flags, mode, umask, open_flags } = request.take()?;
        self.writable()?;
        let opening = self.opening(flags, open_flags)?;
        let directory = self.node(request.header.nodeid)?;
        self.make_as(request, umask)?;
        let flags = opening.flags & !OFlag::O_TRUNC;
        let file = self.nodes.open(|| host::create_unnamed(directory.as_fd(), flags, mode))?;
        let created = self.tell_created(file, None, opening)?;
        self.reply_created(reply, created)
    }

    pub(super) fn release(&mut self, request: &mut Request<'_>) -> Result<()> {
        let ReleaseIn { fh, .. } = request.take()?;
        let node = request.header.nodeid;
        // With the last reference to the description its flock(2) locks go.
        let handle = self.handles.remove(fh, node)?;
        drop(handle);
        self.locks.released(node, fh);
        Ok(())
    }

    /// A descriptor of the file was closed by a process: its POSIX locks go, and only those (fcntl(2)). Written data are
    /// with the host already.
    pub(super) fn flush(&mut self, request: &mut Request<'_>) -> Result<()> {
        let FlushIn { fh, lock_owner, .. } = request.take()?;
        let node = request.header.nodeid;
        self.handles.get(fh, node)?;
        self.locks.release_owner(node, lock_owner);
        Ok(())
    }
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}
