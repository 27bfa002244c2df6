//! The supervisor's loop: one thread, one poll(2), everything that can happen to a sandbox in one place.
//!
//! ```text
//!            Start                    ended, policy says again
//!  Prepared --------> Running ----------------------------------> Waiting
//!     |                  ^  \                                      |    |
//!     | failed           |   \ ended                     time is up|    | stopped
//!     v                  |    v                                    |    v
//!    Over <--------------|--- Over <-------------------------------|-- Over
//!                        +-----------------------------------------+
//! ```
//!
//! A container that is started for its files alone is Kept instead, until nobody is left at them; no state changes.
//!
//! `state.json` follows the phases; it is written here and nowhere else while the supervisor lives.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use sbx_protocol::{ContainerEvent, ExitStatus, Reply, SessionId, StreamKind};
use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::state::StartCause;

use super::connection::Connection;
use super::health::Schedule;
use super::logfile::LogFile;
use super::process::{Process, Role};
use super::record::Record;
use super::restart::Restarts;
use super::streams::{CHUNK, LAST_LIMIT, QUEUE_LIMIT, Session, Stream};
use crate::mode::Sandbox;
use crate::standby::Duty;

/// Key of the container's first process in every incarnation.
pub(crate) const FIRST: u64 = 0;
/// First bytes of a probe's output that are kept.
const PROBE_OUTPUT: usize = 4096;
/// When nobody has asked for anything for so long, memory is given back.
const SETTLED: Duration = Duration::from_secs(1);

/// Where the container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not started yet.
    Prepared,
    /// The first process lives, or its output has not ended.
    Running {
        /// Since when.
        since: Instant,
    },
    /// The container is up and its program does not run: somebody is at its files.
    Kept,
    /// The restart policy starts it again.
    Waiting {
        /// When.
        until: Instant,
    },
    /// Nothing more will run.
    Over,
}

/// A stop that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// When the container is killed.
    pub(crate) deadline: Option<Instant>,
    /// Start it again afterwards.
    pub(crate) restart: bool,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The end of a session's process.
    Process(SessionId, u64),
    /// The next event of the container.
    Container,
    /// The end of a stop.
    Stop,
    /// The end of the first process, whatever follows.
    Death,
}

/// Everything that the supervisor knows.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) spec: SandboxSpec,
    pub(crate) duty: Duty,
    pub(crate) machine: MachineFacts,
    pub(crate) record: Record,
    pub(crate) sandbox: Sandbox,
    pub(crate) log: Option<LogFile>,
    pub(crate) phase: Phase,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) processes: BTreeMap<u64, Process>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    /// Streams whose session is over and whose last bytes are not out yet.
    pub(crate) farewells: BTreeMap<u64, Stream>,
    /// Exit codes of processes that are over, by session.
    pub(crate) exits: BTreeMap<SessionId, ExitStatus>,
    pub(crate) health: Option<Schedule>,
    pub(crate) restarts: Restarts,
    pub(crate) counter: u64,
    /// When the memory that starting and answering needed is given back.
    rest: Option<Instant>,
    /// How the first process ended the last time.
    pub(crate) last_exit: Option<ExitStatus>,
    listener: UnixListener,
    signals: SignalFd,
}

/// What a supervisor begins with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) spec: SandboxSpec,
    pub(crate) duty: Duty,
    pub(crate) machine: MachineFacts,
    pub(crate) record: Record,
    pub(crate) sandbox: Sandbox,
    /// `None` where the log driver is `none`.
    pub(crate) log: Option<LogFile>,
    pub(crate) listener: UnixListener,
    pub(crate) signals: SignalFd,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy, Debug)]
enum Token {
    Listener,
    Signals,
    Connection(u64),
    FromClient(SessionId),
    ToClient(SessionId, StreamKind),
    Farewell(u64),
    Output(u64, StreamKind),
    Input(u64),
    Ended(u64),
}

impl Supervisor {
    pub(crate) fn new(parts: Parts) -> Self {
        let restarts = Restarts::new(&parts.spec.host_config.restart_policy);
        Self {
            spec: parts.spec,
            duty: parts.duty,
            machine: parts.machine,
            record: parts.record,
            sandbox: parts.sandbox,
            log: parts.log,
            phase: Phase::Prepared,
            stopping: None,
            processes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            farewells: BTreeMap::new(),
            exits: BTreeMap::new(),
            health: None,
            restarts,
            counter: FIRST,
            rest: None,
            last_exit: None,
            listener: parts.listener,
            signals: parts.signals,
        }
    }

