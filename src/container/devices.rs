//! `/dev` of a container: device nodes, the links that programs expect, the console, and what masks other paths.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat};

use crate::error::{Error, Step, describe};
use crate::overlay::on_scratch;
use crate::path::RootDir;
use crate::plan::{ContainerPlan, DeviceKind, DeviceNode, MountSource};
use crate::sys::{self, AttributeChange, OPEN_TREE_CLONE, Recursion, attr};

/// Links of `/dev` (OCI runtime-spec, `config-linux.md`, "Default Devices").
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Whether `/dev` is the container's own; one that was bound from elsewhere is left as it is, as runc does.
fn owns_dev(plan: &ContainerPlan) -> bool {
    !plan
        .mounts
        .iter()
        .any(|mount| mount.target.trim_end_matches('/') == "/dev" && matches!(mount.source, MountSource::Bind { .. }))
}

/// Device nodes made by the creator because a user namespace may not make any: one detached bind for each device.
#[derive(Debug)]
pub(crate) struct StagedDevices {
    nodes: Vec<OwnedFd>,
}

impl StagedDevices {
    /// Makes the nodes on a file system of their own that nobody else sees, owned as the container's ids say.
    pub(crate) fn make(plan: &ContainerPlan) -> Result<Self, Error> {
        // Before Linux 6.15 open_tree(2) copies only mounts of the namespace that one is in.
        let nodes = on_scratch(c"mode=755", || {
            let staged = |(number, device): (usize, &DeviceNode)| {
                stage(plan, device, &number.to_string())
                    .map_err(|error| io::Error::other(format!("{}: {}", device.path, describe(&error))))
            };
            plan.devices.iter().enumerate().map(staged).collect()
        });
        nodes.map(|nodes| Self { nodes }).step(|| "make device nodes".into())
    }
}

/// Makes one node in the working directory and takes a copy of its mount.
fn stage(plan: &ContainerPlan, device: &DeviceNode, name: &str) -> io::Result<OwnedFd> {
    mknodat(AT_FDCWD, name, node_kind(device), Mode::from_bits_truncate(device.mode), node_number(device))?;
    let maps = plan.id_maps.as_ref();
    let uid = maps.map_or(device.uid, |maps| outside(&maps.uids, device.uid));
    let gid = maps.map_or(device.gid, |maps| outside(&maps.gids, device.gid));
    own(AT_FDCWD, name, device.mode, (uid, gid))?;
    sys::open_tree(None, Path::new(name), OPEN_TREE_CLONE)
}

/// What an id of the container is outside; an id that is not mapped stays as it is.
fn outside(maps: &[crate::plan::IdMap], id: u32) -> u32 {
    maps.iter()
        .find(|map| id >= map.inside && id - map.inside < map.count)
        .map_or(id, |map| map.outside + (id - map.inside))
}

fn node_kind(device: &DeviceNode) -> SFlag {
    match device.kind {
        DeviceKind::Character => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    }
}

fn node_number(device: &DeviceNode) -> u64 {
    makedev(u64::from(device.major), u64::from(device.minor))
}

/// Sets owner and mode whatever the umask says.
fn own(directory: BorrowedFd<'_>, name: &str, mode: u32, (uid, gid): (u32, u32)) -> nix::Result<()> {
    fchownat(directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
    nix::sys::stat::fchmodat(directory, name, Mode::from_bits_truncate(mode), follow)
}

/// Makes devices and links below `root`. Runs in the child.
pub(crate) fn populate(plan: &ContainerPlan, staged: Option<&StagedDevices>, root: RootDir<'_>) -> Result<(), Error> {
    if !owns_dev(plan) {
        return Ok(());
    }
    for (number, device) in plan.devices.iter().enumerate() {
        let subject = || format!("make device {}", device.path);
        match staged {
            Some(staged) => {
                let target = root.make_file(&device.path).step(subject)?;
                sys::move_mount(staged.nodes[number].as_fd(), target.as_fd()).step(subject)?;
            }
            None => make_node(device, root).step(subject)?,
        }
    }
    for (target, path) in LINKS {
        root.make_link(target, path).step(|| format!("link {path}"))?;
    }
    if root.open("/proc/kcore", OFlag::O_PATH).is_ok() {
        root.make_link("/proc/kcore", "/dev/core").step(|| "link /dev/core".into())?;
    }
    Ok(())
}

fn make_node(device: &DeviceNode, root: RootDir<'_>) -> io::Result<()> {
    let node = root.make_node(&device.path, node_kind(device), device.mode, node_number(device))?;
    // The mode is as asked because the child's umask is empty here.
    let flags = AtFlags::AT_EMPTY_PATH;
    fchownat(&node, "", Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)), flags)?;
    Ok(())
}

