//! Control groups: where a container is accounted, limited, frozen and killed.
//!
//! One [`Cgroup`] is a directory of the same name in every mounted hierarchy. All of them, not only those with a
//! limit: membership is what statistics, `kill` and the view from inside need, and a hierarchy that a container has
//! not joined would show it the accounts of whoever made it.
//!
//! ```text
//!   Hierarchies::detect ── Cgroup::create ── join_files, directory_v2 ──> child: clone3 + JoinFiles::join_self
//!                              │
//!                              ├─ update  freeze  thaw  stats  pids  oom_watch
//!                              └─ kill ── remove          (Cgroup::open and reap do the same after a crash)
//! ```
//!
//! Every controller is looked up by itself (`Cgroup::place`), so v1, v2 and hybrid systems take the same path: what
//! differs is only which of `v1` and `v2` writes the files of one controller.
//!
//! What it costs (ten hierarchies, medians): ten mkdir 450 µs (cpu 92, memory 80, the others 21 to 48), nine opens of
//! `tasks` 110 µs, nine joins 110 µs, ten rmdir 270 µs; all of it kernel time. A process enters a v1 cgroup by writing
//! `0` to `tasks` itself, which does not take `cgroup_threadgroup_rwsem` and so does not wait for an RCU grace period
//! (up to 7 ms), and a v2 cgroup at birth.
//!
//! The v2 hierarchy is created first and removed last, so that a directory that is left over anywhere is, with
//! rare exceptions that [`reap`] also finds, left over there.

mod block;
mod cpu;
mod device_program;
mod devices;
mod error;
mod files;
mod hierarchy;
mod join;
mod limits;
mod make;
mod memory;
mod oom;
mod processes;
mod remove;
mod stats;
mod sys;
#[cfg(test)]
mod tests;
mod view;

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::plan::{CgroupPlan, Resources};
use limits::Phase;

pub use error::{Error, Result};
pub use hierarchy::{CGROUP_MOUNT, Hierarchies, Hierarchy, Mode, Version};
pub use join::JoinFiles;
pub use oom::OomWatch;
pub use remove::reap;
pub use stats::{BlockCount, BlockStats, CpuStats, MemoryStats, PidsStats, Stats};
pub use view::{ViewMount, inside_view};

/// A cgroup of one container: one directory in every hierarchy. Dropping it leaves the directories as they are.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    /// In the order of [`Hierarchies::iter`].
    places: Vec<Place>,
    /// The v2 directory, open for `CLONE_INTO_CGROUP` and for device programs.
    v2: Option<OwnedFd>,
}

/// The directory of a cgroup in one hierarchy.
#[derive(Debug)]
struct Place {
    version: Version,
    /// Mount point of the hierarchy.
    top: PathBuf,
    /// The cgroup's directory.
    directory: PathBuf,
    /// v1: of the hierarchy. v2: as listed in `cgroup.controllers` of the directory.
    controllers: Vec<String>,
}

impl Place {
    /// By the name that this place's version has for it.
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }
}

impl Cgroup {
    /// Makes the cgroup in every hierarchy and sets its limits. Parents are made where they are missing. A cgroup
    /// that exists is taken when it is empty and refused when it is not. On failure nothing new stays but parents.
    pub fn create(hierarchies: &Hierarchies, plan: &CgroupPlan) -> Result<Cgroup> {
        let path = check_path(&plan.path)?;
        let mut made = Vec::new();
        let result = make_in_all(hierarchies, path, &plan.resources, &mut made);
        if result.is_err() {
            made.iter().rev().for_each(|hierarchy| remove::undo(hierarchy, path));
        }
        result
    }

    /// The cgroup as it exists: in all hierarchies, in some after a crash, or in none.
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Cgroup> {
        let path = check_path(path)?;
        let mut places = Vec::new();
        for hierarchy in hierarchies.iter() {
            let directory = hierarchy.mount_point.join(path);
            if !directory.is_dir() {
                continue;
            }
            let controllers = match hierarchy.version {
                Version::V1 => hierarchy.controllers.clone(),
                Version::V2 => make::controllers(&directory).unwrap_or_default(),
            };
            let (version, top) = (hierarchy.version, hierarchy.mount_point.clone());
            places.push(Place { version, top, directory, controllers });
        }
        let v2 = places.iter().find(|place| place.version == Version::V2);
        // Gone again between the two looks is the same as not there.
        let v2 = v2.and_then(|place| open_directory(&place.directory).ok());
        Ok(Cgroup { path: path.to_owned(), places, v2 })
    }

