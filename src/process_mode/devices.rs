//! Device nodes of the host that a container asks for.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sbx_container::plan::DeviceKind;
use sbx_sandbox::host_config::HostConfig;
use sbx_sandbox::oci::wanted_devices;
use sbx_sandbox::spec::HostDevice;

use crate::error::Error;

/// What a directory of devices is not searched for, as runc has it.
const SKIPPED: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", "console"];
/// How deep a directory of devices is searched.
const DEPTH: usize = 8;

/// Looks every wanted device up; a path that does not exist is left out and named by whoever needs it.
pub(crate) fn look_up(host: &HostConfig) -> Result<Vec<HostDevice>, Error> {
    let mut found = Vec::new();
    for requested in wanted_devices(host) {
        let path = fs::canonicalize(&requested);
        let Ok(path) = path else { continue };
        if path.is_dir() {
            search(&requested, &path, DEPTH, &mut found)?;
        } else {
            found.extend(device(&requested, &requested)?);
        }
    }
    Ok(found)
}

fn search(requested: &str, directory: &Path, depth: usize, found: &mut Vec<HostDevice>) -> Result<(), Error> {
    if depth == 0 {
        return Ok(());
    }
    let step = || Error::io(format!("look for devices in {}", directory.display()));
    for entry in fs::read_dir(directory).map_err(step())? {
        let entry = entry.map_err(step())?;
        let kind = entry.file_type().map_err(step())?;
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let path = entry.path();
        if kind.is_dir() {
            search(requested, &path, depth - 1, found)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            found.extend(device(requested, &path.to_string_lossy())?);
        }
    }
    Ok(())
}

/// The device at `path`; `None` where it is something else or has just gone.
fn device(requested: &str, path: &str) -> Result<Option<HostDevice>, Error> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("look at device {path}"))(error)),
    };
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Character,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return Ok(None),
    };
    let number = metadata.rdev();
    Ok(Some(HostDevice {
        requested: requested.to_owned(),
        path: path.to_owned(),
        kind,
        major: u32::try_from(nix::sys::stat::major(number)).unwrap_or(0),
        minor: u32::try_from(nix::sys::stat::minor(number)).unwrap_or(0),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_and_a_file_is_none() {
        let null = device("/dev/null", "/dev/null").unwrap().unwrap();
        assert_eq!((null.kind, null.major, null.minor), (DeviceKind::Character, 1, 3));
        assert_eq!(device("/etc/passwd", "/etc/passwd").unwrap(), None);
        assert_eq!(device("/nonexistent", "/nonexistent").unwrap(), None);
    }
}
