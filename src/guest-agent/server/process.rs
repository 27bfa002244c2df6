//! A process that the agent has started: a container's first one, or one of `exec`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sbx_container::Running;

use super::streams::Ends;

/// After a process has ended, output that its children still hold open is waited for this long, as Docker does.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// What a process is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The first process of this container.
    First(String),
    /// A further one.
    Further,
}

/// A process and what has become of it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) pid: i32,
    pidfd: OwnedFd,
    pub(crate) ends: Ends,
    /// Exit code, or 128 and the signal's number.
    pub(crate) exit_code: Option<i32>,
    deadline: Option<Instant>,
}

impl Process {
    pub(crate) fn new(role: Role, running: Running) -> io::Result<Self> {
        let ends = Ends::new(running.io)?;
        Ok(Self { role, pid: running.pid, pidfd: running.pidfd, ends, exit_code: None, deadline: None })
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// It has ended and been reaped.
    pub(crate) fn ended(&mut self, code: i32) {
        self.exit_code = Some(code);
        self.wait_for_output();
    }

    /// Output is on its way: the wait for its end begins anew.
    pub(crate) fn wait_for_output(&mut self) {
        if self.exit_code.is_some() {
            self.deadline = Some(Instant::now() + OUTPUT_GRACE);
        }
    }

    /// It has ended and so has its output, or the wait for it.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.exit_code.is_some() && (self.ends.has_ended() || self.deadline.is_some_and(|deadline| now >= deadline))
    }

    /// When [`Self::is_over`] may become true without anything happening.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
