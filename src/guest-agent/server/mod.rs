//! The agent's loop: one thread, one poll(2), everything that can happen in the machine in one place.
//!
//! The words are those of a sandbox's supervisor on the host, with the same meanings; what is missing here is what only the
//! supervisor does (log, restart policy, health, the patience of `stop`). Beyond them:
//!
//! * Several containers may live at the same time; every request names the one that it means.
//! * `Ready` is answered when every stream that its `Attach` or `Exec` announced has connected, in whatever order the
//!   connections arrive.
//! * `WaitContainer` is answered at once where the container is over: a host that asks late still learns how it ended.
//! * A tenant, a container that shares the machine with the one that it was made for, ends with the connection that made it.
//! * A message that does not parse, or a greeting of another version, is answered by `Failed` with the reason, and the
//!   connection closed. Requests are carried out whole or not at all, so nothing else has to end.

mod connection;
mod process;
mod relays;
mod requests;
mod streams;
mod tenants;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use sbx_container::Error;
use sbx_protocol::{ContainerEvent, ExitStatus, Reply, SessionId, StreamKind};

use self::connection::Connection;
use self::process::{Process, Role};
use self::relays::{RelayToken, Relays};
use self::streams::{CHUNK, Session, Stream};
use self::tenants::{ROUND, Tenancy};
use crate::containers::Container;
use crate::wire::Wire;

/// Connections, streams and what is being said to streams that have ended, at most.
const CONNECTION_LIMIT: usize = 4096;
/// Exit statuses that are kept for whoever asks late.
const EXITS_KEPT: usize = 1024;

/// What a connection waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waiting {
    /// Every stream of a session that has been announced.
    Streams(SessionId),
    /// The end of a session's process.
    Process(SessionId),
    /// The end of a container.
    Container(String),
    /// That nothing is left of a tenant.
    Removal(String),
}

/// Everything that the agent knows.
pub struct Server {
    wire: Box<dyn Wire>,
    signals: SignalFd,
    /// This program's own file.
    program: OwnedFd,
    /// Where containers' children attach their roots.
    stage: PathBuf,
    containers: BTreeMap<String, Container>,
    processes: BTreeMap<u64, Process>,
    sessions: BTreeMap<SessionId, Session>,
    connections: BTreeMap<u64, Connection>,
    waiting: BTreeMap<u64, Waiting>,
    /// How processes ended whose sessions are over, oldest first.
    exits: VecDeque<(SessionId, ExitStatus)>,
    /// Streams whose session is over and whose last bytes are not out yet.
    farewells: BTreeMap<u64, Stream>,
    relays: Relays,
    tenants: BTreeMap<String, Tenancy>,
    /// Mount points made for containers, in order.
    mounted: Vec<String>,
    powering_off: bool,
    counter: u64,
    buffer: Vec<u8>,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy, Debug)]
enum Token {
    Listener,
    Signals,
    Connection(u64),
    FromSession(SessionId),
    ToSession(SessionId, StreamKind),
    Farewell(u64),
    Output(u64, StreamKind),
    Input(u64),
    Relay(RelayToken),
}

type Interest<'a> = (Token, BorrowedFd<'a>, PollFlags);

impl Server {
    /// A server in a machine that is prepared, for whoever comes by `wire`. Blocks SIGCHLD for this process.
    pub fn new(wire: Box<dyn Wire>) -> Result<Self, Error> {
        let program = File::open("/proc/self/exe").map_err(|error| Error::new("open the agent's own file", error))?;
        Ok(Self {
            wire,
            signals: watch_children().map_err(|error| Error::new("watch processes", error.desc()))?,
            program: program.into(),
            stage: PathBuf::from(crate::machine::STAGE),
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            exits: VecDeque::new(),
            farewells: BTreeMap::new(),
            relays: Relays::default(),
            tenants: BTreeMap::new(),
            mounted: Vec::new(),
            powering_off: false,
            counter: 0,
            buffer: vec![0; CHUNK],
        })
    }

    /// Serves until the machine is to be powered off; returns the mount points that were made, in order.
    pub fn run(mut self) -> Result<Vec<String>, Error> {
        while !self.powering_off {
            for (token, flags) in self.wait()? {
                self.handle(token, flags);
            }
            self.settle_processes();
            self.see_tenants_off();
        }
        let tenants = std::mem::take(&mut self.tenants).into_values();
        self.mounted.extend(tenants.flat_map(Tenancy::into_mounted));
        Ok(std::mem::take(&mut self.mounted))
    }

