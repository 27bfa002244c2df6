//! What a container sees at `/sys/fs/cgroup`: a list of mounts, decided here and executed by whoever makes mounts.
//!
//! In a cgroup namespace of its own (cgroup_namespaces(7)) a container gets fresh mounts of the cgroup file systems,
//! whose roots are then its own cgroups. Without one, a fresh v1 mount would show everybody's cgroups, so its own
//! directories are bound instead; v2 is shown whole, since a path in `/proc/self/cgroup` has a meaning there only
//! below the real root. This is what Docker users know.

use std::path::PathBuf;

use super::hierarchy::{Hierarchies, Hierarchy, Mode, Version};
use crate::plan::Namespace;

/// One thing to be made at or below the container's `/sys/fs/cgroup`, in order. Targets are relative to it; every
/// mount is `nosuid,nodev,noexec`, and read-only when the container's mount says so, after all of them are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewMount {
    /// A tmpfs (`mode=755`) over the mount point itself, to hold the others.
    Tmpfs,
    /// A mount of `cgroup2`.
    Cgroup2 {
        /// Directory to make and mount on; empty for the mount point itself.
        target: String,
    },
    /// A mount of `cgroup`.
    Cgroup {
        /// Directory to make and mount on.
        target: String,
        /// Options that select the hierarchy: `cpu,cpuacct`, `name=systemd`.
        options: String,
    },
    /// A bind mount of an existing directory.
    Bind {
        /// The cgroup's directory, absolute, outside of the container's root.
        source: PathBuf,
        /// Directory to make and mount on.
        target: String,
    },
    /// A symbolic link, for a controller that shares its hierarchy with others.
    Symlink {
        /// Where it is made.
        target: String,
        /// What it says.
        to: String,
    },
}

/// The mounts that show the cgroup `path` to the container in it.
pub fn inside_view(hierarchies: &Hierarchies, cgroup_namespace: &Namespace, path: &str) -> Vec<ViewMount> {
    if hierarchies.mode() == Mode::V2 {
        return vec![ViewMount::Cgroup2 { target: String::new() }];
    }
    let mut view = vec![ViewMount::Tmpfs];
    for hierarchy in hierarchies.iter() {
        let target = directory_name(hierarchy);
        for link in hierarchy.controllers.iter().filter(|controller| **controller != target) {
            view.push(ViewMount::Symlink { target: link.clone(), to: target.clone() });
        }
        view.push(match (cgroup_namespace, hierarchy.version) {
            (Namespace::Inherit, _) => ViewMount::Bind { source: hierarchy.mount_point.join(path), target },
            (_, Version::V1) => ViewMount::Cgroup { target, options: hierarchy.selector() },
            (_, Version::V2) => ViewMount::Cgroup2 { target },
        });
    }
    view
}

/// The name of the directory that a hierarchy is mounted on, as outside; where it is mounted in some unusual place,
/// the name that distributions would use.
fn directory_name(hierarchy: &Hierarchy) -> String {
    let usual = hierarchy.mount_point.parent() == Some(super::hierarchy::CGROUP_MOUNT.as_ref());
    match hierarchy.mount_point.file_name() {
        Some(name) if usual => name.to_string_lossy().into_owned(),
        _ => hierarchy.usual_name(),
    }
}
