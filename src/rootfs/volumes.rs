//! Volumes and image mounts of a container, made ready before its start: each gets a directory of the host.
//!
//! A volume with options and the files of an image are mounts of the host that all containers share which use them:
//! `<root>/volumes/NAME/_data`, `<run>/layers/image-HEX`. [`Prepared::held`] is one container's use of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use sbx_container::sys::{move_mount, open_tree};
use sbx_sandbox::spec::{MountKind, MountPoint, SandboxSpec};
use sbx_sandbox::volumes::{Volume, Volumes, of_mount};

use crate::shared_mounts::{PointFate, Use};
use crate::{
    LayerId, LayerMount, LayerMounts, LayerStore, OverlayOptions, RootfsError, copy_up, overlay, volume_mount,
};

/// Before the name of a volume in the name of its lock.
const VOLUME: &str = "volume-";
/// Before the digest of an image in the names of its lock and of its mount point.
const IMAGE: &str = "image-";

/// What mounts are made from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Named volumes.
    pub volumes: &'a Volumes,
    /// The converted layers.
    pub layers: &'a LayerStore,
    /// Where they are mounted, and the other mounts that containers share.
    pub mounts: &'a LayerMounts,
    /// The container's root where it is mounted on this host: an empty volume is filled from there, else from the
    /// image's layers.
    pub root: Option<BorrowedFd<'a>>,
}

/// Mounts that are ready.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Directories and files of the host by mount destination.
    pub sources: BTreeMap<String, PathBuf>,
    /// To be kept as long as the container runs.
    pub held: Held,
}

/// A container's use of mounts that it shares with others. Dropping it (or dying) ends the use; the last one unmounts.
#[derive(Debug, Default)]
pub struct Held {
    // In this order: an image's overlay goes before its layers.
    _mounts: Vec<Use>,
    _layers: Vec<LayerMount>,
}

/// Makes volumes and image mounts ready; an empty volume is filled from the image.
///
/// # Errors
/// The first mount that cannot be made ready, by its destination.
pub fn prepare(spec: &SandboxSpec, sources: Sources<'_>) -> Result<Prepared, RootfsError> {
    let mut prepared = Prepared::default();
    for mount in &spec.mounts {
        let base = match mount.kind {
            MountKind::Volume => volume(spec, mount, sources, &mut prepared.held)?,
            MountKind::Image => image(mount, sources, &mut prepared.held)?,
            MountKind::Bind if mount.options.create_source => {
                make_source(Path::new(&mount.source))?;
                continue;
            }
            MountKind::Bind | MountKind::Tmpfs => continue,
        };
        prepared.sources.insert(mount.destination.clone(), below(mount, base)?);
    }
    Ok(prepared)
}

/// Unmounts volumes and images that no container uses: what killed supervisors left behind. Returns how many.
///
/// # Errors
/// The first that cannot be unmounted.
pub fn reap(mounts: &LayerMounts, volumes: &Volumes) -> Result<usize, RootfsError> {
    let shared = mounts.shared();
    let reaped = shared.reap(&|key| key.strip_prefix(VOLUME).map(|name| volumes.data(name)))?.len();
    let point = |key: &str| key.starts_with(IMAGE).then(|| shared.dir().join(key));
    Ok(reaped + shared.of(PointFate::Goes).reap(&point)?.len())
}

fn failed(mount: &MountPoint, reason: impl Into<String>) -> RootfsError {
    RootfsError::Mount { destination: mount.destination.clone(), reason: reason.into() }
}

fn volume(
    spec: &SandboxSpec,
    mount: &MountPoint,
    sources: Sources<'_>,
    held: &mut Held,
) -> Result<PathBuf, RootfsError> {
    let volume = sources.volumes.ensure(of_mount(mount, spec.created))?;
    let data = sources.volumes.data(&mount.name);
    held._mounts.extend(mounted(&volume, mount, &data, sources)?);
    // Docker fills a volume at `create` and unmounts it then: of a tmpfs nothing is left of that.
    if mount.options.copy_data && volume.mount().is_none_or(|stands_for| stands_for.fstype != "tmpfs") {
        fill(spec, mount, &data, sources)?;
    }
    Ok(data)
}

/// Mounts what a volume with options stands for.
fn mounted(volume: &Volume, mount: &MountPoint, data: &Path, sources: Sources<'_>) -> Result<Option<Use>, RootfsError> {
    let Some(stands_for) = volume.mount() else { return Ok(None) };
    let key = format!("{VOLUME}{}", volume.name);
    let attach = || {
        fs::create_dir_all(data).map_err(|error| RootfsError::io("create", data, error))?;
        volume_mount::attach(&stands_for, data)
            .map_err(|reason| failed(mount, format!("volume {}: {reason}", volume.name)))
    };
    sources.mounts.shared().acquire(&key, data, &attach).map(Some)
}

/// The files of an image, read-only.
fn image(mount: &MountPoint, sources: Sources<'_>, held: &mut Held) -> Result<PathBuf, RootfsError> {
    let shared = sources.mounts.shared().of(PointFate::Goes);
    let hex = mount.options.image.rsplit(':').next().unwrap_or_default();
    let key = format!("{IMAGE}{hex}");
    let point = shared.dir().join(&key);
    let layers = mount_layers(&mount.options.layers, sources)?;
    let attach = || {
        let root = overlay(&layers, None, &OverlayOptions::default())?;
        let attached = match fs::create_dir(&point) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => open_tree(None, &point, 0).and_then(|place| move_mount(root.as_fd(), place.as_fd())),
        };
        attached.map_err(|error| RootfsError::io("mount an image at", &point, error))
    };
    held._mounts.push(shared.acquire(&key, &point, &attach)?);
    held._layers.extend(layers);
    Ok(point)
}

fn mount_layers(diff_ids: &[String], sources: Sources<'_>) -> Result<Vec<LayerMount>, RootfsError> {
    let mount = |diff_id: &String| {
        let id = LayerId::parse(diff_id)?;
        sources.mounts.acquire(&id, &sources.layers.path(&id))
    };
    diff_ids.iter().map(mount).collect()
}

fn fill(spec: &SandboxSpec, mount: &MountPoint, data: &Path, sources: Sources<'_>) -> Result<(), RootfsError> {
    let directory = File::open(data).map_err(|error| RootfsError::io("open volume", data, error))?;
    let target = Path::new(&mount.destination);
    if let Some(root) = sources.root {
        return copy_up(root, target, directory.as_fd()).map(drop);
    }
    let mut entries = fs::read_dir(data).map_err(|error| RootfsError::io("list volume", data, error))?;
    if entries.next().is_some() {
        return Ok(());
    }
    let layers = mount_layers(&spec.image.layers, sources)?;
    let root = overlay(&layers, None, &OverlayOptions::default())?;
    copy_up(root.as_fd(), target, directory.as_fd()).map(drop)
}

/// The part of a volume or image that is mounted.
fn below(mount: &MountPoint, base: PathBuf) -> Result<PathBuf, RootfsError> {
    let subpath = &mount.options.subpath;
    if subpath.is_empty() {
        return Ok(base);
    }
    inside(&base, subpath)
        .ok_or_else(|| failed(mount, format!("the subpath {subpath:?} does not exist in the {}", mount.kind.as_str())))
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
