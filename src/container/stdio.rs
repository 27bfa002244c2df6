//! The standard streams of a process: pipes, or a pseudo-terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2};

use crate::error::{Error, Step};
use crate::plan::ProcessPlan;

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    /// Process id in the creator's PID namespace.
    pub pid: i32,
    /// Readable when the process has ended.
    pub pidfd: OwnedFd,
    /// The creator's ends of its standard streams.
    pub io: ProcessIo,
}

/// The creator's ends of a process's standard streams.
#[derive(Debug)]
pub enum ProcessIo {
    /// Pipes.
    Pipes {
        /// `None` where the standard input is the null device.
        stdin: Option<OwnedFd>,
        /// Readable.
        stdout: OwnedFd,
        /// Readable.
        stderr: OwnedFd,
    },
    /// The master end of a terminal.
    Terminal(OwnedFd),
}

/// Both ends of the pipes of a process without a terminal.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) ours: OurEnds,
    pub(crate) theirs: TheirEnds,
}

#[derive(Debug)]
pub(crate) struct OurEnds {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl OurEnds {
    pub(crate) fn into_io(self) -> ProcessIo {
        ProcessIo::Pipes { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr }
    }
}

#[derive(Debug)]
pub(crate) struct TheirEnds {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    /// Pipes for `process`; `None` where it has a terminal.
    pub(crate) fn open(process: &ProcessPlan) -> Result<Option<Self>, Error> {
        if process.terminal.is_some() {
            return Ok(None);
        }
        Self::make(process.stdin).map(Some)
    }

    /// Pipes, with the null device as standard input unless it is wanted.
    pub(crate) fn make(stdin: bool) -> Result<Self, Error> {
        Self::open_all(stdin).step(|| "make pipes".into())
    }

    fn open_all(stdin: bool) -> io::Result<Self> {
        let (input, feed) = if stdin {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            (read, Some(write))
        } else {
            (std::fs::File::open("/dev/null")?.into(), None)
        };
        let (stdout, stdout_theirs) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, stderr_theirs) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self {
            ours: OurEnds { stdin: feed, stdout, stderr },
            theirs: TheirEnds { stdin: input, stdout: stdout_theirs, stderr: stderr_theirs },
        })
    }
}

impl TheirEnds {
    /// Makes them the standard streams of this process.
    pub(crate) fn install(&self) -> Result<(), Error> {
        dup2_stdin(&self.stdin)
            .and_then(|()| dup2_stdout(&self.stdout))
            .and_then(|()| dup2_stderr(&self.stderr))
            .step(|| "set up stdio".into())
    }
}

/// Makes the terminal's other end the standard streams and the controlling terminal of this session.
pub(crate) fn install_terminal(peer: &OwnedFd) -> Result<(), Error> {
    crate::sys::set_controlling_terminal(peer.as_fd()).step(|| "set the controlling terminal".into())?;
    dup2_stdin(peer).and_then(|()| dup2_stdout(peer)).and_then(|()| dup2_stderr(peer)).step(|| "set up stdio".into())
}
