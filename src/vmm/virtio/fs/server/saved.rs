//! Saving and restoring a server: the nodes that the guest knows, by name. What is open or locked cannot be saved, as an
//! open file without a name, or a lock that another process takes in the meantime, could not be had back.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use super::{Server, Session, Shown, is_component};
use crate::virtio::device::DeviceError;
use crate::virtio::fs::nodes::SavedNode;

/// What is saved of a server.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    session: Option<Session>,
    nodes: Vec<SavedNode>,
}

impl Server {
    /// The state, for [`Server::restore`] of a server made from the same share.
    ///
    /// # Errors
    /// The guest has files open, holds locks, or uses files whose names are gone.
    pub fn save(&self) -> Result<Vec<u8>, DeviceError> {
        let tag = &self.tag;
        let refuse = |why: String| Err(DeviceError::State(format!("share {tag} cannot be saved while {why}")));
        let (owners, waiting) = self.locks.count();
        if self.handles.len() > 0 {
            return refuse(format!("the guest has {} of its files open", self.handles.len()));
        }
        if owners + waiting > 0 {
            return refuse(format!("the guest holds {owners} locks in it and waits for {waiting}"));
        }
        let (nodes, nameless) = self.nodes.save();
        if nameless > 0 {
            return refuse(format!("the guest uses {nameless} files whose names are gone or are not told"));
        }
        let saved = Saved { session: self.session, nodes };
        postcard::to_stdvec(&saved).map_err(|error| DeviceError::State(format!("share {tag}: {error}")))
    }

    /// Takes a state of [`Server::save`]. Files that are gone or were replaced in the meantime are stale to the guest, which
    /// then looks their names up again.
    ///
    /// # Errors
    /// The state is none of this share's.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let failed = |what: String| DeviceError::State(format!("share {}: {what}", self.tag));
        let Saved { session, nodes } = postcard::from_bytes(state).map_err(|error| failed(error.to_string()))?;
        if matches!(self.shown, Shown::Single { .. }) && !nodes.is_empty() {
            return Err(failed("a single file has no names to restore".into()));
        }
        let is_name = |name: &[u8]| CString::new(name).is_ok_and(|name| is_component(&name).is_ok());
        if let Some(bad) = nodes.iter().find(|node| !is_name(node.name())) {
            return Err(failed(format!("{:?} is no file name", String::from_utf8_lossy(bad.name()))));
        }
        self.nodes.clear();
        self.nodes.restore(nodes).map_err(|error| failed(error.to_string()))?;
        self.session = session;
        Ok(())
    }
}
