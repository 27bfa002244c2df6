//! What the guest has open.

use std::collections::HashMap;
use std::sync::Arc;

use nix::errno::Errno;

use super::Result;
use super::directories::Listing;
use crate::virtio::fs::host::Descriptor;

/// A regular file that is open. `flock(2)` locks are locks of this very description.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) node: u64,
    pub(super) file: Arc<Descriptor>,
    pub(super) writable: bool,
}

/// What a handle stands for.
#[derive(Debug)]
pub(super) enum Handle {
    File(OpenFile),
    Directory(Listing),
}

impl Handle {
    fn node(&self) -> u64 {
        match self {
            Self::File(open) => open.node,
            Self::Directory(listing) => listing.node,
        }
    }

    /// The open description, none for a directory that is made up.
    pub(super) fn file(&self) -> Option<&Arc<Descriptor>> {
        match self {
            Self::File(open) => Some(&open.file),
            Self::Directory(listing) => listing.directory.as_ref(),
        }
    }
}

/// All handles. Their number is never used twice, so a request for one that was closed meets no other.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<u64, Handle>,
    last: u64,
}

impl Handles {
    pub(super) fn add(&mut self, handle: Handle) -> u64 {
        self.last += 1;
        self.open.insert(self.last, handle);
        self.last
    }

    /// A handle of a node.
    ///
    /// # Errors
    /// `EBADF` where it is none, or another node's.
    pub(super) fn get(&self, id: u64, node: u64) -> Result<&Handle> {
        self.open.get(&id).filter(|handle| handle.node() == node).ok_or(Errno::EBADF)
    }

    /// A handle of a regular file.
    pub(super) fn file(&self, id: u64, node: u64) -> Result<&OpenFile> {
        match self.get(id, node)? {
            Handle::File(open) => Ok(open),
            Handle::Directory(_) => Err(Errno::EISDIR),
        }
    }

    /// A handle of a regular file that may be written to.
    pub(super) fn writable(&self, id: u64, node: u64) -> Result<&OpenFile> {
        self.file(id, node).and_then(|open| if open.writable { Ok(open) } else { Err(Errno::EBADF) })
    }

    /// A handle of a directory.
    pub(super) fn directory(&mut self, id: u64, node: u64) -> Result<&mut Listing> {
        match self.open.get_mut(&id).filter(|handle| handle.node() == node) {
            Some(Handle::Directory(listing)) => Ok(listing),
            Some(Handle::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::EBADF),
        }
    }

    /// Gives back what was taken from behind [`Handles::directory`].
    pub(super) fn put_back(&mut self, id: u64, listing: Listing) {
        self.open.insert(id, Handle::Directory(listing));
    }

    pub(super) fn remove(&mut self, id: u64, node: u64) -> Result<Handle> {
        self.get(id, node)?;
        self.open.remove(&id).ok_or(Errno::EBADF)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}
