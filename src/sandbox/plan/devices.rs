//! Device nodes: the specification's default ones and those of the configuration.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use sbx_container::plan::{DeviceKind, DeviceNode, DeviceRule};

use super::{Error, text};

/// Path, major and minor number (OCI runtime-spec, `config-linux.md`, "Default Devices"). The terminal devices
/// `/dev/console` and `/dev/ptmx` belong to the file systems that hold them.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

pub(super) fn nodes(devices: &[LinuxDevice]) -> Result<Vec<DeviceNode>, Error> {
    let mut nodes: Vec<DeviceNode> = DEFAULT_NODES.iter().map(default_node).collect();
    for device in devices {
        let node = node(device)?;
        // As in runc: a node of the configuration takes the place of a default one.
        nodes.retain(|other| other.path != node.path);
        nodes.push(node);
    }
    Ok(nodes)
}

fn default_node(&(path, major, minor): &(&str, u32, u32)) -> DeviceNode {
    DeviceNode { path: path.to_owned(), kind: DeviceKind::Character, major, minor, mode: 0o666, uid: 0, gid: 0 }
}

fn node(device: &LinuxDevice) -> Result<DeviceNode, Error> {
    let field = "linux.devices";
    let path = text(field, device.path().as_os_str())?;
    if !path.starts_with('/') {
        return Err(Error::invalid(field, format!("{path:?} is not an absolute path")));
    }
    let kind = kind(device.typ()).ok_or_else(|| Error::invalid(field, format!("{path}: type a is for rules only")))?;
    let number =
        |value: i64| u32::try_from(value).map_err(|_| Error::invalid(field, format!("{path}: device number {value}")));
    let (major, minor) = match kind {
        DeviceKind::Fifo => (0, 0),
        _ => (number(device.major())?, number(device.minor())?),
    };
    Ok(DeviceNode {
        path,
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

fn kind(kind: LinuxDeviceType) -> Option<DeviceKind> {
    match kind {
        LinuxDeviceType::C | LinuxDeviceType::U => Some(DeviceKind::Character),
        LinuxDeviceType::B => Some(DeviceKind::Block),
        LinuxDeviceType::P => Some(DeviceKind::Fifo),
        LinuxDeviceType::A => None,
    }
}

/// The configuration's rules, then runc's (`libcontainer/specconv`, `AllowedDevices`): making nodes is always
/// allowed, since using them is what the rules decide.
pub(super) fn rules(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, Error> {
    let mut converted = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let allow = |kind, major, minor, access: &str| DeviceRule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access: access.to_owned(),
    };
    converted.push(allow(DeviceKind::Character, None, None, "m"));
    converted.push(allow(DeviceKind::Block, None, None, "m"));
    for (_, major, minor) in DEFAULT_NODES {
        converted.push(allow(DeviceKind::Character, Some(major), Some(minor), "rwm"));
    }
    converted.push(allow(DeviceKind::Character, Some(136), None, "rwm"));
    converted.push(allow(DeviceKind::Character, Some(5), Some(2), "rwm"));
    Ok(converted)
}

fn rule(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let field = "linux.resources.devices";
    let access = rule.access().clone().unwrap_or_default();
    if !crate::device_rule::is_access(&access) {
        return Err(Error::invalid(field, format!("access {access:?} is not made of r, w and m")));
    }
    // -1 is runc's way to write "every".
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => {
            u32::try_from(value).map(Some).map_err(|_| Error::invalid(field, format!("device number {value}")))
        }
    };
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::P => return Err(Error::invalid(field, "type p is for nodes only")),
        other => kind(other),
    };
    Ok(DeviceRule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
}
