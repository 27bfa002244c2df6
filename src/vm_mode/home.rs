//! Where a container lives: in a machine that was made for it, or in that of another.

use std::os::fd::OwnedFd;

use sbx_container::cgroup::Cgroup;
use sbx_vmm::machine::Remote;
use sbx_vmm::virtio::vsock::InnerGate;

use crate::agent::Agent;
use crate::error::Error;
use crate::machine::{DEATH_PATIENCE, END_PATIENCE, Machine};
use crate::tenancy::{Admitted, FIRST_PORT, PORTS, Tenancy};

/// A container's home.
#[derive(Debug)]
pub(crate) enum Home {
    /// A machine that was made for it.
    Own(Own),
    /// The machine of another.
    Shared(Tenancy),
}

/// A machine that was made for the container.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) machine: Machine,
    /// Of the host, with the machine's process in it.
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) remote: Remote,
    /// How many tenants have been let in, whether they are still there or not.
    pub(crate) tenants: u32,
}

impl Home {
    /// The machine's process.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Self::Own(own) => own.machine.pid(),
            Self::Shared(tenancy) => tenancy.pid,
        }
    }

    /// The container is to die and the guest does not answer: the machine is ended with it where it is its own.
    pub(crate) fn force(&self) {
        if let Self::Own(own) = self {
            own.machine.kill_process();
        }
    }
}

impl Own {
    /// Lets another container in.
    pub(crate) fn admit(&mut self, agent: &Agent, control: OwnedFd, gate: InnerGate) -> Result<Admitted, Error> {
        let first_port = FIRST_PORT + self.tenants.saturating_mul(PORTS) % (1 << 29);
        self.remote.admit(control)?;
        agent.admit(first_port..first_port + PORTS, gate)?;
        self.tenants = self.tenants.saturating_add(1);
        Ok(Admitted { pid: self.machine.pid(), first_port })
    }

    /// The container has ended, and the machine ends with it; `in_haste` where nobody will see what it has not written. Says
    /// why the machine has ended where that was not the container's end.
    pub(crate) fn end(self, agent: &Agent, in_haste: bool) -> Option<String> {
        let reason = if self.machine.has_ended() {
            self.machine.wait(DEATH_PATIENCE)
        } else if in_haste && self.tenants == 0 {
            self.machine.kill()
        } else {
            match agent.power_off() {
                Ok(()) => self.machine.wait(END_PATIENCE),
                Err(_) => self.machine.wait(DEATH_PATIENCE),
            }
        };
        remove(self.cgroup);
        reason.map(|reason| Error::MachineEnded(reason).to_string())
    }

    /// Its start has failed: it is ended at once.
    pub(crate) fn abandon(self) -> Option<String> {
        let words = self.machine.kill();
        remove(self.cgroup);
        words
    }
}

/// One that stays is found by its name.
fn remove(cgroup: Option<Cgroup>) {
    if let Some(cgroup) = cgroup {
        let _ = cgroup.remove();
    }
}
