//! A process in the guest, as far as the host sees it.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use sbx_protocol::{ExitStatus, Request, SessionId, StreamKind};

use crate::agent::{Agent, Watch};
use crate::error::Error;

/// Exit code of a process whose machine has ended with it: as if the kernel had killed it.
const LOST: i32 = 137;

/// A process that runs in the guest.
#[derive(Debug)]
pub struct Process {
    session: SessionId,
    watch: Watch,
    status: Option<ExitStatus>,
}

/// A process and the host's ends of its standard streams.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub process: Process,
    /// Writable; `None` where its standard input is the null device.
    pub stdin: Option<OwnedFd>,
    /// Readable; a terminal has only `Stdout`.
    pub outputs: BTreeMap<StreamKind, OwnedFd>,
    /// It has a terminal.
    pub terminal: bool,
}

impl Process {
    pub(crate) fn new(session: SessionId, watch: Watch) -> Self {
        Self { session, watch, status: None }
    }

    /// Readable when the process has ended.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// The exit code, once the process has ended.
    pub fn ended(&mut self) -> Option<i32> {
        if self.status.is_none() {
            let lost = ExitStatus { code: LOST, oom_killed: false };
            self.status = self.watch.ended().map(|status| status.unwrap_or(lost));
        }
        self.status.map(|status| status.code)
    }

    /// Whether the guest's kernel killed something of the container for want of memory; known once it has ended.
    #[must_use]
    pub fn oom_killed(&self) -> bool {
        self.status.is_some_and(|status| status.oom_killed)
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }
}

/// The streams that a process of a plan has.
pub(crate) fn kinds(stdin: bool, terminal: bool) -> Vec<StreamKind> {
    let mut kinds = Vec::with_capacity(3);
    if stdin || terminal {
        kinds.push(StreamKind::Stdin);
    }
    kinds.push(StreamKind::Stdout);
    if !terminal {
        kinds.push(StreamKind::Stderr);
    }
    kinds
}

/// Streams of a session that has been opened.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) outputs: BTreeMap<StreamKind, OwnedFd>,
}

impl Streams {
    /// Connects every stream of the session and lets them flow.
    pub(crate) fn open(agent: &Agent, session: SessionId, kinds: &[StreamKind]) -> Result<Self, Error> {
        let mut streams = Self { stdin: None, outputs: BTreeMap::new() };
        for kind in kinds {
            let stream = agent.stream(session, *kind)?;
            match kind {
                StreamKind::Stdin => streams.stdin = Some(stream),
                output => drop(streams.outputs.insert(*output, stream)),
            }
        }
        agent.tell("connect standard streams", &Request::Ready { session })?;
        Ok(streams)
    }
}
