//! The files that the guest knows, by the node id that it was given. A node is created by a lookup and lives until the guest
//! has forgotten it as often as it was told of it.
//!
//! ```text
//!              lookup                       room is needed
//!   (nothing) ─────────▶ held: descriptor ─────────────────▶ placed: parent and name
//!        ▲                  │   │    ▲                            │         │
//!        │ forgotten        │   │    └────────────────────────────┘         │
//!        └──────────────────┘   │      used again: the same file is there   │ another file, or none, is there
//!                               │ its name was removed                      ▼
//!                               ▼                                        ESTALE; the guest looks the name up again
//!                        held for good
//! ```
//!
//! A guest with memory to spare never forgets anything, so the descriptors are the scarce thing, not the nodes: those used
//! longest ago give theirs up. Who a file is, is known by device, inode, mount, and the time of its birth, since an inode's
//! number may be given to another file when nobody holds it. A file without a known name or birth keeps its descriptor.

mod clock;
mod reopen;
mod saved;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::abi::ROOT_ID;
use super::host::{Budget, Descriptor, Key, Status, Version};
use clock::Clock;

pub(super) use saved::SavedNode;

type Result<T> = std::result::Result<T, Errno>;

/// How many nodes give up their descriptors where the kernel says that there are too many.
const GIVE_UP: usize = 64;

/// Where a node can be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: u64,
    pub(super) name: CString,
}

#[derive(Debug)]
struct Node {
    key: Option<Key>,
    inode: u64,
    born: Option<(i64, u32)>,
    kind: u32,
    lookups: u64,
    held: Option<Arc<Descriptor>>,
    place: Option<Place>,
    /// Used since the clock's hand went by.
    used: bool,
    /// The version that the guest's cache was filled from.
    cached: Option<Version>,
}

impl Node {
    fn of(status: &Status) -> Self {
        Self {
            key: Some(status.key()),
            inode: status.inode(),
            born: status.born(),
            kind: status.kind(),
            lookups: 0,
            held: None,
            place: None,
            used: true,
            cached: None,
        }
    }
}

/// A node that was found: its id and what it is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) id: u64,
    pub(super) status: Status,
    /// It is the root of a mount that its parent is not in.
    pub(super) is_mount: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Nodes {
    by_id: HashMap<u64, Node>,
    by_key: HashMap<Key, u64>,
    clock: Clock,
    budget: Budget,
    most: usize,
    next_id: u64,
}

impl Nodes {
    pub(super) fn new(budget: Budget, most: usize) -> Self {
        let (by_id, by_key) = (HashMap::new(), HashMap::new());
        Self { by_id, by_key, clock: Clock::default(), budget, most, next_id: ROOT_ID + 1 }
    }

    /// Puts the root in, which is never forgotten and keeps its descriptor.
    pub(super) fn set_root(&mut self, fd: Descriptor, status: &Status) {
        let node = Node { lookups: 1, held: Some(Arc::new(fd)), ..Node::of(status) };
        self.by_key.insert(status.key(), ROOT_ID);
        self.by_id.insert(ROOT_ID, node);
    }

    /// Forgets everything but the root.
    pub(super) fn clear(&mut self) {
        self.by_id.retain(|id, _| *id == ROOT_ID);
        self.by_key.retain(|_, id| *id == ROOT_ID);
        self.clock = Clock::default();
    }

    /// Type of a node (`S_IFMT`).
    pub(super) fn kind(&self, id: u64) -> Result<u32> {
        self.node(id).map(|node| node.kind)
    }

    /// The descriptor of a node, opened again where it was given up.
    pub(super) fn hold(&mut self, id: u64) -> Result<Arc<Descriptor>> {
        let node = self.by_id.get_mut(&id).ok_or(Errno::ESTALE)?;
        node.used = true;
        match &node.held {
            Some(fd) => Ok(fd.clone()),
            None => self.find_again(id),
        }
    }

    /// Makes room for a descriptor, and opens it. Where the kernel says that there are too many, makes more room and tries
    /// once more.
    pub(super) fn open(&mut self, open: impl Fn() -> Result<OwnedFd>) -> Result<Descriptor> {
        while self.budget.is_full() {
            if !self.give_one_up() {
                return Err(Errno::ENFILE);
            }
        }
        let fd = match open() {
            Err(Errno::EMFILE | Errno::ENFILE) => {
                let freed = (0..GIVE_UP).take_while(|_| self.give_one_up()).count();
                if freed == 0 {
                    return Err(Errno::ENFILE);
                }
                open()?
            }
            result => result?,
        };
        Ok(self.budget.count(fd))
    }

    /// Tells the guest of a file that it knows and that is held: nothing has to be opened for it.
    pub(super) fn tell_known(&mut self, status: &Status, place: &Place) -> Option<Found> {
        let id = *self.by_key.get(&status.key())?;
        let node = self.by_id.get_mut(&id).filter(|node| node.held.is_some())?;
        if id != ROOT_ID && node.place.as_ref() != Some(place) {
            node.place = Some(place.clone());
        }
        Some(self.told(id, status, place.parent))
    }

