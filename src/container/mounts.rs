//! The mounts inside a container's root.
//!
//! A mount is made in two halves. The creator opens every bind source as a detached mount ([`Sources::open`]): it may
//! see paths that the child, in its namespaces, may not, and it sets the attributes. The child makes the instances that
//! belong to its own namespaces and attaches everything below the root ([`attach`]), by descriptors only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::{SFlag, fstat};

use crate::cgroup::ViewMount;
use crate::error::{Error, Step};
use crate::path::RootDir;
use crate::plan::{ContainerPlan, Mount, MountAttributes, MountSource, Namespace, Propagation};
use crate::sys::{self, AttributeChange, OPEN_TREE_CLONE, Recursion, attr};

/// The bind sources of a plan, opened: one entry for each mount, `None` where the child makes the instance.
#[derive(Debug)]
pub(crate) struct Sources {
    opened: Vec<Option<Source>>,
}

#[derive(Debug)]
struct Source {
    mount: OwnedFd,
    directory: bool,
}

impl Sources {
    /// Opens the bind sources of `plan`; `user_namespace` maps the owners of idmapped ones.
    pub(crate) fn open(plan: &ContainerPlan, user_namespace: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let sysfs_is_ours = sysfs_can_be_new(plan);
        let open = |mount: &Mount| match &mount.source {
            MountSource::Bind { path, recursive, idmapped } => {
                let reach = if *recursive { Recursion::Below } else { Recursion::Only };
                let map = if *idmapped { user_namespace } else { None };
                open_bind(path, reach, mount, map).map(Some)
            }
            MountSource::Sysfs if !sysfs_is_ours => open_bind("/sys", Recursion::Below, mount, None).map(Some),
            _ => Ok(None),
        };
        Ok(Self { opened: plan.mounts.iter().map(open).collect::<Result<_, _>>()? })
    }
}

/// Whether the kernel lets the container mount its own sysfs: only the owner of a network namespace may
/// (fs/sysfs/mount.c, `sysfs_init_fs_context`).
fn sysfs_can_be_new(plan: &ContainerPlan) -> bool {
    plan.namespaces.user != Namespace::New || plan.namespaces.net == Namespace::New
}

