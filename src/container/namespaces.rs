//! Namespaces: which ones clone3(2) makes, which ones the creator joins around it, and identity maps.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Step};
use crate::plan::{IdMap, IdMaps, Namespace, Namespaces};
use crate::sys;

/// `CLONE_NEWTIME` (clone3(2) only).
const CLONE_NEWTIME: i32 = 0x80;

/// Each kind: its flag, its file below `/proc/PID/ns`, and what the plan says of it.
fn kinds(namespaces: &Namespaces) -> [(i32, &'static str, &Namespace); 8] {
    [
        (libc::CLONE_NEWUSER, "user", &namespaces.user),
        (libc::CLONE_NEWNS, "mnt", &namespaces.mount),
        (libc::CLONE_NEWPID, "pid", &namespaces.pid),
        (libc::CLONE_NEWIPC, "ipc", &namespaces.ipc),
        (libc::CLONE_NEWUTS, "uts", &namespaces.uts),
        (libc::CLONE_NEWNET, "net", &namespaces.net),
        (libc::CLONE_NEWCGROUP, "cgroup", &namespaces.cgroup),
        (CLONE_NEWTIME, "time", &namespaces.time),
    ]
}

/// Flags of clone3(2). The cgroup namespace is not among them: its root is the cgroup of whoever makes it, and the
/// child enters its own cgroups first.
pub(crate) fn clone_flags(namespaces: &Namespaces) -> u64 {
    kinds(namespaces)
        .into_iter()
        .filter(|(flag, _, wanted)| **wanted == Namespace::New && *flag != libc::CLONE_NEWCGROUP)
        .fold(0, |flags, (flag, _, _)| flags | flag as u64)
}

/// Flags of setns(2) to enter a container of this plan: every namespace that may differ from the creator's.
pub(crate) fn enter_flags(namespaces: &Namespaces) -> i32 {
    let differs = |flag: i32, wanted: &Namespace| match wanted {
        Namespace::New => true,
        // Entering one's own user namespace again is an error (setns(2)).
        Namespace::Join(_) => flag != libc::CLONE_NEWUSER,
        Namespace::Inherit => false,
    };
    kinds(namespaces)
        .into_iter()
        .filter(|(flag, _, wanted)| differs(*flag, wanted))
        .fold(0, |flags, (flag, _, _)| flags | flag)
}

/// The creator's stay in the namespaces that a plan joins; it goes home when this is dropped.
///
/// A child inherits them from its creator, which is simpler than joining in the child: a child in a new user namespace
/// may not, and a PID namespace can only be entered by being born in it.
#[derive(Debug)]
pub(crate) struct Visit {
    home: Vec<(i32, OwnedFd)>,
}

impl Visit {
    pub(crate) fn joined(namespaces: &Namespaces) -> Result<Self, Error> {
        let mut visit = Self { home: Vec::new() };
        for (flag, name, wanted) in kinds(namespaces) {
            let Namespace::Join(path) = wanted else { continue };
            if matches!(flag, libc::CLONE_NEWNS | libc::CLONE_NEWUSER) {
                return Err(Error::new(format!("join the {name} namespace {path}"), "it is not supported"));
            }
            let there = File::open(path).step(|| format!("open the {name} namespace {path}"))?;
            visit.enter(flag, name, &there.into())?;
        }
        Ok(visit)
    }

    /// Enters one namespace until the visit ends.
    pub(crate) fn enter(&mut self, flag: i32, name: &str, there: &OwnedFd) -> Result<(), Error> {
        let home = File::open(format!("/proc/self/ns/{name}")).step(|| format!("open the own {name} namespace"))?;
        sys::setns(there.as_fd(), flag).step(|| format!("join a {name} namespace"))?;
        self.home.push((flag, home.into()));
        Ok(())
    }

    pub(crate) fn new() -> Self {
        Self { home: Vec::new() }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for (flag, home) in self.home.drain(..) {
            // Going home is always allowed; if it were not, everything after would happen in the wrong place.
            if sys::setns(home.as_fd(), flag).is_err() {
                std::process::abort();
            }
        }
    }
}

/// Writes the identity maps of a process that was born in a new user namespace (user_namespaces(7)).
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> Result<(), Error> {
    for (file, map) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        std::fs::write(format!("/proc/{pid}/{file}"), map_text(map)).step(|| format!("write {file}"))?;
    }
    Ok(())
}

fn map_text(map: &[IdMap]) -> String {
    map.iter().map(|line| format!("{} {} {}\n", line.inside, line.outside, line.count)).collect()
}

/// A user namespace with these maps that no process lives in, for idmapped mounts.
pub fn user_namespace(maps: &IdMaps) -> Result<OwnedFd, Error> {
    let step = || "make a user namespace".to_owned();
    let (ours, theirs) = crate::channel::Channel::pair().step(step)?;
    let (pid, _pidfd) = match sys::clone3(libc::CLONE_NEWUSER as u64, None).step(step)? {
        sys::Cloned::Child => {
            drop(ours);
            // Lives until the creator lets go of its end.
            let _ = theirs.receive();
            sys::exit_now(0);
        }
        sys::Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let made = write_maps(pid, maps)
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")).step(|| "open the user namespace".into()));
    drop(ours);
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
    made.map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(of: &Namespace) -> Namespaces {
        Namespaces {
            mount: of.clone(),
            pid: of.clone(),
            ipc: of.clone(),
            uts: of.clone(),
            net: of.clone(),
            cgroup: of.clone(),
            user: of.clone(),
            time: of.clone(),
        }
    }

    #[test]
    fn flags_follow_the_plan() {
        assert_eq!(clone_flags(&all(&Namespace::Inherit)), 0);
        let new = clone_flags(&all(&Namespace::New));
        assert_eq!(new & libc::CLONE_NEWCGROUP as u64, 0);
        assert_ne!(new & CLONE_NEWTIME as u64, 0);
        let enter = enter_flags(&all(&Namespace::Join("x".into())));
        assert_eq!(enter & libc::CLONE_NEWUSER, 0);
        assert_ne!(enter & libc::CLONE_NEWNET, 0);
    }

    #[test]
    fn maps_are_written_line_by_line() {
        let map = [IdMap { inside: 0, outside: 100_000, count: 65536 }, IdMap { inside: 65536, outside: 1, count: 1 }];
        assert_eq!(map_text(&map), "0 100000 65536\n65536 1 1\n");
    }

    #[test]
    fn a_user_namespace_without_a_process_keeps_its_maps() {
        let map = vec![IdMap { inside: 0, outside: 100_000, count: 65536 }];
        let namespace = user_namespace(&IdMaps { uids: map.clone(), gids: map }).unwrap();
        assert!(nix::sys::stat::fstat(&namespace).unwrap().st_ino > 0);
    }
}
