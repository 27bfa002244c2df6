//! A container in the machine of another: let in by that one's supervisor, with devices, connections and an end of its own.
//!
//! ```text
//! tenant's supervisor              owner's supervisor            machine's process              guest
//!   Door::admit ── two sockets ──▶   Sandbox::admit ───────────▶ parties: control, gate
//!   describe, plug ════════════════ control ═══════════════════▶ maker ─▶ devices ────────────▶ drivers
//!   Locate, Create, Attach, Start ═ gate ══════════════════════▶ vsock ═══════════════════════▶ agent
//! ```
//!
//! When the tenant's supervisor is gone, both sockets are: the agent takes the container away, and the machine its devices.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sbx_protocol::{Failure, Reply, Request};
use sbx_rootfs::RootfsError;
use sbx_rootfs::disk::WritableDisk;
use sbx_sandbox::id::Id;
use sbx_vmm::machine::Remote;
use sbx_vmm::virtio::vsock::Gate;

use crate::agent::{Agent, unexpected};
use crate::error::Error;
use crate::machine::Parts;
use crate::part;
use crate::plan::Disks;
use crate::room::{JoinedPids, Room};
use crate::size::Size;

/// How long the disk of a tenant's last run may still be in the machine's hands.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// Whose namespaces a tenant joins, by container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinedContainers {
    /// The network.
    pub network: Option<Id>,
    /// Whose files below `/etc` that network comes with: it is the one that has an address there.
    pub files: Option<Id>,
    /// System V IPC and POSIX message queues, and `/dev/shm`.
    pub ipc: Option<Id>,
    /// Processes.
    pub pid: Option<Id>,
}

/// The machine that a container shares.
#[derive(Debug)]
pub struct SharedMachine {
    /// The container that it was made for.
    pub owner: Id,
    /// What it has.
    pub size: Size,
    /// Whose namespaces are joined.
    pub joined: JoinedContainers,
    /// The way in.
    pub door: Box<dyn Door>,
}

/// The way into the machine of another container: its supervisor.
pub trait Door: fmt::Debug {
    /// Hands over the machine's ends of a control socket and of a gate.
    ///
    /// # Errors
    /// The owner does not run, or does not let anybody in.
    fn admit(&self, control: OwnedFd, gate: OwnedFd) -> Result<Admitted, Failure>;
}

/// What a tenant is told when it is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The machine's process.
    pub pid: i32,
    /// First of the vsock ports of the host that are the tenant's.
    pub first_port: u32,
}

/// How many ports of the host each tenant has.
pub(crate) const PORTS: u32 = 1 << 10;
/// First port of the first tenant.
pub(crate) const FIRST_PORT: u32 = 1 << 16;

/// A stay in the machine of another.
#[derive(Debug)]
pub(crate) struct Tenancy {
    owner: Id,
    remote: Remote,
    addresses: Vec<usize>,
    /// The machine's process.
    pub(crate) pid: i32,
}

impl Tenancy {
    /// Is let in.
    pub(crate) fn begin(shared: &SharedMachine, tenant: &Id) -> Result<(Self, Agent, Room), Error> {
        let (gate, inner) = Gate::pair().map_err(Error::io("make the way to the virtual machine"))?;
        let (remote, control) = sbx_vmm::machine::pair()?;
        let Admitted { pid, first_port } = shared.door.admit(control, inner.into())?;
        let agent = Agent::connect(gate)?;
        let joined = &shared.joined;
        let locate = |id: &Option<Id>| id.as_ref().map(|id| locate(&agent, id)).transpose();
        let pids =
            JoinedPids { network: locate(&joined.network)?, ipc: locate(&joined.ipc)?, pid: locate(&joined.pid)? };
        let files = joined.files.as_ref().map(|id| match *id == shared.owner {
            true => Room::own(),
            false => Room::of_tenant(id, 0),
        });
        let room = Room::of_tenant(tenant, first_port).joining(pids, files.as_ref());
        let tenancy = Self { owner: shared.owner.clone(), remote, addresses: Vec::new(), pid };
        Ok((tenancy, agent, room))
    }

    /// Brings its devices.
    pub(crate) fn furnish(&mut self, parts: Parts) -> Result<Disks, Error> {
        let layers = parts.layers.layers().len();
        for (part, files) in part::describe(parts)? {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            self.addresses.push(self.remote.plug(&part.to_bytes()?, &files)?);
        }
        Disks::at(self.addresses.clone(), layers)
    }

    /// Moves out: the container has ended. Says why where the machine ended first.
    pub(crate) fn end(self, agent: &Agent, container: &Id) -> Option<String> {
        let remove = Request::Remove { container: container.to_string() };
        match agent.tell("take the container away", &remove) {
            Ok(()) => {
                for address in &self.addresses {
                    // What stays goes when this socket does.
                    let _ = self.remote.unplug(*address);
                }
                None
            }
            Err(Error::Agent(failure)) => Some(failure.to_string()),
            Err(_) => Some(format!("the virtual machine of container {}, which it shared, has ended", self.owner)),
        }
    }
}

fn locate(agent: &Agent, id: &Id) -> Result<i32, Error> {
    match agent.ask("find a container", &Request::Locate { container: id.to_string() })? {
        Reply::Started { pid } => Ok(pid),
        other => Err(unexpected("find a container", &other)),
    }
}

/// A tenant's writable disk. That of the last run may be in the machine's hands for a moment, if the supervisor was killed.
pub(crate) fn attach(disk: &WritableDisk) -> Result<std::fs::File, RootfsError> {
    let deadline = Instant::now() + DISK_PATIENCE;
    loop {
        match disk.attach() {
            Err(RootfsError::DiskInUse { .. }) if Instant::now() < deadline => sleep(Duration::from_millis(20)),
            attached => return attached,
        }
    }
}