fn open_bind(
    path: &str,
    reach: Recursion,
    mount: &Mount,
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<Source, Error> {
    let subject = || format!("mount {path} to {}", mount.target);
    let mut flags = OPEN_TREE_CLONE;
    if reach == Recursion::Below {
        flags |= libc::AT_RECURSIVE as u32;
    }
    let clone = clone_tree(path, flags).step(subject)?;
    let kind = fstat(&clone).step(subject)?.st_mode & SFlag::S_IFMT.bits();
    let directory = kind == SFlag::S_IFDIR.bits();
    if let Some(namespace) = user_namespace {
        let change = AttributeChange {
            set: attr::IDMAP,
            user_namespace: Some(std::os::fd::AsRawFd::as_raw_fd(&namespace)),
            ..AttributeChange::default()
        };
        sys::mount_setattr(clone.as_fd(), reach, &change)
            .step(|| format!("{}: map the owners of its files", subject()))?;
    }
    let (set, clear) = attribute_bits(&mount.attributes);
    let mut change = AttributeChange { set, clear, ..AttributeChange::default() };
    if mount.attributes.recursive_read_only {
        let below = AttributeChange { set: attr::RDONLY, ..AttributeChange::default() };
        sys::mount_setattr(clone.as_fd(), Recursion::Below, &below)
            .step(|| format!("{}: make the mounts below read-only", subject()))?;
    }
    sys::mount_setattr(clone.as_fd(), Recursion::Only, &change).step(subject)?;
    let (propagation, reach) = propagation_bits(mount.propagation);
    change = AttributeChange { propagation, ..AttributeChange::default() };
    sys::mount_setattr(clone.as_fd(), reach, &change).step(|| format!("{}: set its propagation", subject()))?;
    Ok(Source { mount: clone, directory })
}

/// A detached copy of the mount at `path`. A path through another process's root (`/proc/PID/root/…`) is copied from
/// inside that process's mount namespace: the kernel copies only mounts of the namespace one is in.
fn clone_tree(path: &str, flags: u32) -> io::Result<OwnedFd> {
    let foreign = path.strip_prefix("/proc/").and_then(|rest| rest.split_once("/root/"));
    let Some((pid, inside)) = foreign.filter(|(pid, _)| pid.bytes().all(|byte| byte.is_ascii_digit())) else {
        return sys::open_tree(None, Path::new(path), flags);
    };
    let home = std::fs::File::open("/proc/self/ns/mnt")?;
    let there = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    sys::setns(there.as_fd(), libc::CLONE_NEWNS)?;
    let clone = sys::open_tree(None, &Path::new("/").join(inside), flags);
    // Everything after would happen in the wrong place.
    if sys::setns(home.as_fd(), libc::CLONE_NEWNS).is_err() {
        std::process::abort();
    }
    clone
}

/// `(attr_set, attr_clr)` of mount_setattr(2). A bind keeps what its source has unless the plan says more.
fn attribute_bits(attributes: &MountAttributes) -> (u64, u64) {
    let mut set = 0;
    let mut clear = 0;
    let plain = [
        (attributes.read_only || attributes.recursive_read_only, attr::RDONLY),
        (attributes.nosuid, attr::NOSUID),
        (attributes.nodev, attr::NODEV),
        (attributes.noexec, attr::NOEXEC),
        (attributes.nodiratime, attr::NODIRATIME),
        (attributes.nosymfollow, attr::NOSYMFOLLOW),
    ];
    for (wanted, bit) in plain {
        if wanted {
            set |= bit;
        }
    }
    let access_time = match attributes {
        MountAttributes { strictatime: true, .. } => Some(attr::STRICTATIME),
        MountAttributes { noatime: true, .. } => Some(attr::NOATIME),
        MountAttributes { relatime: true, .. } => Some(attr::RELATIME),
        _ => None,
    };
    if let Some(bits) = access_time {
        clear |= attr::ATIME_MASK;
        set |= bits;
    }
    (set, clear)
}

fn propagation_bits(propagation: Propagation) -> (u64, Recursion) {
    match propagation {
        Propagation::Private => (libc::MS_PRIVATE, Recursion::Only),
        Propagation::RecursivePrivate => (libc::MS_PRIVATE, Recursion::Below),
        Propagation::Slave => (libc::MS_SLAVE, Recursion::Only),
        Propagation::RecursiveSlave => (libc::MS_SLAVE, Recursion::Below),
        Propagation::Shared => (libc::MS_SHARED, Recursion::Only),
        Propagation::RecursiveShared => (libc::MS_SHARED, Recursion::Below),
    }
}

/// Attaches every mount of the plan below `root`, in order. Runs in the child.
pub(crate) fn attach(
    plan: &ContainerPlan,
    sources: &Sources,
    cgroup_view: &[ViewMount],
    root: RootDir<'_>,
) -> Result<(), Error> {
    for (mount, source) in plan.mounts.iter().zip(&sources.opened) {
        let subject = || format!("mount {}", mount.target);
        match (source, &mount.source) {
            (Some(source), _) => attach_source(source, &mount.target, root).step(subject)?,
            (None, MountSource::Cgroup) => attach_cgroup_view(mount, cgroup_view, root)?,
            (None, MountSource::Proc) => attach_new(mount, "proc", "proc", &[], root).step(subject)?,
            (None, MountSource::Sysfs) => attach_new(mount, "sysfs", "sysfs", &[], root).step(subject)?,
            (None, MountSource::Filesystem { fstype, source, options }) => {
                attach_new(mount, fstype, source, options, root)
                    .step(|| format!("mount {} ({fstype}, options {:?})", mount.target, options.join(",")))?;
            }
            (None, MountSource::Bind { path, .. }) => {
                return Err(Error::new(subject(), format!("{path} was not opened")));
            }
        }
    }
    Ok(())
}

fn attach_source(source: &Source, target: &str, root: RootDir<'_>) -> io::Result<()> {
    let target = if source.directory { root.make_directory(target)? } else { root.make_file(target)? };
    sys::move_mount(source.mount.as_fd(), target.as_fd())
}

fn attach_new(mount: &Mount, fstype: &str, source: &str, options: &[String], root: RootDir<'_>) -> io::Result<()> {
    let (attributes, _) = attribute_bits(&mount.attributes);
    let instance = sys::new_filesystem(fstype, source, options, attributes)?;
    let (propagation, reach) = propagation_bits(mount.propagation);
    sys::mount_setattr(instance.as_fd(), reach, &AttributeChange { propagation, ..AttributeChange::default() })?;
    let target = root.make_directory(&mount.target)?;
    sys::move_mount(instance.as_fd(), target.as_fd())
}

/// `/sys/fs/cgroup` as the container may see it: the parts that the cgroup room listed, below the mount's target.
fn attach_cgroup_view(mount: &Mount, view: &[ViewMount], root: RootDir<'_>) -> Result<(), Error> {
    let base = mount.target.trim_end_matches('/');
    let place_of = |target: &str| if target.is_empty() { base.to_owned() } else { format!("{base}/{target}") };
    let (attributes, _) = attribute_bits(&mount.attributes);
    let none: &[String] = &[];
    for part in view {
        let (target, made) = match part {
            ViewMount::Tmpfs => {
                let writable = attributes & !attr::RDONLY;
                ("", sys::new_filesystem("tmpfs", "tmpfs", &["mode=755".to_owned()], writable))
            }
            ViewMount::Cgroup2 { target } => {
                (target.as_str(), sys::new_filesystem("cgroup2", "cgroup", none, attributes))
            }
            ViewMount::Cgroup { target, options } => {
                let options: Vec<String> = options.split(',').map(str::to_owned).collect();
                (target.as_str(), sys::new_filesystem("cgroup", "cgroup", &options, attributes))
            }
            ViewMount::Bind { source, target } => (target.as_str(), bind_with(source, attributes)),
            ViewMount::Symlink { target, to } => {
                let place = place_of(target);
                root.make_link(to, &place).step(|| format!("link {place}"))?;
                continue;
            }
        };
        let place = place_of(target);
        let subject = || format!("mount {place}");
        let made = made.step(subject)?;
        let target = root.make_directory(&place).step(subject)?;
        sys::move_mount(made.as_fd(), target.as_fd()).step(subject)?;
    }
    let holds_others = view.contains(&ViewMount::Tmpfs);
    if holds_others && attributes & attr::RDONLY != 0 {
        let change = AttributeChange { set: attr::RDONLY, ..AttributeChange::default() };
        root.open(base, nix::fcntl::OFlag::O_PATH)
            .and_then(|mounted| sys::mount_setattr(mounted.as_fd(), Recursion::Only, &change))
            .step(|| format!("make {base} read-only"))?;
    }
    Ok(())
}

fn bind_with(source: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let bind = sys::open_tree(None, source, OPEN_TREE_CLONE)?;
    let change = AttributeChange { set: attributes, ..AttributeChange::default() };
    sys::mount_setattr(bind.as_fd(), Recursion::Only, &change)?;
    Ok(bind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_time_options_replace_each_other() {
        let noatime = MountAttributes { noatime: true, nodev: true, ..MountAttributes::default() };
        assert_eq!(attribute_bits(&noatime), (attr::NOATIME | attr::NODEV, attr::ATIME_MASK));
        let relatime = MountAttributes { relatime: true, ..MountAttributes::default() };
        assert_eq!(attribute_bits(&relatime), (0, attr::ATIME_MASK));
        assert_eq!(attribute_bits(&MountAttributes::default()), (0, 0));
    }

    #[test]
    fn recursive_read_only_implies_read_only() {
        let rro = MountAttributes { recursive_read_only: true, ..MountAttributes::default() };
        assert_eq!(attribute_bits(&rro), (attr::RDONLY, 0));
    }
}
