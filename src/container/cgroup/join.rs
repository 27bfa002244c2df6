//! Entering a cgroup from the inside: what a child does between clone3(2) and execve(2).

use std::fs::{File, OpenOptions};

use nix::errno::Errno;
use nix::unistd;

use super::error::{Error, Result};
use super::{Cgroup, Version};

/// The files of a cgroup that take threads in, open for writing, so that a child needs neither paths nor memory. Those
/// of v1 hierarchies: v2 takes a process in without waiting only when it is born, see [`Cgroup::directory_v2`].
///
/// The right to move a process is judged by the credentials of whoever opened the files
/// (`cgroup_attach_permissions`, kernel 5.16), so a child may call this after it gave its own up.
#[derive(Debug)]
pub struct JoinFiles {
    /// `tasks` of the v1 hierarchies.
    v1: Vec<File>,
}

impl JoinFiles {
    pub(super) fn open(cgroup: &Cgroup) -> Result<JoinFiles> {
        let mut files = JoinFiles { v1: Vec::with_capacity(cgroup.places.len()) };
        for place in cgroup.places.iter().filter(|place| place.version == Version::V1) {
            let path = place.directory.join("tasks");
            files.v1.push(OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))?);
        }
        Ok(files)
    }

    /// Moves the calling thread into the v1 cgroups; for a child with a single thread that was born in the v2 cgroup
    /// (`CLONE_INTO_CGROUP` with [`Cgroup::directory_v2`]). Async-signal-safe.
    pub fn join_v1(&self) -> std::result::Result<(), Errno> {
        self.v1.iter().try_for_each(enter)
    }
}

/// `0` is the calling thread, whatever PID namespace it is in (`cgroup_procs_write_start`).
fn enter(file: &File) -> std::result::Result<(), Errno> {
    loop {
        match unistd::write(file, b"0") {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}
