//! Locks, kept by the host's kernel, so that its other processes and the containers of either mode see them.
//!
//! The locks of `flock(2)` belong to an open file description, and each handle has one: they are set on it. POSIX locks
//! belong to a process, of which the host knows one, ourselves; each owner in the guest therefore has a description of its
//! own for each file that it locks, with a lock of `F_OFD_SETLK` on it. What a guest with many processes locks is thus
//! bounded by the share's descriptors.
//!
//! Nobody is waited for: a request that must wait is tried again when a lock of this share is given up, and from time to
//! time, as other processes of the host give up theirs unseen. There is no detection of deadlocks (`EDEADLK`): the host
//! offers none for such locks.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::request::header;
use super::{Answer, Reply, Request, Result, Server, Settled};
use crate::virtio::fs::abi::{InterruptIn, LK_FLOCK, LkIn, LkOut, OutHeader, Wire};
use crate::virtio::fs::host::{self, Descriptor, Range};
use crate::virtio::fs::share::Access;

/// Most requests that wait at the same time: a queue that is full of them serves nothing else.
const MOST_WAITING: usize = 128;
/// How long until the first new try, and how long between tries at most.
const FIRST_TRY: Duration = Duration::from_millis(1);
const LAST_TRY: Duration = Duration::from_millis(100);

/// A request that waits for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The description that an owner locks a file with.
#[derive(Debug)]
struct Owned {
    file: Arc<Descriptor>,
    /// Process that has locked last, as the guest's kernel numbers it.
    process: u32,
    /// Handle that it has locked by. A lock of the guest's `F_OFD_SETLK` belongs to it; Linux does not unlock that on closing
    /// (`locks_remove_posix` looks for locks that it keeps itself), so it goes with the handle.
    handle: u64,
}

/// What is asked of the host.
#[derive(Clone, Debug)]
enum Wish {
    Flock { file: Arc<Descriptor>, operation: i32 },
    Posix { file: Arc<Descriptor>, range: Range },
}

impl Wish {
    fn ask(&self) -> Result<()> {
        match self {
            Self::Flock { file, operation } => host::flock(file.as_fd(), operation | libc::LOCK_NB),
            Self::Posix { file, range } => host::set_lock(file.as_fd(), *range),
        }
    }

    fn unlocks(&self) -> bool {
        match self {
            // To a shared lock from an exclusive one, too.
            Self::Flock { operation, .. } => operation & libc::LOCK_EX == 0,
            Self::Posix { range, .. } => range.kind != libc::F_WRLCK,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    unique: u64,
    handle: u64,
    wish: Wish,
    pause: Duration,
    next: Instant,
}

/// All locks of a share.
#[derive(Debug, Default)]
pub(super) struct Locks {
    owned: HashMap<(u64, u64), Owned>,
    waiting: Vec<Waiting>,
    ended: Vec<Settled>,
    last: u64,
    /// A lock of ours was given up: whoever waits may have it.
    given_up: bool,
}

impl Locks {
    /// Owners that hold or held a lock, and requests that wait for one.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.owned.len(), self.waiting.len())
    }

    pub(super) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// An owner has closed a file: all its locks of it go, with their description.
    pub(super) fn release_owner(&mut self, node: u64, owner: u64) {
        self.given_up |= self.owned.remove(&(node, owner)).is_some();
    }

    /// A handle is closed: with it what was locked by it, and what still waits.
    pub(super) fn released(&mut self, node: u64, handle: u64) {
        self.owned.retain(|(locked, _), owned| *locked != node || owned.handle != handle);
        self.end(Errno::EINTR, |waiting| waiting.handle == handle);
        self.given_up = true;
    }

    fn end(&mut self, error: Errno, which: impl Fn(&Waiting) -> bool) {
        for waiting in self.waiting.extract_if(.., |waiting| which(waiting)) {
            self.ended.push(settled(&waiting, Err(error)));
        }
    }

    fn wait(&mut self, request: &Request<'_>, handle: u64, wish: Wish) -> Result<Ticket> {
        if self.waiting.len() >= MOST_WAITING {
            return Err(Errno::ENOLCK);
        }
        self.last += 1;
        let (ticket, next) = (Ticket(self.last), Instant::now() + FIRST_TRY);
        let unique = request.header.unique;
        self.waiting.push(Waiting { ticket, unique, handle, wish, pause: FIRST_TRY, next });
        Ok(ticket)
    }

    /// Tries what is due, all where a lock of ours was given up, in the order that it came.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Settled> {
        let all = std::mem::take(&mut self.given_up);
        let mut settled_now = std::mem::take(&mut self.ended);
        self.waiting.retain_mut(|waiting| {
            if !all && waiting.next > now {
                return true;
            }
            match waiting.wish.ask() {
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    waiting.pause = if all { FIRST_TRY } else { (waiting.pause * 2).min(LAST_TRY) };
                    waiting.next = now + waiting.pause;
                    true
                }
                result => {
                    settled_now.push(settled(waiting, result));
                    false
                }
            }
        });
        settled_now
    }

    pub(super) fn next_try(&self, now: Instant) -> Option<Duration> {
        if !self.ended.is_empty() || (self.given_up && !self.waiting.is_empty()) {
            return Some(Duration::ZERO);
        }
        self.waiting.iter().map(|waiting| waiting.next.saturating_duration_since(now)).min()
    }

    /// Process of the guest that holds a conflicting lock, 0 where it is none of the guest's: the owner to whom it is no
    /// conflict.
    fn holder(&self, node: u64, asker: u64, conflict: Range) -> u32 {
        let others = self.owned.iter().filter(|((locked, owner), _)| *locked == node && *owner != asker);
        let writing = Range { kind: libc::F_WRLCK, ..conflict };
        let mut holders =
            others.filter(|(_, owned)| matches!(host::conflicting_lock(owned.file.as_fd(), writing), Ok(None)));
        holders.next().map_or(0, |(_, owned)| owned.process)
    }
}

