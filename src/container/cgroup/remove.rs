//! Removing cgroups: one that is no longer needed, and those that a crash left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::error::{Error, Result};
use super::files::{self, Patience};
use super::hierarchy::{Hierarchies, Hierarchy};
use super::{Cgroup, check_path, processes};

/// How long a cgroup may stay busy after its last process was seen to exit.
const REMOVE_TIME: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Removes the directories, cgroups nested in them first. Directories that are gone are fine, so it can be
    /// repeated; processes that are still inside are an error after some seconds, see [`Cgroup::kill`].
    pub fn remove(&self) -> Result<()> {
        // Backwards: the first hierarchy, where `reap` looks, keeps its directory the longest.
        self.places.iter().rev().try_for_each(|place| remove_tree(&place.directory))
    }
}

/// Removes every cgroup `<parent>/<64 hexadecimal digits>` that `live` does not know, in all hierarchies, and kills
/// what is inside. Says which they were. Costs one directory listing and one stat(2) for each further hierarchy when
/// there is nothing to do.
pub fn reap(hierarchies: &Hierarchies, parent: &str, live: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let parent = match parent.trim_matches('/') {
        "" => "",
        parent => check_path(parent)?,
    };
    let mut ids = BTreeSet::new();
    let mut children_of_first = 0;
    for (index, hierarchy) in hierarchies.iter().enumerate() {
        let directory = hierarchy.mount_point.join(parent);
        // cgroup file systems count directories in st_nlink (kernfs: `2 + subdirs`): as many as in the first
        // hierarchy means the same ones. That is so but for crashes in the middle of `create` and `remove`.
        if index > 0 && subdirectories(&directory) <= children_of_first {
            continue;
        }
        let names = container_names(&directory)?;
        if index == 0 {
            children_of_first = names.len() as u64;
        }
        ids.extend(names);
    }
    let mut reaped = Vec::new();
    for id in ids {
        if live(&id) {
            continue;
        }
        let path = if parent.is_empty() { id.clone() } else { format!("{parent}/{id}") };
        let cgroup = Cgroup::open(hierarchies, &path)?;
        cgroup.kill()?;
        cgroup.remove()?;
        reaped.push(id);
    }
    Ok(reaped)
}

/// How many directories a directory holds; 0 when it is not there.
fn subdirectories(directory: &Path) -> u64 {
    fs::metadata(directory).map_or(0, |found| found.nlink().saturating_sub(2))
}

/// The directories in a directory that are named like containers.
fn container_names(directory: &Path) -> Result<Vec<String>> {
    let children = processes::children(directory)?;
    let names = children.iter().filter_map(|child| child.file_name()?.to_str().map(str::to_owned));
    Ok(names.filter(|name| is_container_id(name)).collect())
}

fn is_container_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Removes what a failed creation made in one hierarchy; there is nothing to do about a failure of that.
pub(super) fn undo(hierarchy: &Hierarchy, path: &str) {
    let _ = fs::remove_dir(hierarchy.mount_point.join(path));
}

fn remove_tree(directory: &Path) -> Result<()> {
    let mut patience = Patience::new(REMOVE_TIME);
    loop {
        // Nothing is nested as a rule: one rmdir(2).
        let Err(error) = rmdir(directory) else {
            return Ok(());
        };
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(Error::Io { step: "remove cgroup", path: directory.to_path_buf(), source: error });
        }
        let tree = processes::tree(directory)?;
        let nested = tree.len() > 1;
        for child in tree.iter().skip(1).rev() {
            match rmdir(child) {
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                    return Err(Error::Io { step: "remove cgroup", path: child.clone(), source: error });
                }
                _ => {}
            }
        }
        if nested && rmdir(directory).is_ok() {
            return Ok(());
        }
        if !patience.wait() {
            let left = processes::below(directory)?;
            let detail = match left.is_empty() {
                true => String::new(),
                false => format!("; these processes are still in it: {left:?}"),
            };
            return Err(patience.over("remove cgroup", directory, detail));
        }
    }
}

/// rmdir(2) that is content with a directory that is gone.
fn rmdir(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if files::is_gone(&error) => Ok(()),
        other => other,
    }
}
