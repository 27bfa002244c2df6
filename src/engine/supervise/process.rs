//! A process that the supervisor watches: the container's first one, one of `exec`, or a health probe.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::streams::Ends;
use crate::mode::{Handle, Started};

/// After a process of `exec` has ended, output that its children still hold open is waited for this long, as Docker does.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The container's first process.
    First,
    /// Asked for by a client.
    Exec,
    /// A health probe.
    Probe,
    /// At the container's files, for a client.
    Files,
    /// Keeps a container up whose program does not run ([`super::supervisor::Phase::Kept`]).
    Keeper,
}

/// A process and what has become of it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) handle: Handle,
    pub(crate) ends: Ends,
    /// Exit code, or 128 and the signal's number.
    pub(crate) exit_code: Option<i32>,
    deadline: Option<Instant>,
    /// First bytes of a probe's output.
    pub(crate) captured: Vec<u8>,
}

impl Process {
    pub(crate) fn new(role: Role, started: Started) -> Self {
        let Started { handle, stdin, outputs, terminal } = started;
        let ends = Ends::new(stdin, outputs, terminal);
        Self { role, handle, ends, exit_code: None, deadline: None, captured: Vec::new() }
    }

    /// Readable when it has ended.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Takes its exit code if it has ended.
    pub(crate) fn reap(&mut self) {
        if let Some(code) = self.handle.ended() {
            self.exit_code = Some(code);
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