    /// Its path below the top of every hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether any of its directories exists.
    pub fn exists(&self) -> bool {
        self.places.iter().any(|place| place.directory.is_dir())
    }

    /// The directory in the v2 hierarchy, for clone3(2) with `CLONE_INTO_CGROUP`.
    pub fn directory_v2(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Opens what a child needs to enter the v1 hierarchies by itself.
    pub fn join_files(&self) -> Result<JoinFiles> {
        JoinFiles::open(self)
    }

    /// Moves a process in, with all its threads. Slower than [`JoinFiles`], which a child can use on itself.
    pub fn add(&self, pid: i32) -> Result<()> {
        for place in &self.places {
            let file = place.directory.join("cgroup.procs");
            files::write(&file, &pid.to_string()).map_err(Error::io("move a process to", &place.directory))?;
        }
        Ok(())
    }

    /// Sets the limits that are given and leaves the others as they are.
    pub fn update(&mut self, resources: &Resources) -> Result<()> {
        let needs = limits::needs(resources);
        if !needs.is_empty() {
            for place in self.places.iter_mut().filter(|place| place.version == Version::V2) {
                place.controllers = make::delegate(&place.top, &self.path, &needs)?;
            }
        }
        limits::apply(self, resources, Phase::Live)
    }

    /// Where a controller is; by its v2 name.
    fn place(&self, controller: &str) -> Option<&Place> {
        let v1_name = if controller == "io" { "blkio" } else { controller };
        self.places.iter().find(|place| match place.version {
            Version::V1 => place.has(v1_name),
            Version::V2 => place.has(controller),
        })
    }

    /// Where a controller is that an option needs.
    fn require(&self, setting: &str, controller: &str) -> Result<&Place> {
        self.place(controller).ok_or_else(|| {
            let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
            Error::unsupported(setting, hierarchy::why_missing(controller, &known))
        })
    }
}

/// Makes the directories, notes the hierarchies where they are new, and sets the limits.
fn make_in_all<'a>(
    hierarchies: &'a Hierarchies,
    path: &str,
    resources: &Resources,
    new: &mut Vec<&'a Hierarchy>,
) -> Result<Cgroup> {
    let needs = limits::needs(resources);
    let mut cgroup = Cgroup { path: path.to_owned(), places: Vec::new(), v2: None };
    for hierarchy in hierarchies.iter() {
        let made = make::directory(hierarchy, path)?;
        if made.new {
            new.push(hierarchy);
        }
        let (version, top, directory) = (hierarchy.version, hierarchy.mount_point.clone(), made.directory);
        let controllers = match version {
            Version::V1 => hierarchy.controllers.clone(),
            Version::V2 => {
                let here = open_directory(&directory).map_err(Error::io("open", &directory))?;
                cgroup.v2 = Some(here);
                make::delegate(&top, path, &needs)?
            }
        };
        cgroup.places.push(Place { version, top, directory, controllers });
    }
    limits::apply(&cgroup, resources, Phase::Fresh)?;
    Ok(cgroup)
}

fn open_directory(directory: &Path) -> std::io::Result<OwnedFd> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory).map(|file: File| file.into())
}

/// A path that stays below the top of a hierarchy; a leading slash is taken off.
fn check_path(path: &str) -> Result<&str> {
    let bad = |reason| Err(Error::BadPath { path: path.to_owned(), reason });
    let below = path.strip_prefix('/').unwrap_or(path);
    if below.len() > 3072 || below.contains(['\0', '\n']) {
        return bad("it is too long or holds a line break or NUL");
    }
    for component in below.split('/') {
        match component {
            "" => return bad("it has an empty component"),
            "." | ".." => return bad("it has a component . or .."),
            long if long.len() > 255 => return bad("it has a component of more than 255 bytes"),
            _ => {}
        }
    }
    Ok(below)
}