fn settled(waiting: &Waiting, result: Result<()>) -> Settled {
    Settled { ticket: waiting.ticket, answer: header(waiting.unique, result, OutHeader::SIZE) }
}

impl Server {
    pub(super) fn set_lock(&mut self, request: &mut Request<'_>) -> Result<()> {
        let wanted: LkIn = request.take()?;
        let Some(wish) = self.wish(request.header.nodeid, &wanted)? else { return Ok(()) };
        wish.ask()?;
        self.locks.given_up |= wish.unlocks();
        Ok(())
    }

    pub(super) fn set_lock_waiting(&mut self, request: &mut Request<'_>) -> Result<Answer> {
        let wanted: LkIn = request.take()?;
        let Some(wish) = self.wish(request.header.nodeid, &wanted)? else { return Ok(Answer::Send) };
        match wish.ask() {
            // Converting a lock of flock(2) gives the old one up first (flock(2)), so others may have their turn.
            Err(Errno::EAGAIN | Errno::EACCES) => {
                self.locks.given_up |= matches!(wish, Wish::Flock { .. });
                self.locks.wait(request, wanted.fh, wish).map(Answer::Wait)
            }
            result => {
                self.locks.given_up |= wish.unlocks();
                result.map(|()| Answer::Send)
            }
        }
    }

    pub(super) fn get_lock(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let wanted: LkIn = request.take()?;
        let node = request.header.nodeid;
        let range = Range { kind: wanted.kind as i32, start: wanted.start, end: wanted.end };
        let file = match self.locks.owned.get(&(node, wanted.owner)) {
            Some(owned) => owned.file.clone(),
            // Who has no lock has no conflict with itself, so any description will do.
            None => self.handles.file(wanted.fh, node)?.file.clone(),
        };
        let lock = match host::conflicting_lock(file.as_fd(), range)? {
            Some(Range { kind, start, end }) => {
                let pid = self.locks.holder(node, wanted.owner, Range { kind, start, end });
                LkOut { start, end, kind: kind as u32, pid }
            }
            None => LkOut { start: wanted.start, end: wanted.end, kind: libc::F_UNLCK as u32, pid: 0 },
        };
        reply.put(&lock)
    }

    /// A signal has come for one that waits.
    pub(super) fn interrupt(&mut self, request: &mut Request<'_>) -> Result<()> {
        let InterruptIn { unique } = request.take()?;
        self.locks.end(Errno::EINTR, |waiting| waiting.unique == unique);
        Ok(())
    }

    /// What to ask of the host; nothing where an owner unlocks who has never locked.
    fn wish(&mut self, node: u64, wanted: &LkIn) -> Result<Option<Wish>> {
        if wanted.flags & LK_FLOCK != 0 {
            let operation = match wanted.kind as i32 {
                libc::F_RDLCK => libc::LOCK_SH,
                libc::F_WRLCK => libc::LOCK_EX,
                libc::F_UNLCK => libc::LOCK_UN,
                _ => return Err(Errno::EINVAL),
            };
            let file = self.handles.get(wanted.fh, node)?.file().cloned().ok_or(Errno::EINVAL)?;
            return Ok(Some(Wish::Flock { file, operation }));
        }
        let kind = wanted.kind as i32;
        if ![libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK].contains(&kind) {
            return Err(Errno::EINVAL);
        }
        if kind == libc::F_UNLCK && !self.locks.owned.contains_key(&(node, wanted.owner)) {
            return Ok(None);
        }
        let file = self.owner_file(node, wanted)?;
        Ok(Some(Wish::Posix { file, range: Range { kind, start: wanted.start, end: wanted.end } }))
    }

    /// The description that an owner locks a file with: for reading and writing, as locks of either kind may follow, or for
    /// reading where the file cannot be written to.
    fn owner_file(&mut self, node: u64, wanted: &LkIn) -> Result<Arc<Descriptor>> {
        // Only who has the file open can lock it.
        self.handles.file(wanted.fh, node)?;
        if let Some(owned) = self.locks.owned.get_mut(&(node, wanted.owner)) {
            (owned.handle, owned.process) = (wanted.fh, wanted.pid);
            return Ok(owned.file.clone());
        }
        let fd = self.node(node)?;
        let (host, read_only) = (&self.host, self.access == Access::ReadOnly);
        let file = self.nodes.open(|| {
            let both = if read_only { Err(Errno::EROFS) } else { host.reopen(fd.as_fd(), OFlag::O_RDWR) };
            match both {
                Err(Errno::EROFS | Errno::EACCES | Errno::EPERM | Errno::ETXTBSY) => {
                    host.reopen(fd.as_fd(), OFlag::O_RDONLY)
                }
                result => result,
            }
        })?;
        let file = Arc::new(file);
        let owned = Owned { file: file.clone(), process: wanted.pid, handle: wanted.fh };
        self.locks.owned.insert((node, wanted.owner), owned);
        Ok(file)
    }
}
