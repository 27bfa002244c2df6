//! Whose namespaces a container joins (`container:ID`), and whose machine it is in for that.
//!
//! Who joins a namespace of a container in a virtual machine is in that machine. It was made for one container, its owner;
//! those that joined are its tenants, and who joins a tenant is one too.

use sbx_sandbox::host_config::HostConfig;
use sbx_sandbox::isolation::Mode;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::store::{Store, StoreError};
use sbx_vm_mode::JoinedContainers;

use crate::{Error, ErrorKind, Result};

/// More containers than any chain of them has that is no circle.
const LONGEST_CHAIN: usize = 64;

/// Whose namespaces are joined.
pub(crate) fn joined(store: &Store, host: &HostConfig) -> std::result::Result<JoinedContainers, StoreError> {
    let find = |mode: &str| mode.strip_prefix("container:").map(|reference| store.find(reference)).transpose();
    let network = find(&host.network_mode)?;
    let mut files = network.clone();
    for _ in 0..LONGEST_CHAIN {
        let Some(id) = &files else { break };
        match find(&store.spec(id)?.host_config.network_mode)? {
            Some(next) => files = Some(next),
            None => break,
        }
    }
    Ok(JoinedContainers { network, files, ipc: find(&host.ipc_mode)?, pid: find(&host.pid_mode)? })
}

/// The specifications of those containers, each with the flag that names it.
fn specs(store: &Store, host: &HostConfig) -> std::result::Result<Vec<(&'static str, SandboxSpec)>, StoreError> {
    let JoinedContainers { network, ipc, pid, .. } = joined(store, host)?;
    let all = [("--network", network), ("--ipc", ipc), ("--pid", pid)];
    all.into_iter().filter_map(|(flag, id)| id.map(|id| Ok((flag, store.spec(&id)?)))).collect()
}

/// A container whose namespaces are joined, for how it is kept apart: where there are several, all are so.
pub(crate) fn beside(store: &Store, host: &HostConfig) -> Result<Option<SandboxSpec>> {
    let mut all = specs(store, host)?.into_iter();
    let Some((flag, first)) = all.next() else { return Ok(None) };
    for (other_flag, other) in all {
        if other.isolation.isolation != first.isolation.isolation {
            let message = format!(
                "{flag} and {other_flag}: container {} runs with --isolation={} and {} with --isolation={}; nobody can join both",
                first.name, first.isolation.isolation, other.name, other.isolation.isolation
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    Ok(Some(first))
}

/// The container whose machine one with these namespaces is in; `None` where it gets a machine of its own.
pub(crate) fn owner(store: &Store, host: &HostConfig) -> Result<Option<SandboxSpec>> {
    owner_within(store, host, LONGEST_CHAIN)
}

fn owner_within(store: &Store, host: &HostConfig, chain: usize) -> Result<Option<SandboxSpec>> {
    let mut found: Option<(&'static str, SandboxSpec)> = None;
    if chain == 0 {
        return Err(Error::new(ErrorKind::Invalid, "containers join each other's namespaces in a circle"));
    }
    for (flag, spec) in specs(store, host)? {
        if spec.isolation.isolation == Mode::Process {
            continue;
        }
        let owner = owner_within(store, &spec.host_config, chain - 1)?.unwrap_or(spec);
        match &found {
            Some((other, first)) if first.id != owner.id => {
                let message = format!(
                    "{other} and {flag} name containers in two virtual machines, {} and {}; a container is in one",
                    first.name, owner.name
                );
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            Some(_) => {}
            None => found = Some((flag, owner)),
        }
    }
    Ok(found.map(|(_, owner)| owner))
}
