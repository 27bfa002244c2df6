//! The two modes behind one face. The only place that asks which of them drives a sandbox.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sbx_container::files::Task;
use sbx_container::plan::ProcessPlan;
use sbx_container::{ProcessIo, Running};
use sbx_process_mode::NetworkFacts;
use sbx_protocol::{Failure, ProcessRow, StatsSample, StreamKind, TerminalSize};

use sbx_vm_mode::Admitted;

use crate::failure;

/// A sandbox in one of the modes.
#[derive(Debug)]
pub(crate) enum Sandbox {
    /// Namespaces and control groups of the host's kernel.
    Process(Box<sbx_process_mode::Sandbox>),
    /// A virtual machine with a kernel of its own.
    Vm(Box<sbx_vm_mode::Sandbox>),
}

/// A process that has been started in a sandbox.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) handle: Handle,
    /// Writable; `None` where its standard input is the null device.
    pub(crate) stdin: Option<OwnedFd>,
    /// Readable; a terminal has only `Stdout`.
    pub(crate) outputs: BTreeMap<StreamKind, OwnedFd>,
    pub(crate) terminal: bool,
}

/// A process of a sandbox, by which it is watched and signalled.
#[derive(Debug)]
pub(crate) enum Handle {
    /// A child of this process.
    Own {
        pid: i32,
        pidfd: OwnedFd,
        /// The master end of its terminal.
        terminal: Option<OwnedFd>,
    },
    /// A process in a virtual machine.
    Remote(sbx_vm_mode::Process),
}

impl Handle {
    /// Readable when the process has ended.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own { pidfd, .. } => pidfd.as_fd(),
            Self::Remote(process) => process.as_fd(),
        }
    }

    /// Exit code, or 128 and the signal's number, once the process has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        match self {
            Self::Own { pid, .. } => match waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
                Ok(_) | Err(nix::Error::EINTR) => None,
                // Somebody else has reaped it, which nobody may.
                Err(_) => Some(255),
            },
            Self::Remote(process) => process.ended(),
        }
    }
}

impl Started {
    fn own(running: Running) -> io::Result<Self> {
        let (stdin, outputs, terminal) = match running.io {
            ProcessIo::Pipes { stdin, stdout, stderr } => {
                (stdin, BTreeMap::from([(StreamKind::Stdout, stdout), (StreamKind::Stderr, stderr)]), None)
            }
            ProcessIo::Terminal(master) => {
                let outputs = BTreeMap::from([(StreamKind::Stdout, master.try_clone()?)]);
                (Some(master.try_clone()?), outputs, Some(master))
            }
        };
        let has_terminal = terminal.is_some();
        let handle = Handle::Own { pid: running.pid, pidfd: running.pidfd, terminal };
        Self { handle, stdin, outputs, terminal: has_terminal }.without_waiting()
    }

    fn remote(started: sbx_vm_mode::Started) -> io::Result<Self> {
        let sbx_vm_mode::Started { process, stdin, outputs, terminal } = started;
        Self { handle: Handle::Remote(process), stdin, outputs, terminal }.without_waiting()
    }

    /// Reads and writes of its streams never wait.
    fn without_waiting(self) -> io::Result<Self> {
        for fd in self.stdin.iter().chain(self.outputs.values()) {
            let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | flags & OFlag::O_ACCMODE))?;
        }
        Ok(self)
    }
}

impl Sandbox {
    /// Makes the container and runs its program; also the process on this host that stands for it.
    pub(crate) fn launch(&mut self) -> Result<(Started, i32), Failure> {
        match self {
            Self::Process(sandbox) => {
                let running = sandbox.launch().map_err(|error| told(&error))?;
                let pid = running.pid;
                Ok((Started::own(running).map_err(taken)?, pid))
            }
            Self::Vm(sandbox) => {
                let (started, pid) = sandbox.launch().map_err(sbx_vm_mode::Error::into_failure)?;
                Ok((Started::remote(started).map_err(taken)?, pid))
            }
        }
    }

    /// Runs a further process in the container.
    pub(crate) fn exec(&self, process: &ProcessPlan) -> Result<Started, Failure> {
        match self {
            Self::Process(sandbox) => Started::own(sandbox.exec(process).map_err(|error| told(&error))?).map_err(taken),
            Self::Vm(sandbox) => {
                Started::remote(sandbox.exec(process).map_err(sbx_vm_mode::Error::into_failure)?).map_err(taken)
            }
        }
    }

    /// Does something with the container's files.
    pub(crate) fn visit(&self, task: &Task) -> Result<Started, Failure> {
        match self {
            Self::Process(sandbox) => Started::own(sandbox.visit(task).map_err(|error| told(&error))?).map_err(taken),
            Self::Vm(sandbox) => {
                Started::remote(sandbox.visit(task).map_err(sbx_vm_mode::Error::into_failure)?).map_err(taken)
            }
        }
    }

