//! What is mounted in the container: Docker's default mounts, then the user's by depth, then the network files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::Error;
use crate::facts::MachineFacts;
use crate::spec::{HostPaths, MountKind, MountPoint, SandboxSpec};

/// Kernel with MOUNT_ATTR_RDONLY for a whole tree (mount_setattr(2)).
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);

pub(super) fn mounts(spec: &SandboxSpec, machine: &MachineFacts, paths: &HostPaths) -> Result<Vec<Mount>, Error> {
    let mut wanted = Vec::new();
    for point in &spec.mounts {
        wanted.push(user_mount(spec, point, machine, paths)?);
    }
    let shared_memory = shared_memory(spec, paths);
    add_unless_mounted(&mut wanted, spec, machine, "/dev/shm", shared_memory.as_deref(), Access::Writable);
    let access = if spec.host_config.readonly_rootfs { Access::ReadOnly } else { Access::Writable };
    for (destination, source) in
        [("/etc/resolv.conf", &paths.resolv_conf), ("/etc/hostname", &paths.hostname), ("/etc/hosts", &paths.hosts)]
    {
        add_unless_mounted(&mut wanted, spec, machine, destination, source.as_deref(), access);
    }
    // A mount must not hide one that lies below it; among equals the order of the request stands.
    wanted.sort_by_key(|mount| depth(mount.destination()));
    let taken: BTreeSet<PathBuf> = wanted.iter().map(|mount| mount.destination().clone()).collect();
    let mut mounts = defaults(spec, &taken);
    mounts.extend(wanted);
    Ok(mounts)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Writable,
    ReadOnly,
}

/// `/dev/shm` of the host, of another container, or our own that others may join; `None` is a private one.
fn shared_memory(spec: &SandboxSpec, paths: &HostPaths) -> Option<PathBuf> {
    match spec.host_config.ipc_mode.as_str() {
        "host" => Some(PathBuf::from("/dev/shm")),
        "none" => None,
        _ => paths.shm.clone(),
    }
}

fn add_unless_mounted(
    wanted: &mut Vec<Mount>,
    spec: &SandboxSpec,
    machine: &MachineFacts,
    destination: &str,
    source: Option<&Path>,
    access: Access,
) {
    let Some(source) = source else { return };
    if wanted.iter().any(|mount| mount.destination() == Path::new(destination)) {
        return;
    }
    let mut options = vec!["rbind".to_owned(), "rprivate".to_owned()];
    if access == Access::ReadOnly {
        options.push(read_only(machine).to_owned());
    }
    if spec.host_config.userns_mode == "private" && spec.host_config.ipc_mode != "host" {
        options.push("idmap".to_owned());
    }
    wanted.push(mount(destination, "bind", source, options));
}

fn read_only(machine: &MachineFacts) -> &'static str {
    if machine.kernel >= RECURSIVE_READ_ONLY { "rro" } else { "ro" }
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn mount(destination: &str, kind: &str, source: impl AsRef<Path>, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.as_ref().to_owned()))
        .set_options(Some(options));
    mount
}

fn user_mount(
    spec: &SandboxSpec,
    point: &MountPoint,
    machine: &MachineFacts,
    paths: &HostPaths,
) -> Result<Mount, Error> {
    if point.kind == MountKind::Tmpfs {
        return Ok(mount(&point.destination, "tmpfs", "tmpfs", point.options.tmpfs.clone()));
    }
    let source = match paths.mount_sources.get(&point.destination) {
        Some(prepared) => prepared.clone(),
        // A directory inside a volume is opened with care by the caller: there may be a link in its place.
        None if !point.source.is_empty() && point.options.subpath.is_empty() => PathBuf::from(&point.source),
        None => {
            return Err(Error::NoSource {
                destination: point.destination.clone(),
                kind: point.kind.as_str(),
                name: point.name.clone(),
            });
        }
    };
    let mut options = vec![if point.options.non_recursive { "bind" } else { "rbind" }.to_owned()];
    if !point.rw {
        options.push(read_only_option(point, machine)?.to_owned());
    }
    if !point.propagation.is_empty() {
        options.push(point.propagation.clone());
    }
    if point.kind == MountKind::Volume && spec.host_config.userns_mode == "private" {
        options.push("idmap".to_owned());
    }
    Ok(mount(&point.destination, "bind", source, options))
}

fn read_only_option(point: &MountPoint, machine: &MachineFacts) -> Result<&'static str, Error> {
    if point.options.read_only_non_recursive {
        return Ok("ro");
    }
    let option = read_only(machine);
    if point.options.read_only_force_recursive && option == "ro" {
        let (major, minor) = machine.kernel;
        let reason =
            format!("{}: kernel {major}.{minor} has no recursive read-only mounts (5.12 has)", point.destination);
        return Err(Error::invalid("Mounts.BindOptions.ReadOnlyForceRecursive", reason));
    }
    Ok(option)
}

/// Docker's default mounts as the request changes them.
fn defaults(spec: &SandboxSpec, taken: &BTreeSet<PathBuf>) -> Vec<Mount> {
    let host = &spec.host_config;
    let own_dev = taken.contains(Path::new("/dev"));
    let shm_size = format!("size={}", host.shm_size);
    let table: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ];
    let writable_cgroups = spec.security.writable_cgroups.unwrap_or(host.privileged);
    let mut mounts = Vec::new();
    for (destination, kind, source, options) in table {
        let hidden = own_dev && destination.starts_with("/dev/");
        let no_shm = destination == "/dev/shm" && host.ipc_mode == "none";
        if taken.contains(Path::new(destination)) || hidden || no_shm {
            continue;
        }
        let writable = match kind {
            "sysfs" => host.privileged,
            "cgroup" => writable_cgroups,
            _ => false,
        };
        let options = options.iter().filter(|&&option| !(writable && option == "ro"));
        mounts.push(mount(destination, kind, source, options.map(|&option| option.to_owned()).collect()));
    }
    mounts
}

/// The propagation that the root needs so that mounts of the user can propagate at all.
pub(super) fn root_propagation(spec: &SandboxSpec) -> Option<&'static str> {
    let has = |kinds: [&str; 2]| spec.mounts.iter().any(|point| kinds.contains(&point.propagation.as_str()));
    if has(["shared", "rshared"]) {
        Some("shared")
    } else if has(["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}
