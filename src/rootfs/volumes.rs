//! Volumes and image mounts of a container, made ready before its start: each gets a directory of the host.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use sbx_sandbox::spec::{MountKind, MountPoint, SandboxSpec};
use sbx_sandbox::volumes::{Volumes, of_mount};

use crate::{LayerId, LayerMounts, LayerStore, OverlayOptions, RootfsError, copy_up, overlay};

/// Where the files are that an empty volume is filled with.
#[derive(Clone, Copy, Debug)]
pub enum ImageFiles<'a> {
    /// In a root that is mounted.
    Mounted(BorrowedFd<'a>),
    /// In layers, which are mounted for as long as it takes.
    Layers {
        /// The converted layers.
        store: &'a LayerStore,
        /// Where they are mounted.
        mounts: &'a LayerMounts,
    },
}

/// Source directories by mount destination; an empty volume is filled from the image.
///
/// # Errors
/// The first mount that cannot be made ready, by its destination.
pub fn prepare(
    spec: &SandboxSpec,
    volumes: &Volumes,
    image: ImageFiles<'_>,
) -> Result<BTreeMap<String, PathBuf>, RootfsError> {
    let mut sources = BTreeMap::new();
    for mount in &spec.mounts {
        match mount.kind {
            MountKind::Volume => {
                sources.insert(mount.destination.clone(), volume(spec, mount, volumes, image)?);
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

fn fill(spec: &SandboxSpec, mount: &MountPoint, data: &Path, image: ImageFiles<'_>) -> Result<(), RootfsError> {
    let directory = File::open(data).map_err(|error| RootfsError::io("open volume", data, error))?;
    let target = Path::new(&mount.destination);
    match image {
        ImageFiles::Mounted(root) => copy_up(root, target, directory.as_fd()).map(drop),
        ImageFiles::Layers { store, mounts } => {
            let mut entries = fs::read_dir(data).map_err(|error| RootfsError::io("list volume", data, error))?;
            if entries.next().is_some() {
                return Ok(());
            }
            let mut layers = Vec::with_capacity(spec.image.layers.len());
            for diff_id in &spec.image.layers {
                let id = LayerId::parse(diff_id)?;
                layers.push(mounts.acquire(&id, &store.path(&id))?);
            }
            let root = overlay(&layers, None, &OverlayOptions::default())?;
            copy_up(root.as_fd(), target, directory.as_fd()).map(drop)
        }
    }
}

fn unsupported(mount: &MountPoint, reason: &str) -> RootfsError {
    RootfsError::Mount { destination: mount.destination.clone(), reason: reason.to_owned() }
}

fn volume(
    spec: &SandboxSpec,
    mount: &MountPoint,
    volumes: &Volumes,
    image: ImageFiles<'_>,
) -> Result<PathBuf, RootfsError> {
    let volume = volumes.ensure(of_mount(mount, spec.created))?;
    let data = match volume.mount() {
        None => volumes.data(&mount.name),
        Some(stands_for) if stands_for.options.iter().any(|option| option == "bind" || option == "rbind") => {
            PathBuf::from(&stands_for.device)
        }
        Some(stands_for) => {
            let reason = format!("a volume of type {:?} cannot be mounted; use --mount type=tmpfs", stands_for.fstype);
            return Err(unsupported(mount, &reason));
        }
    };
    if mount.options.copy_data && volume.mount().is_none() {
        fill(spec, mount, &data, image)?;
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
fn make_source(source: &Path) -> Result<(), RootfsError> {
    if source.exists() {
        return Ok(());
    }
    fs::create_dir_all(source).map_err(|error| RootfsError::io("create", source, error))
}