    /// Sends a signal to a process; one that has ended and is not reaped yet takes it in silence.
    pub(crate) fn signal(&self, process: &Handle, signal: i32) -> Result<(), Failure> {
        match (self, process) {
            (_, Handle::Own { pidfd, .. }) => match sbx_container::sys::pidfd_send_signal(pidfd.as_fd(), signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                other => other.map_err(|error| failure::other(format!("send signal {signal}: {error}"))),
            },
            (Self::Vm(sandbox), Handle::Remote(process)) => {
                sandbox.signal(process, signal).map_err(sbx_vm_mode::Error::into_failure)
            }
            (Self::Process(_), Handle::Remote(_)) => Err(failure::other("a process of another sandbox")),
        }
    }

    /// Sets the size of a process's terminal; without one nothing happens.
    pub(crate) fn resize(&self, process: &Handle, size: TerminalSize) -> Result<(), Failure> {
        match (self, process) {
            (_, Handle::Own { terminal: None, .. }) => Ok(()),
            (_, Handle::Own { terminal: Some(terminal), .. }) => {
                sbx_container::sys::set_terminal_size(terminal.as_fd(), size.rows, size.columns)
                    .map_err(|error| failure::other(format!("resize the terminal: {error}")))
            }
            (Self::Vm(sandbox), Handle::Remote(process)) => {
                sandbox.resize(process, size).map_err(sbx_vm_mode::Error::into_failure)
            }
            (Self::Process(_), Handle::Remote(_)) => Err(failure::other("a process of another sandbox")),
        }
    }

    pub(crate) fn pause(&self) -> Result<(), Failure> {
        match self {
            Self::Process(sandbox) => sandbox.pause().map_err(|error| told(&error)),
            Self::Vm(sandbox) => sandbox.pause().map_err(sbx_vm_mode::Error::into_failure),
        }
    }

    pub(crate) fn unpause(&self) -> Result<(), Failure> {
        match self {
            Self::Process(sandbox) => sandbox.unpause().map_err(|error| told(&error)),
            Self::Vm(sandbox) => sandbox.unpause().map_err(sbx_vm_mode::Error::into_failure),
        }
    }

    pub(crate) fn processes(&self) -> Result<Vec<ProcessRow>, Failure> {
        match self {
            Self::Process(sandbox) => sandbox.processes().map_err(|error| told(&error)),
            Self::Vm(sandbox) => sandbox.processes().map_err(sbx_vm_mode::Error::into_failure),
        }
    }

    pub(crate) fn stats(&self) -> Result<StatsSample, Failure> {
        match self {
            Self::Process(sandbox) => sandbox.stats().map_err(|error| told(&error)),
            Self::Vm(sandbox) => sandbox.stats().map_err(sbx_vm_mode::Error::into_failure),
        }
    }

    /// Kills every process of the container. What cannot be killed now is killed by the clean-up.
    pub(crate) fn kill_all(&self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.kill_all()),
            Self::Vm(sandbox) => sandbox.kill_all(),
        }
    }

    /// Kills what the first process has left behind. What cannot be killed now is killed by the clean-up.
    pub(crate) fn kill_rest(&self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.kill_rest()),
            // The first process is always the first of its PID namespace, and nothing outlives that.
            Self::Vm(_) => {}
        }
    }

    /// Whether the kernel killed something because memory ran out, `first` being the first process that has ended.
    pub(crate) fn oom_killed(&mut self, first: &Handle) -> bool {
        match (self, first) {
            (_, Handle::Remote(process)) => process.oom_killed(),
            (Self::Process(sandbox), Handle::Own { .. }) => sandbox.oom_killed(),
            (Self::Vm(_), Handle::Own { .. }) => false,
        }
    }

    /// What to tell about the network.
    pub(crate) fn network_facts(&self) -> NetworkFacts {
        match self {
            Self::Process(sandbox) => sandbox.network_facts(),
            Self::Vm(sandbox) => sandbox.network_facts(),
        }
    }

    /// Lets another container into the machine: the machine's ends of a control socket and of a gate.
    pub(crate) fn admit(&mut self, control: OwnedFd, gate: OwnedFd) -> Result<Admitted, Failure> {
        match self {
            Self::Process(_) => Err(failure::conflict("the container has no virtual machine to be let into")),
            Self::Vm(sandbox) => sandbox.admit(control, gate).map_err(sbx_vm_mode::Error::into_failure),
        }
    }

    /// The container has ended. What cannot be taken away now is found by its name later. Says what there is to say of
    /// an end that was not the container's own.
    pub(crate) fn end_container(&mut self) -> Option<String> {
        match self {
            Self::Process(sandbox) => {
                drop(sandbox.end());
                None
            }
            Self::Vm(sandbox) => sandbox.end(),
        }
    }

    /// Gives everything back. What cannot be given back now is found by its name later.
    pub(crate) fn clean_up(&mut self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.clean_up()),
            Self::Vm(sandbox) => drop(sandbox.clean_up()),
        }
    }
}

fn taken(error: io::Error) -> Failure {
    failure::other(format!("take the standard streams: {error}"))
}

fn told(error: &sbx_process_mode::Error) -> Failure {
    match error {
        sbx_process_mode::Error::Container(error) => error.into(),
        other => failure::other(other.to_string()),
    }
}
