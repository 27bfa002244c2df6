//! The child's half of making a container: from a bare clone in new namespaces to the user's program.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid, setsid};

use crate::cgroup::{JoinFiles, ViewMount};
use crate::channel::{Channel, Word};
use crate::devices::{self, StagedDevices};
use crate::error::{Error, Step};
use crate::interfaces;
use crate::mounts::{self, Sources};
use crate::path::RootDir;
use crate::plan::{ContainerPlan, First, Namespace, TerminalSize};
use crate::process::{self, ProcessSetup, Program};
use crate::stdio::{TheirEnds, install_terminal};
use crate::sys::{self, AttributeChange, Recursion, attr};

/// Everything the child takes from its creator.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    pub(crate) plan: &'a ContainerPlan,
    pub(crate) channel: Channel,
    pub(crate) root: OwnedFd,
    pub(crate) stage: &'a Path,
    pub(crate) sources: Sources,
    pub(crate) devices: Option<StagedDevices>,
    pub(crate) cgroup: JoinFiles,
    pub(crate) cgroup_view: Vec<ViewMount>,
    pub(crate) pipes: Option<TheirEnds>,
    pub(crate) process: ProcessSetup<'a>,
    pub(crate) own_program: Option<OwnedFd>,
}

impl Child<'_> {
    /// Becomes the program, or tells the creator why not and ends.
    pub(crate) fn run(self) -> ! {
        let channel = match self.channel.as_fd().try_clone_to_owned() {
            Ok(socket) => Channel::from_socket(socket),
            Err(_) => sys::exit_now(1),
        };
        let Err(error) = self.become_program();
        // A creator that is gone cannot be told.
        let _ = channel.send(&Word::Failed(error));
        sys::exit_now(1);
    }

    fn become_program(self) -> Result<Infallible, Error> {
        self.settle()?;
        let terminal = self.build_root()?;
        self.channel.send(&Word::Prepared).step(|| "report".into())?;
        self.channel.expect(&Word::Start)?;
        self.finish()?;
        match &terminal {
            Some(peer) => install_terminal(peer)?,
            None => self.pipes.as_ref().map_or(Ok(()), TheirEnds::install)?,
        }
        drop(terminal);
        let program = match (self.plan.first, &self.own_program) {
            (First::Program, _) => Program::Own,
            (First::Reaper, Some(file)) => Program::Reaper(file),
            (First::Keeper, Some(file)) => Program::Keeper(file),
            (_, None) => return Err(Error::new("first process", "there is no program of ours to be it")),
        };
        self.process.run(program)
    }

    /// Identity, cgroups and session, before anything is mounted.
    fn settle(&self) -> Result<(), Error> {
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).step(|| "set the death signal".into())?;
        if self.plan.namespaces.user == Namespace::New {
            self.channel.expect(&Word::Mapped)?;
            become_root()?;
        } else {
            // Nobody in a PID namespace that is shared may look into this copy of the creator before it has become
            // the program (CVE-2016-9962).
            sys::prctl(libc::PR_SET_DUMPABLE, 0).step(|| "become undumpable".into())?;
        }
        self.cgroup.join_v1().step(|| "join the cgroups".into())?;
        if self.plan.namespaces.cgroup == Namespace::New {
            unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "make a cgroup namespace".into())?;
        }
        setsid().step(|| "make a session".into())?;
        umask(Mode::empty());
        Ok(())
    }

    /// Everything below the root, and the root itself. Returns the terminal's other end where there is one.
    fn build_root(&self) -> Result<Option<OwnedFd>, Error> {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .step(|| "make mounts private".into())?;
        let stage = open_directory(self.stage)?;
        sys::move_mount(self.root.as_fd(), stage.as_fd())
            .step(|| format!("attach the root to {}", self.stage.display()))?;
        let directory = open_directory(self.stage)?;
        let root = RootDir::new(directory.as_fd());
        mounts::attach(self.plan, &self.sources, &self.cgroup_view, root)?;
        devices::populate(self.plan, self.devices.as_ref(), root)?;
        root.make_directory(&self.plan.process.cwd)
            .step(|| format!("make the working directory {}", self.plan.process.cwd))?;
        nix::unistd::fchdir(&directory).step(|| "enter the root".into())?;
        sys::pivot_to_current_directory().step(|| "pivot_root".into())?;
        nix::unistd::chdir("/").step(|| "enter the root".into())?;
        self.name_machine()?;
        match self.plan.process.terminal {
            Some(size) => self.open_terminal(size).map(Some),
            None => Ok(None),
        }
    }

    fn name_machine(&self) -> Result<(), Error> {
        if self.plan.namespaces.uts != Namespace::New {
            return Ok(());
        }
        if let Some(name) = &self.plan.hostname {
            sethostname(name).step(|| format!("set host name {name}"))?;
        }
        if let Some(name) = &self.plan.domainname {
            sys::setdomainname(name).step(|| format!("set domain name {name}"))?;
        }
        Ok(())
    }

    fn open_terminal(&self, size: TerminalSize) -> Result<OwnedFd, Error> {
        let root = process::open_root()?;
        let (peer, master) = new_terminal(RootDir::new(root.as_fd()), size)?;
        devices::bind_console(peer.as_fd(), RootDir::new(root.as_fd()))?;
        self.channel.send_with(&Word::Terminal, master.as_fd()).step(|| "hand the terminal over".into())?;
        Ok(peer)
    }

    /// What needs the network or would hinder the steps before.
    fn finish(&self) -> Result<(), Error> {
        if self.plan.namespaces.net == Namespace::New {
            interfaces::configure(&self.plan.interfaces)?;
        }
        let root = process::open_root()?;
        let root = RootDir::new(root.as_fd());
        self.set_sysctls()?;
        devices::protect(&self.plan.readonly_paths, root)?;
        devices::mask(&self.plan.masked_paths, root)?;
        if self.plan.root.read_only {
            let top = process::open_root()?;
            let change = AttributeChange { set: attr::RDONLY, ..AttributeChange::default() };
            sys::mount_setattr(top.as_fd(), Recursion::Only, &change).step(|| "make the root read-only".into())?;
        }
        Ok(())
    }

    /// Writes kernel parameters through a procfs that no image and no other container can have touched
    /// (CVE-2025-52881).
    fn set_sysctls(&self) -> Result<(), Error> {
        if self.plan.sysctls.is_empty() {
            return Ok(());
        }
        let proc = sys::new_filesystem("proc", "proc", &[], 0).step(|| "open procfs".into())?;
        for (name, value) in &self.plan.sysctls {
            let path = format!("sys/{}", sysctl_path(name));
            sys::openat2(proc.as_fd(), Path::new(&path), OFlag::O_WRONLY.bits(), 0, sys::RESOLVE_IN_ROOT)
                .and_then(|file| Ok(nix::unistd::write(file, value.as_bytes())?))
                .step(|| format!("--sysctl {name}={value}"))?;
        }
        Ok(())
    }
}