/// Puts the terminal's other end on `/dev/console`. Runs in the child, inside the root.
pub(crate) fn bind_console(terminal: BorrowedFd<'_>, root: RootDir<'_>) -> Result<(), Error> {
    let subject = || "mount the terminal on /dev/console".to_owned();
    let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32;
    let clone = sys::open_tree(Some(terminal), Path::new(""), flags).step(subject)?;
    let target = root.make_file("/dev/console").step(subject)?;
    sys::move_mount(clone.as_fd(), target.as_fd()).step(subject)
}

/// Makes paths read-only by a bind over themselves; missing ones are skipped. Runs in the child, inside the root.
pub(crate) fn protect(paths: &[String], root: RootDir<'_>) -> Result<(), Error> {
    for path in paths {
        let subject = || format!("make {path} read-only");
        let Some(place) = existing(root, path).step(subject)? else { continue };
        let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32 | libc::AT_RECURSIVE as u32;
        let clone = sys::open_tree(Some(place.as_fd()), Path::new(""), flags).step(subject)?;
        let change = AttributeChange { set: attr::RDONLY, ..AttributeChange::default() };
        sys::mount_setattr(clone.as_fd(), Recursion::Below, &change).step(subject)?;
        sys::move_mount(clone.as_fd(), place.as_fd()).step(subject)?;
    }
    Ok(())
}

/// Hides paths: files under the null device, directories under an empty read-only tmpfs; missing ones are skipped.
/// Runs in the child, inside the root. The null device is checked to be one: an image may have put something else
/// there (CVE-2025-31133).
pub(crate) fn mask(paths: &[String], root: RootDir<'_>) -> Result<(), Error> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = root.open("/dev/null", OFlag::O_PATH | OFlag::O_NOFOLLOW).step(|| "open /dev/null".into())?;
    let found = fstat(&null).step(|| "look at /dev/null".into())?;
    if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() || found.st_rdev != makedev(1, 3) {
        return Err(Error::new("mask paths", "/dev/null is not the null device"));
    }
    for path in paths {
        let subject = || format!("mask {path}");
        let Some(place) = existing(root, path).step(subject)? else { continue };
        let kind = fstat(&place).step(subject)?.st_mode & SFlag::S_IFMT.bits();
        let cover = if kind == SFlag::S_IFDIR.bits() {
            sys::new_filesystem("tmpfs", "tmpfs", &[], attr::RDONLY).step(subject)?
        } else {
            let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32;
            sys::open_tree(Some(null.as_fd()), Path::new(""), flags).step(subject)?
        };
        sys::move_mount(cover.as_fd(), place.as_fd()).step(subject)?;
    }
    Ok(())
}

fn existing(root: RootDir<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match root.open(path, OFlag::O_PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::IdMap;

    #[test]
    fn ids_are_mapped_to_the_outside() {
        let maps = [IdMap { inside: 0, outside: 100_000, count: 10 }, IdMap { inside: 50, outside: 7, count: 1 }];
        assert_eq!(outside(&maps, 0), 100_000);
        assert_eq!(outside(&maps, 9), 100_009);
        assert_eq!(outside(&maps, 50), 7);
        assert_eq!(outside(&maps, 10), 10);
    }
}