    /// Waits for something to happen.
    fn wait(&self) -> Result<Vec<(Token, PollFlags)>, Error> {
        let interests = self.interests();
        let mut fds: Vec<PollFd<'_>> = interests.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut fds, self.patience()) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(Error::new("wait for events", error.desc())),
        }
        let fired = |fd: &PollFd<'_>| fd.revents().filter(|flags| !flags.is_empty());
        Ok(interests.iter().zip(&fds).filter_map(|((token, _, _), fd)| Some((*token, fired(fd)?))).collect())
    }

    /// How long nothing may happen before something is to be done all the same.
    fn patience(&self) -> PollTimeout {
        if self.sessions.values().any(|session| self.wants_input(session) && has_early(session)) {
            return PollTimeout::ZERO;
        }
        let round = self.somebody_leaves().then(|| Instant::now() + ROUND);
        match self.processes.values().filter_map(Process::deadline).chain(round).min() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, so that the deadline has passed when poll returns.
                let milliseconds = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    /// Every descriptor and what is waited for on it.
    fn interests(&self) -> Vec<Interest<'_>> {
        let mut set = vec![(Token::Signals, std::os::fd::AsFd::as_fd(&self.signals), PollFlags::POLLIN)];
        if self.connections.len() + self.sessions.len() + self.farewells.len() < CONNECTION_LIMIT {
            set.push((Token::Listener, self.wire.listener(), PollFlags::POLLIN));
        }
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, connection.wants_input());
            flags.set(PollFlags::POLLOUT, connection.has_unsent());
            set.push((Token::Connection(*id), connection.as_fd(), flags));
        }
        self.stream_interests(&mut set);
        for (key, process) in &self.processes {
            for (kind, fd) in process.ends.outputs() {
                if !self.somebody_is_full(*key, kind) {
                    set.push((Token::Output(*key, kind), fd, PollFlags::POLLIN));
                }
            }
            if let Some(fd) = process.ends.input_waiting() {
                set.push((Token::Input(*key), fd, PollFlags::POLLOUT));
            }
        }
        self.relays.interests(|token, fd, flags| set.push((Token::Relay(token), fd, flags)));
        set
    }

    fn stream_interests<'a>(&'a self, set: &mut Vec<Interest<'a>>) {
        for (id, session) in &self.sessions {
            for (kind, stream) in &session.streams {
                if stream.has_unsent() {
                    set.push((Token::ToSession(*id, *kind), stream.as_fd(), PollFlags::POLLOUT));
                }
            }
            if let Some(stream) = session.streams.get(&StreamKind::Stdin)
                && !stream.read_ended
                && self.wants_input(session)
            {
                set.push((Token::FromSession(*id), stream.as_fd(), PollFlags::POLLIN));
            }
        }
        for (id, stream) in &self.farewells {
            set.push((Token::Farewell(*id), stream.as_fd(), PollFlags::POLLOUT));
        }
    }

    fn wants_input(&self, session: &Session) -> bool {
        session.ready && self.processes.get(&session.process).is_some_and(|process| process.ends.wants_input())
    }

    fn somebody_is_full(&self, process: u64, kind: StreamKind) -> bool {
        let sessions = self.sessions.values().filter(|session| session.process == process);
        sessions.filter_map(|session| session.streams.get(&kind)).any(Stream::is_full)
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.reap(),
            Token::Connection(id) => self.serve(id, flags),
            Token::FromSession(id) => self.take_input(id),
            Token::ToSession(id, kind) => {
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
            Token::Output(key, kind) => self.take_output(key, kind),
            Token::Input(key) => {
                if let Some(process) = self.processes.get_mut(&key) {
                    process.ends.flush_input();
                }
            }
            Token::Relay(token) => self.relays.handle(token, flags, &*self.wire, &mut self.buffer),
        }
    }

    fn accept(&mut self) {
        // A connection that cannot be taken now is taken later, or ends by itself.
        while let Ok(Some(socket)) = self.wire.accept() {
            self.counter += 1;
            self.connections.insert(self.counter, Connection::new(socket));
        }
    }

    /// Reaps whatever has ended. Statuses of known processes are theirs; everything else is an orphan, which the kernel
    /// gives to PID 1.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(found) = waitid(Id::All, look) {
            let Some(pid) = found.pid() else { return };
            if let Some(container) = self.containers.values_mut().find(|container| container.waits_as(pid.as_raw())) {
                container.ended_early();
                continue;
            }
            let code = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
                // Nobody else reaps; if this did not, the loop would not end.
                _ => return,
            };
            self.process_ended(pid, code);
        }
    }

    fn process_ended(&mut self, pid: Pid, code: i32) {
        let mut processes = self.processes.values_mut();
        let known = processes.find(|process| process.pid == pid.as_raw() && process.exit_code.is_none());
        let Some(process) = known else { return };
        process.ended(code);
        if let Role::First(id) = &process.role
            && let Some(container) = self.containers.get(id)
        {
            // Whatever the container left behind holds its output open.
            container.kill_rest();
        }
    }

    fn take_input(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(stream) = session.streams.get_mut(&StreamKind::Stdin) else { return };
        let Some(process) = self.processes.get_mut(&session.process) else { return };
        match stream.receive(&mut self.buffer) {
            None => {}
            Some(0) => {
                stream.read_ended = true;
                if session.ends_input {
                    process.ends.end_input();
                }
            }
            Some(count) => process.ends.write(&self.buffer[..count]),
        }
    }

    fn take_output(&mut self, key: u64, kind: StreamKind) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(count) = process.ends.read(kind, &mut self.buffer) else { return };
        process.wait_for_output();
        let bytes = &self.buffer[..count];
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
    }

    fn drop_stream(&mut self, id: SessionId, kind: StreamKind) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.streams.remove(&kind);
        }
    }

    /// Moves input that needs no poll(2), and looks for processes that are over.
    fn settle_processes(&mut self) {
        let early: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| self.wants_input(session) && has_early(session))
            .map(|(id, _)| *id)
            .collect();
        early.into_iter().for_each(|id| self.take_input(id));
        let ended: Vec<u64> =
            self.processes.iter().filter(|(_, process)| process.exit_code.is_some()).map(|(key, _)| *key).collect();
        let now = Instant::now();
        for key in ended {
            let full = [StreamKind::Stdout, StreamKind::Stderr].iter().any(|kind| self.somebody_is_full(key, *kind));
            let Some(process) = self.processes.get_mut(&key) else { continue };
            if full {
                // A slow reader loses nothing: the wait is for those who hold the output open, not for it.
                process.wait_for_output();
            }
            if process.is_over(now)
                && let Some(process) = self.processes.remove(&key)
            {
                self.process_over(key, &process);
            }
        }
    }

    fn process_over(&mut self, key: u64, process: &Process) {
        let code = process.exit_code.unwrap_or(255);
        let status = match &process.role {
            Role::Further => ExitStatus { code, oom_killed: false },
            Role::First(id) => match self.containers.get_mut(id) {
                Some(container) => container.end(code),
                None => ExitStatus { code, oom_killed: false },
            },
        };
        self.end_sessions(key, Some(status));
        if let Role::First(id) = &process.role {
            let event = ContainerEvent::Exited { status, restarting: false };
            self.tell_waiting(&Waiting::Container(id.clone()), &Reply::Event(event));
        }
    }

    /// Ends every session at a process; `None` where it never ran.
    fn end_sessions(&mut self, process: u64, status: Option<ExitStatus>) {
        let over: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.process == process).map(|(id, _)| *id).collect();
        for id in over {
            self.end_session(id);
            let waited = Waiting::Process(id);
            match status {
                Some(status) => {
                    if !self.tell_waiting(&waited, &Reply::Exited(status)) {
                        self.exits.push_back((id, status));
                    }
                }
                None => drop(self.tell_waiting(&waited, &Reply::Failed(requests::no_session()))),
            }
            self.tell_waiting(&Waiting::Streams(id), &Reply::Failed(requests::no_session()));
        }
        while self.exits.len() > EXITS_KEPT {
            self.exits.pop_front();
        }
    }

    fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for (_, mut stream) in session.streams {
            if stream.end() {
                self.counter += 1;
                self.farewells.insert(self.counter, stream);
            }
        }
    }

    /// Answers every connection that waits for this; says whether there was one.
    fn tell_waiting(&mut self, what: &Waiting, reply: &Reply) -> bool {
        let told: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| *waiting == what).map(|(id, _)| *id).collect();
        for id in &told {
            self.waiting.remove(id);
            self.answer(*id, reply);
        }
        !told.is_empty()
    }
}

fn has_early(session: &Session) -> bool {
    session.streams.get(&StreamKind::Stdin).is_some_and(|stream| stream.has_early() && !stream.read_ended)
}

/// SIGCHLD as something to poll for. SIGPIPE is the runtime's to ignore.
fn watch_children() -> nix::Result<SignalFd> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
    SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
