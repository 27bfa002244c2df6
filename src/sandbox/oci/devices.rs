//! Device nodes and device access rules.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use sbx_container::plan::DeviceKind;

use super::Error;
use crate::device_rule::{self, KindOrAll};
use crate::host_config::{DeviceMapping, HostConfig};
use crate::spec::{HostDevice, HostPaths, SandboxSpec};

/// Paths that the caller has to look up before the start: devices, or directories of devices to be expanded.
///
/// `/dev` of a privileged container means every device below it but those under `pts`, `shm`, `fd`, `mqueue` and
/// the node `console`. Block devices of limits are among the paths; a directory is no answer for these.
pub fn wanted_devices(host: &HostConfig) -> Vec<String> {
    let mut paths: Vec<String> = host.devices.iter().map(|mapping| mapping.path_on_host.clone()).collect();
    paths.extend(host.blkio_weight_device.iter().map(|device| device.path.clone()));
    for list in [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ] {
        paths.extend(list.iter().map(|device| device.path.clone()));
    }
    if host.privileged {
        paths.push("/dev".to_owned());
    }
    paths.sort();
    paths.dedup();
    paths
}

pub(super) fn nodes(spec: &SandboxSpec, paths: &HostPaths) -> Result<Vec<LinuxDevice>, Error> {
    let host = &spec.host_config;
    let mut nodes = Vec::new();
    if host.privileged {
        let all = paths.devices.iter().filter(|device| device.requested == "/dev");
        nodes.extend(all.map(|device| node(device, device.path.clone())));
    }
    for mapping in &host.devices {
        if host.privileged && mapping.path_on_host == mapping.path_in_container {
            continue;
        }
        for device in found(mapping, paths)? {
            nodes.push(node(device, inside(mapping, device)));
        }
    }
    Ok(nodes)
}

fn found<'a>(mapping: &DeviceMapping, paths: &'a HostPaths) -> Result<Vec<&'a HostDevice>, Error> {
    let found: Vec<_> = paths.devices.iter().filter(|device| device.requested == mapping.path_on_host).collect();
    if found.is_empty() {
        return Err(Error::NoDevice { field: "Devices", path: mapping.path_on_host.clone() });
    }
    Ok(found)
}

/// Where a device of a mapping appears: below the mapping's path when a directory was mapped.
fn inside(mapping: &DeviceMapping, device: &HostDevice) -> String {
    match device.path.strip_prefix(&mapping.path_on_host) {
        Some(rest) if rest.starts_with('/') => {
            format!("{}{rest}", mapping.path_in_container.trim_end_matches('/'))
        }
        _ => mapping.path_in_container.clone(),
    }
}

fn node(device: &HostDevice, path: String) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(PathBuf::from(path))
        .set_typ(kind(device.kind))
        .set_major(i64::from(device.major))
        .set_minor(i64::from(device.minor))
        .set_file_mode(Some(device.mode & 0o7777))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    node
}

fn kind(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::Character => LinuxDeviceType::C,
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Fifo => LinuxDeviceType::P,
    }
}

/// Docker's rules, then the user's. The runtime adds its own for the default devices (runc's `AllowedDevices`).
pub(super) fn rules(spec: &SandboxSpec, paths: &HostPaths) -> Result<Vec<LinuxDeviceCgroup>, Error> {
    let host = &spec.host_config;
    let mut rules = vec![rule(false, LinuxDeviceType::A, (None, None), "rwm")];
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        rules.push(rule(true, LinuxDeviceType::C, (Some(major), Some(minor)), "rwm"));
    }
    // /dev/fuse: denied by name, so that a later rule of the user can allow it.
    rules.push(rule(false, LinuxDeviceType::C, (Some(10), Some(229)), "rwm"));
    if host.privileged {
        rules.push(rule(true, LinuxDeviceType::A, (None, None), "rwm"));
        return Ok(rules);
    }
    for mapping in &host.devices {
        for device in found(mapping, paths)? {
            let numbers = (Some(i64::from(device.major)), Some(i64::from(device.minor)));
            rules.push(rule(true, kind(device.kind), numbers, &mapping.cgroup_permissions));
        }
    }
    for text in &host.device_cgroup_rules {
        let parsed = device_rule::parse(text).map_err(|error| Error::invalid("DeviceCgroupRules", error))?;
        let kind = match parsed.kind {
            KindOrAll::All => LinuxDeviceType::A,
            KindOrAll::Kind(device) => kind(device),
        };
        rules.push(rule(true, kind, (parsed.major.map(i64::from), parsed.minor.map(i64::from)), &parsed.access));
    }
    Ok(rules)
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    (major, minor): (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}
