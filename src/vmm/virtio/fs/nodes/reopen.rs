//! Finding a node again whose descriptor was given up: down from the nearest ancestor that is held, one name at a time, and
//! only if it is still the same file.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::{Descriptor, Nodes, Result, Status};
use crate::virtio::fs::host;

/// Most levels between a node and a held ancestor. Deeper than a path can be, and an end where the host has moved
/// directories into each other.
const MOST_LEVELS: usize = 2048;

impl Nodes {
    /// Opens a node and what is above it.
    ///
    /// # Errors
    /// `ESTALE` where the name leads to another file by now, or to none.
    pub(super) fn find_again(&mut self, id: u64) -> Result<Arc<Descriptor>> {
        let mut path = vec![id];
        let mut above = loop {
            let node = self.node(path[path.len() - 1])?;
            if let Some(fd) = &node.held {
                path.pop();
                break fd.clone();
            }
            let place = node.place.as_ref().ok_or(Errno::ESTALE)?;
            if path.len() == MOST_LEVELS {
                return Err(Errno::ESTALE);
            }
            path.push(place.parent);
        };
        for id in path.into_iter().rev() {
            above = self.find_below(&above, id)?;
        }
        Ok(above)
    }

    fn find_below(&mut self, directory: &Descriptor, id: u64) -> Result<Arc<Descriptor>> {
        let name = self.node(id)?.place.as_ref().map(|place| place.name.clone()).ok_or(Errno::ESTALE)?;
        let fd = self.open(|| host::open_node(directory.as_fd(), &name)).map_err(gone)?;
        let status = Status::of(fd.as_fd())?;
        let node = self.by_id.get_mut(&id).ok_or(Errno::ESTALE)?;
        // A node of a saved state has no key yet: devices and mounts may have other numbers now, inodes have not.
        let same = node.key.map_or(node.inode == status.inode(), |key| key == status.key());
        if !same || node.born != status.born() || node.kind != status.kind() {
            return Err(Errno::ESTALE);
        }
        if node.key.is_none() {
            node.key = Some(status.key());
            self.by_key.insert(status.key(), id);
        }
        let fd = Arc::new(fd);
        node.held = Some(fd.clone());
        node.used = true;
        self.clock.add(id);
        Ok(fd)
    }
}

/// A name that is no more, or no longer below a directory, is a node that is gone.
fn gone(error: Errno) -> Errno {
    match error {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => Errno::ESTALE,
        error => error,
    }
}
