//! Which cgroup hierarchies this kernel shows and where: found once, held as plain data.
//!
//! This is on the start path, so the cheapest look that settles it comes first. A pure v2 system is recognised by one
//! statfs(2) of `/sys/fs/cgroup`. Otherwise `/proc/self/cgroup` names the hierarchies that exist, and they are where
//! everybody mounts them (one statfs(2) each, 25 µs in all). Only a system with mounts in other places is read from
//! `/proc/self/mountinfo`, which the kernel takes 2 µs a mount to print.
//!
//! A creator that is itself in a container may see only a part of a hierarchy. Its containers go below that part:
//! paths count from the mount point, whatever the mount's root is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs;

use super::error::{Error, Result};

/// Where systems mount cgroups (systemd's "control group interface", file-hierarchy(7)).
pub const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// Which of the two interfaces a hierarchy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `Documentation/admin-guide/cgroup-v1/`.
    V1,
    /// `Documentation/admin-guide/cgroup-v2.rst`.
    V2,
}

/// How a system uses the two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// Only the v2 hierarchy.
    V2,
    /// v1 hierarchies beside the v2 one, which has the controllers that no v1 hierarchy took.
    Hybrid,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The interface.
    pub version: Version,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The controllers of a v1 hierarchy, in the order of its mount options; empty for v2, where each directory
    /// tells for itself (`cgroup.controllers`).
    pub controllers: Vec<String>,
    /// `name=` of a v1 hierarchy (`systemd`).
    pub name: Option<String>,
}

impl Hierarchy {
    /// Mount option that selects this v1 hierarchy: `cpu,cpuacct` or `name=systemd`.
    pub fn selector(&self) -> String {
        let name = self.name.iter().map(|name| format!("name={name}"));
        self.controllers.iter().cloned().chain(name).collect::<Vec<_>>().join(",")
    }

    /// The directory that distributions mount it on.
    pub(crate) fn usual_name(&self) -> String {
        match (self.version, &self.name) {
            (Version::V2, _) => "unified".to_owned(),
            (Version::V1, Some(name)) if self.controllers.is_empty() => name.clone(),
            (Version::V1, _) => self.controllers.join(","),
        }
    }

    /// Where this process is in the hierarchy, below the mount point and without a leading slash; `None` when it is
    /// outside of what the mount shows. Reads two files, for whoever has to stay below its own cgroup.
    pub fn own_path(&self) -> Result<Option<String>> {
        Ok(own_path(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, self))
    }

    /// Whether both are the same hierarchy of the kernel, wherever it is mounted.
    fn is_same(&self, other: &Hierarchy) -> bool {
        (self.version, &self.controllers, &self.name) == (other.version, &other.controllers, &other.name)
    }
}

/// Every hierarchy that containers are put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// The v2 hierarchy first, when there is one, then v1 hierarchies as they were mounted.
    list: Vec<Hierarchy>,
}

impl Hierarchies {
    /// Finds the hierarchies of the calling process.
    pub fn detect() -> Result<Hierarchies> {
        if is_mounted(Path::new(CGROUP_MOUNT), Version::V2) {
            return Ok(Hierarchies { list: vec![unified(PathBuf::from(CGROUP_MOUNT))] });
        }
        match Hierarchies::at_usual_places(&read("/proc/self/cgroup")?, is_mounted) {
            Some(found) => Ok(found),
            None => Hierarchies::parse(&read("/proc/self/mountinfo")?),
        }
    }

    /// The hierarchies that the text of `/proc/PID/cgroup` (cgroups(7)) lists, if each is mounted in `/sys/fs/cgroup`
    /// on a directory that is named like it.
    pub(super) fn at_usual_places(groups: &str, is_mounted: impl Fn(&Path, Version) -> bool) -> Option<Hierarchies> {
        let mut list = Vec::new();
        for line in groups.lines() {
            let listed = line.split(':').nth(1)?;
            let mut hierarchy = unified(PathBuf::new());
            if !listed.is_empty() {
                hierarchy.version = Version::V1;
                for word in listed.split(',') {
                    match word.split_once('=') {
                        Some((_, name)) => hierarchy.name = Some(name.to_owned()),
                        None => hierarchy.controllers.push(word.to_owned()),
                    }
                }
            }
            hierarchy.mount_point = Path::new(CGROUP_MOUNT).join(hierarchy.usual_name());
            if !is_mounted(&hierarchy.mount_point, hierarchy.version) {
                return None;
            }
            list.push(hierarchy);
        }
        (!list.is_empty()).then(|| Hierarchies::sorted(list))
    }

    /// From the text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
    pub fn parse(mountinfo: &str) -> Result<Hierarchies> {
        let mut list: Vec<Hierarchy> = Vec::new();
        for found in mountinfo.lines().filter_map(parse_mount).map(|mount| mount.hierarchy) {
            let same = list.iter_mut().find(|known| known.is_same(&found));
            match same {
                // A later mount on the same directory hides the earlier one; the usual place wins over copies elsewhere.
                Some(known) if known.mount_point == found.mount_point => *known = found,
                Some(known) if !is_usual(&known.mount_point) && is_usual(&found.mount_point) => *known = found,
                Some(_) => {}
                None => list.push(found),
            }
        }
        if list.is_empty() {
            return Err(Error::NotMounted);
        }
        Ok(Hierarchies::sorted(list))
    }

    fn sorted(mut list: Vec<Hierarchy>) -> Hierarchies {
        list.sort_by_key(|hierarchy| hierarchy.version == Version::V1);
        Hierarchies { list }
    }

