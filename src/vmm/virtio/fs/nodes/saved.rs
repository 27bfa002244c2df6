//! Nodes in a saved state: by their names, which is how they are found again.

use std::ffi::CString;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Node, Nodes, Place, ROOT_ID, Result};

/// A node as it is saved. Its descriptor is not: it is opened again by name, and must be the same inode.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct SavedNode {
    id: u64,
    parent: u64,
    name: Vec<u8>,
    inode: u64,
    born: Option<(i64, u32)>,
    kind: u32,
    lookups: u64,
}

impl SavedNode {
    /// The name that it had in its directory.
    pub(in super::super) fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Nodes {
    /// The nodes but the root, and how many could not be saved as they have no name any more.
    pub(in super::super) fn save(&self) -> (Vec<SavedNode>, usize) {
        let known = self.by_id.iter().filter(|(id, node)| **id != ROOT_ID && node.key.is_some());
        let (placed, nameless): (Vec<_>, Vec<_>) = known.partition(|(_, node)| node.place.is_some());
        let saved = placed.into_iter().filter_map(|(id, node)| {
            let Place { parent, name } = node.place.clone()?;
            let Node { inode, born, kind, lookups, .. } = *node;
            Some(SavedNode { id: *id, parent, name: name.into_bytes(), inode, born, kind, lookups })
        });
        (saved.collect(), nameless.len())
    }

    /// Takes saved nodes into a table that has only a root, and looks for each of them. One that is not there any more, or is
    /// another file, stays lost: the guest gets `ESTALE` and looks its name up again.
    pub(in super::super) fn restore(&mut self, saved: Vec<SavedNode>) -> Result<()> {
        if saved.len() > self.most {
            return Err(Errno::ENFILE);
        }
        let ids: Vec<u64> = saved.iter().map(|node| node.id).collect();
        for SavedNode { id, parent, name, inode, born, kind, lookups } in saved {
            let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
            let place = Some(Place { parent, name });
            let node = Node { key: None, inode, born, kind, lookups, held: None, place, used: false, cached: None };
            self.by_id.insert(id, node);
        }
        self.next_id = ids.iter().max().map_or(self.next_id, |last| self.next_id.max(last + 1));
        for id in ids {
            if self.hold(id).is_err() {
                self.lose(id);
            }
        }
        Ok(())
    }
}