    /// Tells the guest of a file, once more or for the first time.
    ///
    /// # Errors
    /// `ENFILE` where the guest knows as many files as it may.
    pub(super) fn tell(&mut self, fd: Descriptor, place: Option<Place>) -> Result<Found> {
        let status = Status::of(fd.as_fd())?;
        let id = match self.known(&status) {
            Some(id) => id,
            None => self.add(&status)?,
        };
        let parent = place.as_ref().map_or(id, |place| place.parent);
        let node = self.by_id.get_mut(&id).ok_or(Errno::ESTALE)?;
        if id != ROOT_ID {
            if place.is_some() {
                node.place = place;
            }
            if node.held.is_none() {
                node.held = Some(Arc::new(fd));
                self.clock.add(id);
            }
        }
        Ok(self.told(id, &status, parent))
    }

    fn told(&mut self, id: u64, status: &Status, parent: u64) -> Found {
        let above = self.by_id.get(&parent).and_then(|node| node.key).map(|key| key.mount);
        let is_mount = status.kind() == libc::S_IFDIR && above.is_some_and(|mount| mount != status.key().mount);
        if let Some(node) = self.by_id.get_mut(&id) {
            node.lookups = node.lookups.saturating_add(1);
            node.used = true;
        }
        Found { id, status: *status, is_mount }
    }

    /// The node of a file. A node whose descriptor was given up counts only where the file has the same birth; else it is a
    /// file that is gone, and its number is another's.
    fn known(&mut self, status: &Status) -> Option<u64> {
        let id = *self.by_key.get(&status.key())?;
        let node = self.by_id.get_mut(&id)?;
        if node.held.is_some() || node.born == status.born() {
            return Some(id);
        }
        self.lose(id);
        None
    }

    fn add(&mut self, status: &Status) -> Result<u64> {
        if self.by_id.len() >= self.most {
            return Err(Errno::ENFILE);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_key.insert(status.key(), id);
        self.by_id.insert(id, Node::of(status));
        Ok(id)
    }

    /// The file of a node is gone: the guest can only forget it.
    fn lose(&mut self, id: u64) {
        let Some(node) = self.by_id.get_mut(&id) else { return };
        node.place = None;
        if let Some(key) = node.key.take() {
            self.by_key.remove(&key);
        }
    }

    /// The guest has forgotten a node so many times.
    pub(super) fn forget(&mut self, id: u64, times: u64) {
        let Some(node) = self.by_id.get_mut(&id) else { return };
        node.lookups = node.lookups.saturating_sub(times);
        if node.lookups > 0 || id == ROOT_ID {
            return;
        }
        if let Some(key) = self.by_id.remove(&id).and_then(|node| node.key)
            && self.by_key.get(&key) == Some(&id)
        {
            self.by_key.remove(&key);
        }
        // The ring is not told of what is forgotten: it is swept when most of it may be gone.
        if self.clock.len() > 2 * self.by_id.len() + GIVE_UP {
            let by_id = &self.by_id;
            self.clock.sweep(|id| by_id.contains_key(&id));
        }
    }

    /// The node of a file that is about to lose a name, if the guest knows it: held from now on, so that it can still be
    /// reached when the name is gone.
    pub(super) fn hold_known(&mut self, fd: Descriptor) -> Option<u64> {
        let status = Status::of(fd.as_fd()).ok()?;
        let id = self.known(&status)?;
        let node = self.by_id.get_mut(&id)?;
        if node.held.is_none() {
            node.held = Some(Arc::new(fd));
            self.clock.add(id);
        }
        Some(id)
    }

    /// A name no longer leads to a node. Where the node was to be found under it, it keeps its descriptor until another name
    /// is learned.
    pub(super) fn unplace(&mut self, id: u64, parent: u64, name: &CStr) {
        if let Some(node) = self.by_id.get_mut(&id)
            && node.place.as_ref().is_some_and(|place| place.parent == parent && place.name.as_c_str() == name)
        {
            node.place = None;
        }
    }

    /// A node is to be found elsewhere.
    pub(super) fn place(&mut self, id: u64, parent: u64, name: &CStr) {
        if id != ROOT_ID
            && let Some(node) = self.by_id.get_mut(&id)
        {
            node.place = Some(Place { parent, name: name.to_owned() });
        }
    }

    /// Whether the guest's cache of a file may stay: it was filled from this very version. Notes the version for the next
    /// time, unless it is too young to tell from one that follows it.
    pub(super) fn may_keep_cache(&mut self, id: u64, status: &Status, now: i64) -> bool {
        let Some(node) = self.by_id.get_mut(&id) else { return false };
        let version = status.version();
        let same = node.cached == Some(version);
        node.cached = (now > status.last_change() + 1).then_some(version);
        same
    }

    fn give_one_up(&mut self) -> bool {
        let by_id = &mut self.by_id;
        self.clock.turn(|id| {
            let Some(node) = by_id.get_mut(&id).filter(|node| node.held.is_some()) else { return clock::Verdict::Drop };
            let in_use = node.held.as_ref().is_some_and(|fd| Arc::strong_count(fd) > 1);
            if in_use || node.place.is_none() || node.born.is_none() {
                return clock::Verdict::Keep;
            }
            if std::mem::take(&mut node.used) {
                return clock::Verdict::Keep;
            }
            node.held = None;
            clock::Verdict::Free
        })
    }

    fn node(&self, id: u64) -> Result<&Node> {
        self.by_id.get(&id).ok_or(Errno::ESTALE)
    }
}