    /// v1, v2 or both.
    pub fn mode(&self) -> Mode {
        let v1 = self.list.iter().any(|hierarchy| hierarchy.version == Version::V1);
        match (v1, self.v2().is_some()) {
            (true, true) => Mode::Hybrid,
            (true, false) => Mode::V1,
            (false, _) => Mode::V2,
        }
    }

    /// All of them, the v2 one first.
    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.list.iter()
    }

    /// The v2 hierarchy.
    pub fn v2(&self) -> Option<&Hierarchy> {
        self.list.first().filter(|hierarchy| hierarchy.version == Version::V2)
    }

    /// The v1 hierarchy of a controller.
    pub fn v1(&self, controller: &str) -> Option<&Hierarchy> {
        self.list.iter().find(|hierarchy| hierarchy.controllers.iter().any(|known| known == controller))
    }

    /// Hierarchies somewhere else than this system's, for tests against a directory that looks like one.
    #[cfg(test)]
    pub(crate) fn fixture(list: Vec<Hierarchy>) -> Hierarchies {
        Hierarchies { list }
    }
}

/// The v2 hierarchy at a mount point.
pub(crate) fn unified(mount_point: PathBuf) -> Hierarchy {
    Hierarchy { version: Version::V2, mount_point, controllers: Vec::new(), name: None }
}

/// Why no hierarchy has a controller, from the text of `/proc/cgroups` (cgroups(7)).
pub(crate) fn why_missing(controller: &str, proc_cgroups: &str) -> String {
    let v1_name = if controller == "io" { "blkio" } else { controller };
    let line = proc_cgroups.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    match line.into_iter().find(|fields| fields.first() == Some(&v1_name)) {
        None => format!("this kernel was built without the {controller} controller"),
        Some(fields) if fields.get(3) == Some(&"0") => {
            format!("the {controller} controller is switched off on the kernel command line (cgroup_disable={v1_name})")
        }
        Some(_) => format!("the {controller} controller is not in any mounted cgroup hierarchy"),
    }
}

/// Names that are flags among the super options of a v1 mount, not controllers (`cgroup1_show_options` in
/// `kernel/cgroup/cgroup-v1.c`).
const V1_FLAGS: [&str; 9] =
    ["rw", "ro", "noprefix", "xattr", "cpuset_v2_mode", "clone_children", "favordynmods", "none", "all"];

/// A cgroup mount of mountinfo.
struct Mount {
    /// Which directory of the hierarchy is mounted.
    root: String,
    hierarchy: Hierarchy,
}

/// One line of mountinfo: `ID PARENT MAJ:MIN ROOT MOUNT_POINT OPTIONS [TAG]... - FSTYPE SOURCE SUPER_OPTIONS`.
fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let version = match after.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = after.nth(1)?;
    let mut before = before.split(' ').skip(3);
    let root = unescape(before.next()?);
    let mut hierarchy = unified(PathBuf::from(unescape(before.next()?)));
    if version == Version::V1 {
        hierarchy.version = version;
        for option in options.split(',').filter(|option| !V1_FLAGS.contains(option) && !option.is_empty()) {
            match option.split_once('=') {
                Some(("name", value)) => hierarchy.name = Some(value.to_owned()),
                Some(_) => {}
                None => hierarchy.controllers.push(option.to_owned()),
            }
        }
    }
    Some(Mount { root, hierarchy })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits after a backslash.
fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let octal = bytes.get(index + 1..index + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| bytes[index] == b'\\') {
            Some(byte) => {
                out.push(byte);
                index += 4;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the process of `groups` (`/proc/PID/cgroup`) is in a hierarchy, below its mount point and without a leading
/// slash; `None` when it is not below it or when that cannot be known.
pub(super) fn own_path(mountinfo: &str, groups: &str, hierarchy: &Hierarchy) -> Option<String> {
    let mut mounts = mountinfo.lines().filter_map(parse_mount);
    let root = mounts.rfind(|mount| mount.hierarchy == *hierarchy)?.root;
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, listed, path) = (fields.next()?, fields.next()?, fields.next()?);
        let wanted = match (hierarchy.controllers.first(), &hierarchy.name) {
            (Some(first), _) => listed.split(',').any(|one| one == first),
            (None, Some(name)) => listed.strip_prefix("name=") == Some(name),
            (None, None) => listed.is_empty(),
        };
        wanted.then(|| below(&root, path.trim_start_matches('/')))?
    })
}

/// `own` (without leading slash) as seen from the mount's root; `None` when it is not below it, or when either is
/// above the root of the cgroup namespace (`/..`, cgroup_namespaces(7)) and so cannot be known.
fn below(root: &str, own: &str) -> Option<String> {
    let root = root.trim_matches('/');
    if root.starts_with("..") || own.starts_with("..") {
        return None;
    }
    match own.strip_prefix(root)? {
        "" => Some(String::new()),
        rest if root.is_empty() => Some(rest.to_owned()),
        rest => rest.strip_prefix('/').map(str::to_owned),
    }
}

fn is_usual(mount_point: &Path) -> bool {
    mount_point.starts_with(CGROUP_MOUNT)
}

fn is_mounted(path: &Path, version: Version) -> bool {
    let magic = match version {
        Version::V1 => statfs::CGROUP_SUPER_MAGIC,
        Version::V2 => statfs::CGROUP2_SUPER_MAGIC,
    };
    statfs::statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
}

fn read(path: &'static str) -> Result<String> {
    let bytes: io::Result<Vec<u8>> = fs::read(path);
    let bytes = bytes.map_err(Error::io("read", Path::new(path)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