/// `net.ipv4.ip_forward` → `net/ipv4/ip_forward`; names that use slashes swap the two, as sysctl(8) does.
fn sysctl_path(name: &str) -> String {
    let slash_first = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    if slash_first {
        return name.to_owned();
    }
    name.chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// Becomes root of a new user namespace.
pub(crate) fn become_root() -> Result<(), Error> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).step(|| "become group 0 of the user namespace".into())?;
    setresuid(uid, uid, uid).step(|| "become user 0 of the user namespace".into())?;
    setgroups(&[]).step(|| "drop supplementary groups".into())
}

/// A new terminal of the devpts below `root`: `(other end, master)`.
pub(crate) fn new_terminal(root: RootDir<'_>, size: TerminalSize) -> Result<(OwnedFd, OwnedFd), Error> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = root
        .open("/dev/pts/ptmx", flags)
        .or_else(|_| root.open("/dev/ptmx", flags))
        .step(|| "open /dev/pts/ptmx".into())?;
    let peer = sys::open_terminal_peer(master.as_fd()).step(|| "open a terminal".into())?;
    if size != TerminalSize::default() {
        sys::set_terminal_size(master.as_fd(), size.rows, size.columns).step(|| "set the terminal's size".into())?;
    }
    Ok((peer, master))
}

fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .step(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_may_be_written_with_dots_or_slashes() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
