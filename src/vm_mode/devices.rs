//! Device nodes in the guest: what `--privileged` and `--device` can have there.

use sbx_container::plan::DeviceKind;
use sbx_sandbox::host_config::HostConfig;
use sbx_sandbox::oci::wanted_devices;
use sbx_sandbox::spec::HostDevice;

/// Character devices of the guest's kernel, with their numbers (`Documentation/admin-guide/devices.txt`) and modes.
const CHARACTER: [(&str, u32, u32, u32); 12] = [
    ("/dev/full", 1, 7, 0o666),
    ("/dev/fuse", 10, 229, 0o666),
    ("/dev/kmsg", 1, 11, 0o644),
    ("/dev/loop-control", 10, 237, 0o660),
    ("/dev/mem", 1, 1, 0o640),
    ("/dev/net/tun", 10, 200, 0o666),
    ("/dev/null", 1, 3, 0o666),
    ("/dev/random", 1, 8, 0o666),
    ("/dev/tty", 5, 0, 0o666),
    ("/dev/urandom", 1, 9, 0o666),
    ("/dev/vsock", 10, 121, 0o666),
    ("/dev/zero", 1, 5, 0o666),
];
/// Loop devices that exist without being asked for (`CONFIG_BLK_DEV_LOOP_MIN_COUNT`).
const LOOPS: u32 = 8;
const LOOP_MAJOR: u32 = 7;

/// The devices that a container asks for and that the guest has. What is missing is named by the plan.
pub(crate) fn of_guest(host: &HostConfig) -> Vec<HostDevice> {
    let wanted = wanted_devices(host);
    let all: Vec<(String, DeviceKind, u32, u32, u32)> = CHARACTER
        .iter()
        .map(|(path, major, minor, mode)| ((*path).to_owned(), DeviceKind::Character, *major, *minor, *mode))
        .chain((0..LOOPS).map(|number| (format!("/dev/loop{number}"), DeviceKind::Block, LOOP_MAJOR, number, 0o660)))
        .collect();
    let mut found = Vec::new();
    for requested in wanted {
        let below = format!("{}/", requested.trim_end_matches('/'));
        for (path, kind, major, minor, mode) in &all {
            if *path == requested || path.starts_with(&below) {
                found.push(HostDevice {
                    requested: requested.clone(),
                    path: path.clone(),
                    kind: *kind,
                    major: *major,
                    minor: *minor,
                    mode: *mode,
                    uid: 0,
                    gid: 0,
                });
            }
        }
    }
    found
}
