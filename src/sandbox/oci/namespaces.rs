//! Which namespaces are made, which are joined.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType};
use sbx_container::plan::{IdMap, IdMaps};

use super::Error;
use crate::facts::MachineFacts;
use crate::spec::{HostPaths, SandboxSpec};

/// Docker's order: mount, network, time, UTS, PID, IPC, then user and cgroup where they are asked for.
pub(super) fn namespaces(
    spec: &SandboxSpec,
    machine: &MachineFacts,
    paths: &HostPaths,
) -> Result<Vec<LinuxNamespace>, Error> {
    let host = &spec.host_config;
    let mut list = vec![namespace(LinuxNamespaceType::Mount, None)];
    add(&mut list, LinuxNamespaceType::Network, "NetworkMode", &host.network_mode, paths.join_net.as_ref())?;
    if machine.namespaces.time {
        list.push(namespace(LinuxNamespaceType::Time, None));
    }
    add(&mut list, LinuxNamespaceType::Uts, "UTSMode", &host.uts_mode, None)?;
    add(&mut list, LinuxNamespaceType::Pid, "PidMode", &host.pid_mode, paths.join_pid.as_ref())?;
    add(&mut list, LinuxNamespaceType::Ipc, "IpcMode", &host.ipc_mode, paths.join_ipc.as_ref())?;
    if host.userns_mode == "private" {
        // Whoever joins another container's namespaces can use them only from the user namespace that owns them.
        list.push(namespace(LinuxNamespaceType::User, paths.join_user.clone()));
    }
    if host.cgroupns_mode == "private" {
        list.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    Ok(list)
}

fn add(
    list: &mut Vec<LinuxNamespace>,
    kind: LinuxNamespaceType,
    field: &'static str,
    mode: &str,
    join: Option<&PathBuf>,
) -> Result<(), Error> {
    if mode == "host" {
        return Ok(());
    }
    if mode.starts_with("container:") && join.is_none() {
        return Err(Error::NoNamespace { field, mode: mode.to_owned() });
    }
    list.push(namespace(kind, join.cloned()));
    Ok(())
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}

/// The identity maps of a user namespace of the container's own; `None` without one or when one is joined.
pub(super) fn id_maps(spec: &SandboxSpec, machine: &MachineFacts) -> Result<Option<IdMaps>, Error> {
    if spec.host_config.userns_mode != "private" {
        return Ok(None);
    }
    match &machine.id_maps {
        Some(maps) => Ok(Some(maps.clone())),
        None => Err(Error::invalid("UsernsMode", "no range of user and group ids is set aside for sbx")),
    }
}

pub(super) fn oci_maps(maps: &[IdMap]) -> Result<Vec<LinuxIdMapping>, Error> {
    let convert = |map: &IdMap| {
        LinuxIdMappingBuilder::default().container_id(map.inside).host_id(map.outside).size(map.count).build()
    };
    maps.iter().map(convert).collect::<Result<_, _>>().map_err(|error| Error::invalid("UsernsMode", error))
}