    /// Runs until nothing of the sandbox is left to run.
    pub(crate) fn run(&mut self) {
        while self.phase != Phase::Over {
            let ready = self.wait();
            for (token, flags) in ready {
                self.handle(token, flags);
            }
            self.keep_time();
            self.settle_processes();
            self.end_if_deserted();
        }
    }

    /// Whoever started this supervisor was killed before it asked for the container's start: nobody else will. A container that
    /// is kept up for its files is not needed any more when nobody is left.
    fn end_if_deserted(&mut self) {
        if self.counter > FIRST && self.connections.is_empty() {
            match self.phase {
                Phase::Prepared => self.phase = Phase::Over,
                Phase::Kept => self.let_go(),
                _ => {}
            }
        }
    }

    /// Waits for something to happen.
    fn wait(&self) -> Vec<(Token, PollFlags)> {
        let interests = self.interests();
        let mut fds: Vec<PollFd<'_>> = interests.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        let timeout = match self.next_deadline() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, so that the deadline has passed when poll returns.
                let milliseconds = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        };
        if poll(&mut fds, timeout).is_err() {
            return Vec::new();
        }
        let fired = |fd: &PollFd<'_>| fd.revents().filter(|flags| !flags.is_empty());
        interests.iter().zip(&fds).filter_map(|((token, _, _), fd)| Some((*token, fired(fd)?))).collect()
    }

    /// Every descriptor and what is waited for on it.
    fn interests(&self) -> Vec<(Token, BorrowedFd<'_>, PollFlags)> {
        let mut set = vec![
            (Token::Listener, self.listener.as_fd(), PollFlags::POLLIN),
            (Token::Signals, self.signals.as_fd(), PollFlags::POLLIN),
        ];
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, connection.has_unsent());
            set.push((Token::Connection(*id), connection.as_fd(), flags));
        }
        for (id, session) in &self.sessions {
            for (kind, stream) in &session.streams {
                if stream.has_unsent() {
                    set.push((Token::ToClient(*id, *kind), stream.as_fd(), PollFlags::POLLOUT));
                }
            }
            let wants =
                session.ready && self.processes.get(&session.process).is_some_and(|process| process.ends.wants_input());
            if let Some(stream) = session.streams.get(&StreamKind::Stdin).filter(|stream| wants && !stream.read_ended) {
                set.push((Token::FromClient(*id), stream.as_fd(), PollFlags::POLLIN));
            }
        }
        for (id, stream) in &self.farewells {
            set.push((Token::Farewell(*id), stream.as_fd(), PollFlags::POLLOUT));
        }
        for (key, process) in &self.processes {
            if process.exit_code.is_none() {
                set.push((Token::Ended(*key), process.end(), PollFlags::POLLIN));
            }
            for (kind, fd) in process.ends.outputs() {
                if !self.somebody_is_full(*key, process, kind) {
                    set.push((Token::Output(*key, kind), fd, PollFlags::POLLIN));
                }
            }
            if let Some(fd) = process.ends.input_waiting() {
                set.push((Token::Input(*key), fd, PollFlags::POLLOUT));
            }
        }
        set
    }

    /// Whoever is slow slows a process down that runs. What one has left behind is little, and is taken at once: whether it
    /// is over must not hang on its readers.
    fn somebody_is_full(&self, key: u64, process: &Process, kind: StreamKind) -> bool {
        let limit = if process.exit_code.is_some() { LAST_LIMIT } else { QUEUE_LIMIT };
        let mut sessions = self.sessions.values().filter(|session| session.process == key);
        sessions.any(|session| session.streams.get(&kind).is_some_and(|stream| stream.unsent() >= limit))
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Listener => {
                self.rest = Some(Instant::now() + SETTLED);
                self.accept();
            }
            Token::Signals => self.take_signal(),
            Token::Connection(id) => self.serve(id, flags),
            Token::FromClient(id) => self.take_input(id),
            Token::ToClient(id, kind) => {
                let stream = self.sessions.get_mut(&id).and_then(|session| session.streams.get_mut(&kind));
                if stream.is_some_and(|stream| !stream.flush()) {
                    self.drop_stream(id, kind);
                }
            }
            Token::Farewell(id) => {
                if self.farewells.get_mut(&id).is_some_and(|stream| !stream.flush()) {
                    self.farewells.remove(&id);
                }
            }
            Token::Output(key, kind) => {
                self.take_output(key, kind);
            }
            Token::Input(key) => {
                if let Some(process) = self.processes.get_mut(&key) {
                    process.ends.flush_input();
                }
            }
            Token::Ended(key) => {
                if let Some(process) = self.processes.get_mut(&key) {
                    process.reap();
                }
                if key == FIRST {
                    // Whatever the container left behind holds its output open.
                    self.sandbox.kill_rest();
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(socket) {
                self.counter += 1;
                self.connections.insert(self.counter, connection);
            }
        }
    }

    /// SIGTERM and the like of an administrator or a shutdown: the container is stopped as `stop` would. One that is only kept
    /// up has nothing to be asked.
    fn take_signal(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {
            match self.phase {
                Phase::Kept => self.let_go(),
                _ => self.begin_stop(libc::SIGTERM, Some(Duration::from_secs(10)), false),
            }
        }
    }

    fn take_input(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(stream) = session.streams.get_mut(&StreamKind::Stdin) else { return };
        let Some(process) = self.processes.get_mut(&session.process) else { return };
        let mut buffer = vec![0u8; CHUNK];
        match stream.receive(&mut buffer) {
            None => {}
            Some(0) => {
                stream.read_ended = true;
                if process.role != Role::First || self.spec.config.stdin_once {
                    process.ends.end_input();
                }
            }
            Some(count) => process.ends.write(&buffer[..count]),
        }
    }

    /// Passes output on; says whether there was any, or its end.
    pub(super) fn take_output(&mut self, key: u64, kind: StreamKind) -> bool {
        let Some(process) = self.processes.get_mut(&key) else { return false };
        let mut buffer = vec![0u8; CHUNK];
        let Some(count) = process.ends.read(kind, &mut buffer) else { return false };
        let bytes = &buffer[..count];
        match process.role {
            Role::Probe => {
                let room = PROBE_OUTPUT.saturating_sub(process.captured.len());
                process.captured.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Role::First => {
                if let Some(Err(error)) = self.log.as_mut().map(|log| log.write(kind, bytes)) {
                    // A full disk must not stop the container; the state tells why the log has a hole.
                    self.record.note_error(&format!("write the log: {error}"));
                }
            }
            Role::Exec | Role::Files | Role::Keeper => {}
        }
        let mut gone = Vec::new();
        for (id, session) in &mut self.sessions {
            if session.process != key || !session.ready {
                continue;
            }
            if let Some(stream) = session.streams.get_mut(&kind) {
                let alive = if count == 0 { stream.end() } else { stream.send(bytes) };
                if !alive {
                    gone.push(*id);
                }
            }
        }
        for id in gone {
            self.drop_stream(id, kind);
        }
        true
    }

    fn drop_stream(&mut self, id: SessionId, kind: StreamKind) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.streams.remove(&kind);
        }
    }

    /// The next moment at which something is to be done though nothing happens.
    fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            _ => None,
        };
        let stop = self.stopping.and_then(|stopping| stopping.deadline);
        let health = self.health.as_ref().and_then(Schedule::due);
        let processes = self.processes.values().filter_map(Process::deadline);
        phase.into_iter().chain(self.rest).chain(stop).chain(health).chain(processes).min()
    }

    /// Does what is due.
    fn keep_time(&mut self) {
        let now = Instant::now();
        if let Phase::Waiting { until } = self.phase
            && now >= until
        {
            self.start_again(StartCause::Policy);
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.deadline.is_some_and(|deadline| now >= deadline)
        {
            stopping.deadline = None;
            self.sandbox.kill_all();
        }
        if self.rest.is_some_and(|rest| now >= rest) {
            self.rest = None;
            crate::sys::release_program();
        }
        self.probe_health(now);
    }

    /// Tells everybody who waits for the container, and for a stop that this ends.
    pub(crate) fn announce(&mut self, event: ContainerEvent) {
        let ends = !matches!(event, ContainerEvent::Exited { restarting: true, .. });
        if let (ContainerEvent::Exited { status, .. }, true) = (&event, ends) {
            let status = *status;
            let first: Vec<SessionId> =
                self.sessions.iter().filter(|(_, session)| session.process == FIRST).map(|(id, _)| *id).collect();
            for id in first {
                self.end_session(id);
                self.exits.insert(id, status);
                self.tell_waiting(
                    |waiting| matches!(waiting, Waiting::Process(session, _) if *session == id),
                    &Reply::Exited(status),
                );
            }
        }
        self.tell_waiting(|waiting| *waiting == Waiting::Death, &Reply::Done);
        self.tell_waiting(|waiting| *waiting == Waiting::Container, &Reply::Event(event));
        if ends {
            self.tell_waiting(|waiting| *waiting == Waiting::Stop, &Reply::Done);
        }
    }

    /// Answers every connection whose wait `matches`.
    pub(crate) fn tell_waiting(&mut self, matches: impl Fn(&Waiting) -> bool, reply: &Reply) {
        let told: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| matches(waiting)).map(|(id, _)| *id).collect();
        for id in told {
            self.waiting.remove(&id);
            self.answer(id, reply);
        }
    }
}
