//! A further process in a container that runs (`exec`, health checks).

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, setsid};

use crate::cgroup::{Cgroup, JoinFiles};
use crate::channel::{Channel, Word};
use crate::child::{become_root, new_terminal};
use crate::error::{Error, Step};
use crate::namespaces::{self, Visit};
use crate::path::RootDir;
use crate::plan::{ContainerPlan, Namespace, ProcessPlan};
use crate::process::{self, ProcessSetup, Program};
use crate::stdio::{Pipes, ProcessIo, Running, TheirEnds, install_terminal};
use crate::sys::{self, Cloned};

/// A container that runs.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The plan it was made from.
    pub plan: &'a ContainerPlan,
    /// Process id of its first process.
    pub pid: i32,
    /// A pidfd of its first process.
    pub pidfd: BorrowedFd<'a>,
    /// Its cgroups.
    pub cgroup: &'a Cgroup,
}

/// Starts `process` in the container.
pub fn join(target: Target<'_>, process: &ProcessPlan) -> Result<Running, Error> {
    let setup = ProcessSetup::prepare(process)?;
    let pipes = Pipes::open(process)?;
    let (ours, theirs) = pipes.map_or((None, None), |pipes| (Some(pipes.ours), Some(pipes.theirs)));
    let (channel, childs_end) = Channel::pair().step(|| "make a channel".into())?;
    let cgroup = target.cgroup.join_files().map_err(|error| Error::new("cgroup", error))?;
    let mut visit = Visit::new();
    if target.plan.namespaces.pid != Namespace::Inherit {
        let path = format!("/proc/{}/ns/pid", target.pid);
        let there: OwnedFd = std::fs::File::open(&path).step(|| format!("open {path}"))?.into();
        visit.enter(libc::CLONE_NEWPID, "pid", &there)?;
    }
    let child = Joiner { target, process, channel: childs_end, cgroup, pipes: theirs };
    let cloned = sys::clone3(0, target.cgroup.directory_v2()).step(|| "make a process".into())?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            std::mem::forget(visit);
            child.run(setup)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(visit);
    drop(child);
    match hear(&channel) {
        Ok(terminal) => {
            let io = match (terminal, ours) {
                (Some(master), _) => ProcessIo::Terminal(master),
                (None, Some(pipes)) => pipes.into_io(),
                (None, None) => return Err(Error::new("exec", "the process handed no terminal over")),
            };
            Ok(Running { pid, pidfd, io })
        }
        Err(error) => {
            kill(pid, &pidfd);
            Err(error)
        }
    }
}

/// Ends a process that has not become what it was to be.
pub(crate) fn kill(pid: i32, pidfd: &OwnedFd) {
    // It may have ended by itself.
    let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = waitpid(Pid::from_raw(pid), None);
}

/// Listens until the program runs; returns the terminal's master end where there is one.
pub(crate) fn hear(channel: &Channel) -> Result<Option<OwnedFd>, Error> {
    let mut terminal = None;
    loop {
        match channel.receive().step(|| "wait for the process".into())? {
            Some((Word::Terminal, fd)) => terminal = fd,
            Some((Word::Failed(error), _)) => return Err(error),
            Some((word, _)) => return Err(Error::new("exec", format!("unexpected word {word:?}"))),
            None => return Ok(terminal),
        }
    }
}

struct Joiner<'a> {
    target: Target<'a>,
    process: &'a ProcessPlan,
    channel: Channel,
    cgroup: JoinFiles,
    pipes: Option<TheirEnds>,
}

impl Joiner<'_> {
    fn run(&self, setup: ProcessSetup<'_>) -> ! {
        let Err(error) = self.become_program(setup);
        // A creator that is gone cannot be told.
        let _ = self.channel.send(&Word::Failed(error));
        sys::exit_now(1);
    }

    fn become_program(&self, setup: ProcessSetup<'_>) -> Result<Infallible, Error> {
        ProcessSetup::set_score(self.process, "self")?;
        // Other processes of the container can see this one from here on; they must not be able to look into it or
        // to open its executable before it has become the program (CVE-2016-9962, CVE-2019-5736).
        sys::prctl(libc::PR_SET_DUMPABLE, 0).step(|| "become undumpable".into())?;
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).step(|| "set the death signal".into())?;
        self.cgroup.join_v1().step(|| "join the cgroups".into())?;
        let namespaces = &self.target.plan.namespaces;
        // The PID namespace is the one this process was born in.
        let flags = namespaces::enter_flags(namespaces) & !libc::CLONE_NEWPID;
        sys::setns(self.target.pidfd, flags).step(|| "enter the container's namespaces".into())?;
        if namespaces.user == Namespace::New {
            become_root()?;
        }
        setsid().step(|| "make a session".into())?;
        umask(Mode::empty());
        nix::unistd::chdir("/").step(|| "enter the root".into())?;
        match self.process.terminal {
            Some(size) => {
                let root = process::open_root()?;
                let (peer, master) = new_terminal(RootDir::new(root.as_fd()), size)?;
                self.channel.send_with(&Word::Terminal, master.as_fd()).step(|| "hand the terminal over".into())?;
                install_terminal(&peer)?;
            }
            None => self.pipes.as_ref().map_or(Ok(()), TheirEnds::install)?,
        }
        setup.run(Program::Own)
    }
}
