//! Volumes and image mounts of a container, made ready before its start: each gets a directory of the host.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sbx_rootfs::copy_up;
use sbx_sandbox::spec::{MountKind, MountPoint, SandboxSpec};
use sbx_sandbox::volumes::of_mount;

use crate::error::Error;
use crate::root::RootFs;
use crate::sandbox::Setting;

/// Source directories by mount destination; an empty volume is filled from the image.
pub(crate) fn prepare(
    spec: &SandboxSpec,
    setting: &Setting,
    root: &RootFs,
) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut sources = BTreeMap::new();
    for mount in &spec.mounts {
        match mount.kind {
            MountKind::Volume => {
                sources.insert(mount.destination.clone(), volume(spec, mount, setting, root)?);
            }
            MountKind::Bind if mount.options.create_source => make_source(Path::new(&mount.source))?,
            MountKind::Bind | MountKind::Tmpfs => {}
            MountKind::Image => {
                return Err(unsupported(mount, "image mounts are not supported yet; copy the files in"));
            }
        }
    }
    Ok(sources)
}

fn unsupported(mount: &MountPoint, reason: &str) -> Error {
    Error::Unsupported(format!("mount at {}: {reason}", mount.destination))
}

fn volume(spec: &SandboxSpec, mount: &MountPoint, setting: &Setting, root: &RootFs) -> Result<PathBuf, Error> {
    let volume = setting.volumes.ensure(of_mount(mount, spec.created))?;
    let data = match volume.mount() {
        None => setting.volumes.data(&mount.name),
        Some(stands_for) if stands_for.options.iter().any(|option| option == "bind" || option == "rbind") => {
            PathBuf::from(&stands_for.device)
        }
        Some(stands_for) => {
            let reason = format!("a volume of type {:?} cannot be mounted; use --mount type=tmpfs", stands_for.fstype);
            return Err(unsupported(mount, &reason));
        }
    };
    if mount.options.copy_data && volume.mount().is_none() {
        let step = || Error::io(format!("open volume {}", mount.name));
        let directory = File::open(&data).map_err(step())?;
        copy_up(root.as_fd(), Path::new(&mount.destination), directory.as_fd())?;
    }
    if mount.options.subpath.is_empty() {
        return Ok(data);
    }
    inside(&data, &mount.options.subpath).ok_or_else(|| {
        unsupported(mount, &format!("the subpath {:?} does not exist in the volume", mount.options.subpath))
    })
}

/// A path below `base` that no link leads out of it.
fn inside(base: &Path, subpath: &str) -> Option<PathBuf> {
    let base = fs::canonicalize(base).ok()?;
    let path = fs::canonicalize(base.join(subpath.trim_start_matches('/'))).ok()?;
    path.starts_with(&base).then_some(path)
}

/// `-v` makes a missing source as a directory, as Docker does.
fn make_source(source: &Path) -> Result<(), Error> {
    if source.exists() {
        return Ok(());
    }
    fs::create_dir_all(source).map_err(Error::io(format!("create {}", source.display())))
}
