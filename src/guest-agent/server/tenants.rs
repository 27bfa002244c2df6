//! Tenants: containers that share the machine with the one that it was made for. What a tenant was furnished with goes when it
//! does, for the machine goes on.
//!
//! ```text
//! Create          Remove, or the connection that made it ends           everything is taken away
//!   └─▶ Staying ──────────────────────────────────────────▶ Leaving ─────────────────────────────▶
//!                                                             │ killed where it still runs;
//!                                                             └ a busy mount is tried again, for a time
//! ```

use std::fs;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use sbx_container::Error;
use sbx_protocol::guest::Tenant;
use sbx_protocol::{Failure, Reply};

use super::requests::{Outcome, no_container};
use super::{Server, Waiting};
use crate::containers::{conflict, other};
use crate::furnish::{Furnished, let_go};

/// How long the mounts of a dead container may stay busy: the kernel lets go of them a moment after its last process.
const PATIENCE: Duration = Duration::from_secs(5);
/// When to look again.
pub(super) const ROUND: Duration = Duration::from_millis(2);

/// What a tenant has of the machine.
#[derive(Debug)]
pub(super) struct Tenancy {
    /// The connection that made it.
    owner: u64,
    directory: String,
    mounted: Vec<String>,
    devices: Vec<u32>,
    /// It leaves, and has so long to do it.
    leaving: Option<Instant>,
}

impl Tenancy {
    pub(super) fn new(owner: u64, tenant: &Tenant, furnished: &mut Furnished) -> Self {
        Self {
            owner,
            directory: tenant.directory.clone(),
            mounted: std::mem::take(&mut furnished.mounted),
            devices: std::mem::take(&mut furnished.devices),
            leaving: None,
        }
    }

    /// Its mount points, in order.
    pub(super) fn into_mounted(self) -> Vec<String> {
        self.mounted
    }

    /// Takes away what it was furnished with, the last first; `false` while something is busy.
    fn take_away(&mut self) -> Result<bool, Error> {
        while let Some(target) = self.mounted.last() {
            match umount2(target.as_str(), MntFlags::UMOUNT_NOFOLLOW) {
                // What is not mounted was not there to be taken away.
                Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => drop(self.mounted.pop()),
                Err(nix::Error::EBUSY) => return Ok(false),
                Err(error) => return Err(Error::new(format!("unmount {target}"), error.desc())),
            }
        }
        while let Some(address) = self.devices.pop() {
            let_go(address)?;
        }
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::new(format!("remove {}", self.directory), error))
            }
            _ => Ok(true),
        }
    }
}

impl Server {
    /// Whether somebody leaves, so that the mounts have to be looked at again.
    pub(super) fn somebody_leaves(&self) -> bool {
        self.tenants.values().any(|tenancy| tenancy.leaving.is_some())
    }

    /// Whoever asks is answered when the tenant is gone.
    pub(super) fn remove_tenant(&mut self, connection: u64, id: String) -> Option<Outcome> {
        if !self.tenants.contains_key(&id) {
            return Some(Err(no_container(&id)));
        }
        if self.containers.get(&id).is_some_and(|container| container.ending().is_none()) {
            return Some(Err(conflict(format!("container {id} has not ended"))));
        }
        self.begin_to_leave(&id);
        self.waiting.insert(connection, Waiting::Removal(id));
        None
    }

    /// The connection has ended that has made them: nobody is left who could ask for anything.
    pub(super) fn evict_tenants_of(&mut self, connection: u64) {
        let left = self.tenants.iter().filter(|(_, tenancy)| tenancy.owner == connection);
        let ids: Vec<String> = left.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.begin_to_leave(&id);
        }
    }

    fn begin_to_leave(&mut self, id: &str) {
        if let Some(tenancy) = self.tenants.get_mut(id) {
            tenancy.leaving.get_or_insert_with(|| Instant::now() + PATIENCE);
        }
        if let Some(container) = self.containers.get_mut(id)
            && container.ending().is_none()
            && container.kill(libc::SIGKILL).is_err()
        {
            // It was never started: its process ends with it.
            self.containers.remove(id);
        }
    }

    /// Takes away what can be taken away now.
    pub(super) fn see_tenants_off(&mut self) {
        let over =
            |server: &Self, id: &String| server.containers.get(id).is_none_or(|container| container.ending().is_some());
        let leaving = self.tenants.iter().filter(|(id, tenancy)| tenancy.leaving.is_some() && over(self, id));
        let ids: Vec<String> = leaving.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.containers.remove(&id);
            let Some(tenancy) = self.tenants.get_mut(&id) else { continue };
            self.relays.remove_below(&tenancy.directory);
            let outcome = match tenancy.take_away() {
                Ok(true) => Ok(()),
                Ok(false) if tenancy.leaving.is_some_and(|deadline| Instant::now() < deadline) => continue,
                Ok(false) => Err(other(format!("container {id} holds its file systems"))),
                Err(error) => Err(Failure::from(&error)),
            };
            if let Some(tenancy) = self.tenants.remove(&id) {
                // What stays is written and unmounted with the machine.
                self.mounted.extend(tenancy.into_mounted());
            }
            let reply = outcome.map_or_else(Reply::Failed, |()| Reply::Done);
            self.tell_waiting(&Waiting::Removal(id), &reply);
        }
    }
}
