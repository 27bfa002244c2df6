//! Devices that a container in a guest can name: nodes of the guest's for `--privileged` and `--device`, block devices of
//! the host for limits.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use sbx_container::plan::DeviceKind;
use sbx_sandbox::host_config::HostConfig;
use sbx_sandbox::oci::wanted_devices;
use sbx_sandbox::spec::HostDevice;

use crate::error::Error;

/// Character devices of the guest's kernel, with their numbers (`Documentation/admin-guide/devices.txt`) and modes.
const CHARACTER: [(&str, u32, u32, u32); 11] = [
    ("/dev/full", 1, 7, 0o666),
    ("/dev/fuse", 10, 229, 0o666),
    ("/dev/kmsg", 1, 11, 0o644),
    ("/dev/loop-control", 10, 237, 0o660),
    ("/dev/net/tun", 10, 200, 0o666),
    ("/dev/null", 1, 3, 0o666),
    ("/dev/random", 1, 8, 0o666),
    ("/dev/tty", 5, 0, 0o666),
    ("/dev/urandom", 1, 9, 0o666),
    ("/dev/vsock", 10, 121, 0o666),
    ("/dev/zero", 1, 5, 0o666),
];

/// The devices that a container asks for: those that the guest has, and block devices of the host whose speed is limited,
/// which the host's control group does. What is missing is named by the plan.
pub(crate) fn look_up(host: &HostConfig) -> Vec<HostDevice> {
    let mut found = Vec::new();
    for requested in wanted_devices(host) {
        found.extend(block_device(&requested));
        let below = format!("{}/", requested.trim_end_matches('/'));
        for (path, major, minor, mode) in CHARACTER {
            if path == requested || path.starts_with(&below) {
                found.push(HostDevice {
                    requested: requested.clone(),
                    path: path.to_owned(),
                    kind: DeviceKind::Character,
                    major,
                    minor,
                    mode,
                    uid: 0,
                    gid: 0,
                });
            }
        }
    }
    found
}

/// A block device of the host. As a node it is none of the guest's: `--device` with one is refused by [`check`].
fn block_device(path: &str) -> Option<HostDevice> {
    let metadata = std::fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    let number = metadata.rdev();
    Some(HostDevice {
        requested: path.to_owned(),
        path: path.to_owned(),
        kind: DeviceKind::Block,
        major: u32::try_from(nix::sys::stat::major(number)).ok()?,
        minor: u32::try_from(nix::sys::stat::minor(number)).ok()?,
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Refuses device nodes that the guest does not have.
pub(crate) fn check(host: &HostConfig) -> Result<(), Error> {
    for mapping in &host.devices {
        let path = mapping.path_on_host.as_str();
        if !CHARACTER.iter().any(|(known, ..)| *known == path) {
            return Err(Error::Unsupported(format!(
                "error gathering device information while adding custom device \"{path}\": a virtual machine has no such \
                 device; use --isolation=process"
            )));
        }
    }
    Ok(())
}
