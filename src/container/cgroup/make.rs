//! Making the directories of a cgroup so that they can be joined and limited.
//!
//! In the usual case every parent exists and one mkdir(2) for each hierarchy does it. The first start after boot, or
//! with a new parent, comes the slow way: parents from the top down, each prepared for its children.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::files;
use super::hierarchy::{Hierarchy, Version};
use super::limits::Need;

/// Controllers that every cgroup of a container should have on v2, for statistics and for later limits.
const WANTED_V2: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// A directory that now exists.
pub(super) struct Made {
    /// Where.
    pub(super) directory: PathBuf,
    /// Whether it was made just now, and so is to be removed when a later step fails.
    pub(super) new: bool,
}

/// Makes the directory of a cgroup in one hierarchy. On v2 this is only the directory; see [`delegate`].
pub(super) fn directory(hierarchy: &Hierarchy, path: &str) -> Result<Made> {
    let directory = hierarchy.mount_point.join(path);
    let mut made = mkdir(&directory);
    if matches!(&made, Err(error) if error.kind() == ErrorKind::NotFound) {
        parents(hierarchy, path)?;
        made = mkdir(&directory);
    }
    let new = made.map_err(Error::io("create cgroup", &directory))?;
    if !new {
        refuse_occupied(&directory)?;
    }
    if has_cpuset_v1(hierarchy) {
        inherit_cpuset(&hierarchy.mount_point, &directory)?;
    }
    Ok(Made { directory, new })
}

/// Makes every parent of `path`.
fn parents(hierarchy: &Hierarchy, path: &str) -> Result<()> {
    let mut directory = hierarchy.mount_point.clone();
    let (parents, _) = path.rsplit_once('/').unwrap_or(("", path));
    for component in parents.split('/').filter(|component| !component.is_empty()) {
        directory.push(component);
        let new = mkdir(&directory).map_err(Error::io("create cgroup", &directory))?;
        if new && has_cpuset_v1(hierarchy) {
            inherit_cpuset(&hierarchy.mount_point, &directory)?;
            // Children made from now on start with this one's processors and memory nodes.
            let clone = directory.join("cgroup.clone_children");
            files::write(&clone, "1").map_err(Error::io("write", &clone))?;
        }
    }
    Ok(())
}

/// Whether the directory is new; one that existed is as good.
fn mkdir(directory: &Path) -> io::Result<bool> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// An existing cgroup may be used when it is empty: a path from `--cgroup-parent` can have been prepared.
fn refuse_occupied(directory: &Path) -> Result<()> {
    match super::processes::below(directory)?.len() {
        0 => Ok(()),
        processes => Err(Error::InUse { path: directory.to_path_buf(), processes }),
    }
}

fn has_cpuset_v1(hierarchy: &Hierarchy) -> bool {
    hierarchy.version == Version::V1 && hierarchy.controllers.iter().any(|controller| controller == "cpuset")
}

/// A v1 cpuset starts empty and takes nobody in until it has processors and memory nodes
/// (`Documentation/admin-guide/cgroup-v1/cpusets.rst`): fills it from its parent, which is filled first.
fn inherit_cpuset(top: &Path, directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.join(file);
        if directory == top || !files::read(&path)?.trim().is_empty() {
            continue;
        }
        let parent = directory.parent().unwrap_or(top);
        inherit_cpuset(top, parent)?;
        let value = files::read(&parent.join(file))?;
        files::write(&path, value.trim()).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Passes v2 controllers down from the top to the parent of `path`, so that its directory has those that `needs`
/// asks for, and of the others those that can be had. Says which controllers the directory then has.
pub(super) fn delegate(top: &Path, path: &str, needs: &[Need]) -> Result<Vec<String>> {
    let directory = top.join(path);
    let has = controllers(&directory)?;
    let mut missing: Vec<&str> = Vec::new();
    for wanted in WANTED_V2.into_iter().chain(needs.iter().map(|need| need.controller.as_str())) {
        if !has.iter().any(|has| has == wanted) && !missing.contains(&wanted) {
            missing.push(wanted);
        }
    }
    if missing.is_empty() {
        return Ok(has);
    }
    let available = controllers(top)?;
    missing.retain(|controller| available.iter().any(|available| available == controller));
    if missing.is_empty() {
        return Ok(has);
    }
    let mut parent = top.to_path_buf();
    pass_down(top, &parent, &missing, needs)?;
    let (parents, _) = path.rsplit_once('/').unwrap_or(("", path));
    for component in parents.split('/').filter(|component| !component.is_empty()) {
        parent.push(component);
        pass_down(top, &parent, &missing, needs)?;
    }
    controllers(&directory)
}

/// Enables controllers for the children of one directory. One that a limit needs must succeed; the others may fail,
/// and whoever looks for them later finds them missing.
fn pass_down(top: &Path, parent: &Path, wanted: &[&str], needs: &[Need]) -> Result<()> {
    let file = parent.join("cgroup.subtree_control");
    let enabled = files::read(&file)?;
    let mut rest: Vec<&str> = Vec::new();
    for controller in wanted {
        if !enabled.split_whitespace().any(|enabled| enabled == *controller) {
            rest.push(controller);
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = rest.iter().map(|controller| format!("+{controller}")).collect();
    if files::write(&file, &all.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in rest {
        let value = format!("+{controller}");
        let Err(mut source) = files::write(&file, &value) else {
            continue;
        };
        let Some(need) = needs.iter().find(|need| need.controller == controller) else {
            continue;
        };
        if source.raw_os_error() == Some(libc::EBUSY) && parent == top {
            make_room(top)?;
            match files::write(&file, &value) {
                Ok(()) => continue,
                Err(error) => source = error,
            }
        }
        let setting = need.setting.clone();
        return Err(Error::Delegation {
            setting,
            controller: need.controller.clone(),
            directory: parent.to_path_buf(),
            source,
        });
    }
    Ok(())
}

/// The "no internal processes" rule (cgroup-v2.rst, "No Internal Process Constraint") stops the top of a cgroup
/// namespace from passing controllers on while processes are in it; in a container, everything is. They are moved to
/// a child named `init`, which is accounted to the same top as before.
fn make_room(top: &Path) -> Result<()> {
    let child = top.join("init");
    mkdir(&child).map_err(Error::io("create cgroup", &child))?;
    let target = child.join("cgroup.procs");
    // A process that forks meanwhile leaves a child behind: again, until one reading is empty.
    for _ in 0..16 {
        let pids = super::processes::directly_in(top)?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            match files::write(&target, &pid.to_string()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(source) => {
                    return Err(Error::Io { step: "move a process to", path: child, source });
                }
            }
        }
    }
    Ok(())
}

/// What `cgroup.controllers` of a v2 directory lists.
pub(super) fn controllers(directory: &Path) -> Result<Vec<String>> {
    let text = files::read(&directory.join("cgroup.controllers"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
