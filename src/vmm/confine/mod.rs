//! What keeps a guest that has taken over its machine's process from getting anywhere: before the first instruction of the
//! guest, with everything opened, the process gives up what it does not need.
//!
//! First the process ([`Confinement::enter`], with a single thread): limits, namespaces of its own, an empty root, no
//! privileges to gain, an unprivileged user. Then each thread ([`Threads::enter`]): no capabilities, and a filter that lets
//! it make the few system calls that its work needs. A device whose work needs capabilities (a file server creates files
//! for others) keeps those on its thread alone, and on the one that makes devices for a guest that runs, if there is one.

mod bpf;
mod calls;
mod root;
mod sys;

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A capability by its number (include/uapi/linux/capability.h).
pub type Capability = u8;

/// What a file server needs that acts for the users of its guest: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID,
/// SETGID, SETUID, MKNOD, SETFCAP.
pub const FILE_SERVER: [Capability; 9] = [0, 1, 2, 3, 4, 6, 7, 27, 31];

const SYS_ADMIN: Capability = 21;
/// Capabilities are 64 at most; those that the kernel does not have end the loop.
const CAPABILITIES: std::ops::Range<u64> = 0..64;

/// How a machine's process is confined; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// User that the process becomes. Must be the process' own where it may not become another.
    pub uid: u32,
    /// Group that the process becomes.
    pub gid: u32,
    /// The most open files.
    pub files: u64,
    /// The largest file that it may write, in bytes: the serial port's output, disks and shared files count too.
    pub file_size: Option<u64>,
    /// Capabilities that threads of devices keep, by the device's kind.
    pub kept: Vec<(u32, Vec<Capability>)>,
}

/// Whose thread it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that waits for the machine's end.
    Main,
    /// One that runs the guest.
    Vcpu,
    /// A device's, with its kind.
    Device(u32),
    /// The one that makes devices while the guest runs, and their threads, which then enter their own role.
    Maker,
}

/// What is left to do on each thread of a confined process.
#[derive(Clone, Debug)]
pub struct Threads {
    kept: Vec<(u32, u64)>,
}

impl Confinement {
    /// Confines the process, which must have a single thread. Afterwards it can open nothing by name, and threads that it
    /// makes have the capabilities that some device keeps, until [`Threads::enter`].
    pub fn enter(&self) -> Result<Threads> {
        single_thread()?;
        let kept: Vec<(u32, u64)> = self.kept.iter().map(|(kind, list)| (*kind, bits(list))).collect();
        self.limit()?;
        let rootless = sys::capabilities().map_err(Error::host("capget"))? & bits(&[SYS_ADMIN]) == 0;
        if rootless {
            self.become_root_of_a_user_namespace()?;
        }
        let own =
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(own).map_err(Error::host("make namespaces for the machine"))?;
        root::empty()?;
        self.give_up_privileges(rootless, kept.iter().fold(0, |all, (_, bits)| all | bits))?;
        Ok(Threads { kept })
    }

    fn limit(&self) -> Result<()> {
        let mut limits = vec![(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NOFILE, self.files)];
        limits.extend(self.file_size.map(|bytes| (Resource::RLIMIT_FSIZE, bytes)));
        for (resource, limit) in limits {
            setrlimit(resource, limit, limit).map_err(Error::host(format!("set {resource:?} to {limit}")))?;
        }
        Ok(())
    }

    /// Without privileges, namespaces are had in a user namespace, in which the process is who it was.
    fn become_root_of_a_user_namespace(&self) -> Result<()> {
        let (uid, gid) = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if (uid, gid) != (self.uid, self.gid) {
            return Err(Error::Config(format!(
                "the machine's process cannot become user {} and group {} without privileges; it is {uid} and {gid}",
                self.uid, self.gid
            )));
        }
        unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::host("make a user namespace for the machine"))?;
        let write = |file: &str, text: String| fs::write(file, text).map_err(Error::host(format!("write {file}")));
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        write("/proc/self/gid_map", format!("{gid} {gid} 1"))
    }

    fn give_up_privileges(&self, rootless: bool, kept: u64) -> Result<()> {
        let refused = |step: &'static str| move |error: io::Error| Error::host(step)(error);
        for capability in CAPABILITIES {
            match sys::prctl(libc::PR_CAPBSET_DROP, capability) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                result => result.map_err(refused("empty the capability bounding set"))?,
            }
        }
        // From here on a change of user takes no capabilities, being user 0 gives none, and neither changes back.
        let bits = libc::SECBIT_NO_SETUID_FIXUP
            | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
            | libc::SECBIT_NOROOT
            | libc::SECBIT_NOROOT_LOCKED
            | libc::SECBIT_NO_CAP_AMBIENT_RAISE
            | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
        sys::prctl(libc::PR_SET_SECUREBITS, bits as libc::c_ulong).map_err(refused("PR_SET_SECUREBITS"))?;
        if !rootless {
            setgroups(&[]).map_err(Error::host("leave all groups"))?;
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            setresgid(gid, gid, gid).map_err(Error::host(format!("become group {gid}")))?;
            setresuid(uid, uid, uid).map_err(Error::host(format!("become user {uid}")))?;
        }
        sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(refused("PR_SET_DUMPABLE"))?;
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(refused("PR_SET_NO_NEW_PRIVS"))?;
        sys::set_capabilities(kept).map_err(refused("give up capabilities"))
    }
}

impl Threads {
    /// Confines the calling thread for good.
    pub fn enter(&self, role: Role) -> Result<()> {
        let kept = self.kept.iter().filter(|(kind, _)| matches!(role, Role::Maker) || role == Role::Device(*kind));
        let kept = kept.fold(0, |all, (_, bits)| all | bits);
        sys::set_capabilities(kept).map_err(Error::host("give up capabilities"))?;
        let calls = match role {
            Role::Main => calls::MAIN.concat(),
            Role::Vcpu => calls::VCPU.concat(),
            Role::Device(kind) => calls::device(kind).concat(),
            Role::Maker => calls::MAKER.concat(),
        };
        sys::install_filter(&mut bpf::assemble(&calls)).map_err(Error::host("install a seccomp filter"))
    }
}

fn bits(capabilities: &[Capability]) -> u64 {
    capabilities.iter().filter(|number| **number < 64).fold(0, |bits, number| bits | 1 << number)
}

/// Users, namespaces and roots are set for one thread; another would keep what it has.
fn single_thread() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task").map_err(Error::host("count the threads of this process"))?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(Error::Config(format!("a process with {threads} threads cannot be confined, only one with one")))
    }
}
