//! What the host asks of the agent.

use std::collections::BTreeSet;

use nix::poll::PollFlags;
use sbx_container::Error;
use sbx_protocol::guest::CreateRequest;
use sbx_protocol::{
    AttachRequest, ContainerEvent, ExecRequest, Failure, FailureKind, FilesRequest, Hello, Purpose, Reply, Request,
    SessionId, StreamKind, TerminalSize,
};

use super::connection::Heard;
use super::process::{Process, Role};
use super::streams::{Pending, Session, Stream, Work, session_id};
use super::tenants::Tenancy;
use super::{Server, Waiting};
use crate::containers::{Container, Place, conflict, not_running, other, signal_process};
use crate::furnish::{Furnished, furnish};
use crate::machine;

pub(super) type Outcome = Result<Reply, Failure>;

impl Server {
    /// Takes what a connection has to say, and sends it what is left to say.
    pub(super) fn serve(&mut self, id: u64, flags: PollFlags) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut alive = connection.flush();
        if connection.wants_input() {
            if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                alive &= connection.fill(&mut self.buffer);
            }
        } else {
            alive &= !flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        }
        self.hear(id);
        if !alive {
            self.drop_connection(id);
        }
    }

    fn drop_connection(&mut self, id: u64) {
        self.connections.remove(&id);
        self.waiting.remove(&id);
        // A session that its opener has left before it was ready will never be.
        self.sessions.retain(|_, session| session.ready || session.owner != id);
        self.evict_tenants_of(id);
    }

    /// Works on every message of a connection that has arrived, one at a time.
    fn hear(&mut self, id: u64) {
        while let Some(connection) = self.connections.get_mut(&id) {
            match connection.hear() {
                Heard::Nothing => return,
                Heard::Nonsense(reason) => {
                    if !connection.refuse(reason) {
                        self.drop_connection(id);
                    }
                    return;
                }
                Heard::Hello(hello) => self.greet(id, &hello),
                Heard::Request(request) => {
                    connection.busy = true;
                    self.work(id, *request);
                }
            }
        }
    }

    fn greet(&mut self, id: u64, hello: &Hello) {
        match hello.purpose {
            Purpose::Control => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.become_control();
                }
            }
            Purpose::Stream { session: session_id, kind } => {
                let Some(connection) = self.connections.remove(&id) else { return };
                let (socket, early) = connection.into_stream();
                // A stream for a session that does not exist is closed by being dropped.
                let Some(session) = self.sessions.get_mut(&session_id) else { return };
                session.streams.insert(kind, Stream::new(socket, early));
                session.awaited.remove(&kind);
                self.begin_if_complete(session_id);
            }
        }
    }

    /// Answers a connection; one that does not take the answer is dropped.
    pub(super) fn answer(&mut self, id: u64, reply: &Reply) {
        let taken = self.connections.get_mut(&id).is_some_and(|connection| connection.answer(reply));
        if taken {
            self.hear(id);
        } else {
            self.drop_connection(id);
        }
    }

    fn work(&mut self, id: u64, request: Request) {
        let outcome = match request {
            Request::WaitProcess { session } => self.wait_process(id, session),
            Request::WaitContainer { container } => self.wait_container(id, container),
            Request::Ready { session } => self.ready(id, session),
            Request::Remove { container } => self.remove_tenant(id, container),
            Request::PowerOff => {
                self.powering_off = true;
                None
            }
            other => Some(self.work_at_once(id, other)),
        };
        if let Some(outcome) = outcome {
            self.answer(id, &outcome.unwrap_or_else(Reply::Failed));
        }
    }

    /// Requests that are answered without waiting for anything.
    fn work_at_once(&mut self, id: u64, request: Request) -> Outcome {
        let done = |()| Reply::Done;
        match request {
            Request::Wake(request) => machine::wake(&request).map(done).map_err(|error| Failure::from(&error)),
            Request::Create(request) => self.create(id, *request).map(done),
            Request::Start { container } => self.start(&container),
            Request::Attach(request) => self.attach(id, request),
            Request::Exec(request) => self.prepare_exec(id, *request),
            Request::Files(request) => self.prepare_files(id, *request),
            Request::Resize { session, size } => self.resize(session, size),
            Request::SignalProcess { session, signal } => self.signal_process(session, signal).map(done),
            Request::Kill { container, signal } => self.container(&container)?.kill(signal).map(done),
            Request::Pause { container } => self.container(&container)?.pause().map(done),
            Request::Unpause { container } => self.container(&container)?.unpause().map(done),
            Request::Top { container } => self.container(&container)?.processes().map(Reply::Processes),
            Request::Stats { container } => {
                self.container(&container)?.stats().map(|sample| Reply::Stats(Box::new(sample)))
            }
            Request::Locate { container } => self.container(&container)?.pid().map(|pid| Reply::Started { pid }),
            Request::Stop { .. } | Request::Admit { .. } => {
                Err(other("a request for the supervisor: the agent has neither patience nor machines".into()))
            }
            Request::WaitProcess { .. }
            | Request::WaitContainer { .. }
            | Request::Ready { .. }
            | Request::Remove { .. }
            | Request::PowerOff => Err(other("a request that waits".into())),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.get_mut(id).ok_or_else(|| no_container(id))
    }

    fn create(&mut self, connection: u64, request: CreateRequest) -> Result<(), Failure> {
        let id = request.plan.id.clone();
        let lives = self.containers.get(&id).is_some_and(|container| container.ending().is_none());
        if lives || self.tenants.contains_key(&id) {
            return Err(conflict(format!("container {id} exists already")));
        }
        let mut furnished = Furnished::default();
        let steps = furnish(&request.furnishings, &mut furnished);
        match &request.tenant {
            Some(tenant) => {
                drop(self.tenants.insert(id.clone(), Tenancy::new(connection, tenant, &mut furnished)));
            }
            None => self.mounted.append(&mut furnished.mounted),
        }
        furnished.sockets.into_iter().for_each(|socket| self.relays.add(socket));
        self.counter += 1;
        let place = Place { program: &self.program, stage: &self.stage };
        let made = steps.and_then(|()| Container::create(request, self.counter, place));
        let container = made.map_err(|error| Failure::from(&error))?;
        self.containers.insert(id, container);
        Ok(())
    }

    fn start(&mut self, id: &str) -> Outcome {
        let container = self.container(id)?;
        let first = container.first;
        let started = container.start().and_then(|running| {
            let pid = running.pid;
            let process = Process::new(Role::First(id.to_owned()), running)
                .map_err(|error| other(format!("take the container's streams: {error}")))?;
            Ok((pid, process))
        });
        match started {
            Ok((pid, process)) => {
                self.processes.insert(first, process);
                Ok(Reply::Started { pid })
            }
            Err(failure) => {
                if self.containers.get(id).is_some_and(|container| container.ending() == Some(None)) {
                    self.end_sessions(first, None);
                    let gone = Reply::Event(ContainerEvent::Gone { last: None });
                    self.tell_waiting(&Waiting::Container(id.to_owned()), &gone);
                }
                Err(failure)
            }
        }
    }

    fn attach(&mut self, owner: u64, request: AttachRequest) -> Outcome {
        let container = self.container(&request.container)?;
        if container.ending().is_some() {
            return Err(not_running(&request.container));
        }
        let mut session = Session::new(container.first, owner, request.streams);
        session.ends_input = request.stdin_once;
        Ok(self.open(session))
    }

    fn prepare_exec(&mut self, owner: u64, request: ExecRequest) -> Outcome {
        if !self.container(&request.container)?.is_running() {
            return Err(not_running(&request.container));
        }
        let work = Work::Program(Box::new(request.process));
        Ok(self.prepare(owner, Pending { container: request.container, work }, request.streams))
    }

    fn prepare_files(&mut self, owner: u64, request: FilesRequest) -> Outcome {
        if !self.container(&request.container)?.is_running() {
            return Err(not_running(&request.container));
        }
        let work = Work::Files(Box::new(request.task));
        Ok(self.prepare(owner, Pending { container: request.container, work }, request.streams))
    }

    fn prepare(&mut self, owner: u64, pending: Pending, streams: Vec<StreamKind>) -> Reply {
        self.counter += 1;
        let mut session = Session::new(self.counter, owner, streams);
        session.ends_input = true;
        session.pending = Some(pending);
        self.open(session)
    }

    fn open(&mut self, session: Session) -> Reply {
        let id = session_id(&mut self.counter);
        self.sessions.insert(id, session);
        Reply::Session(id)
    }

    /// Lets the session begin when its streams are there, which may be now; `None` where it has to wait.
    fn ready(&mut self, connection: u64, id: SessionId) -> Option<Outcome> {
        match self.sessions.get(&id) {
            None => Some(Err(no_session())),
            Some(session) if session.awaited.is_empty() => Some(self.begin(id)),
            Some(_) => {
                self.waiting.insert(connection, Waiting::Streams(id));
                None
            }
        }
    }

    /// The last awaited stream may have come.
    fn begin_if_complete(&mut self, id: SessionId) {
        let complete = self.sessions.get(&id).is_some_and(|session| session.awaited.is_empty());
        let asked = self.waiting.values().any(|waiting| *waiting == Waiting::Streams(id));
        if complete && asked {
            let reply = self.begin(id).unwrap_or_else(Reply::Failed);
            self.tell_waiting(&Waiting::Streams(id), &reply);
        }
    }

    fn begin(&mut self, id: SessionId) -> Outcome {
        let session = self.sessions.get_mut(&id).ok_or_else(no_session)?;
        session.ready = true;
        let key = session.process;
        let Some(Pending { container, work }) = session.pending.take() else { return Ok(Reply::Done) };
        let begun = self.container(&container).and_then(|container| match work {
            Work::Program(plan) => container.exec(*plan),
            Work::Files(task) => container.visit(&task),
        });
        let started = begun.and_then(|running| {
            Process::new(Role::Further, running).map_err(|error| other(format!("take its streams: {error}")))
        });
        match started {
            Ok(process) => {
                self.processes.insert(key, process);
                Ok(Reply::Done)
            }
            Err(failure) => {
                self.sessions.remove(&id);
                Err(failure)
            }
        }
    }

    fn wait_process(&mut self, connection: u64, session: SessionId) -> Option<Outcome> {
        if let Some(place) = self.exits.iter().position(|(id, _)| *id == session) {
            return self.exits.remove(place).map(|(_, status)| Ok(Reply::Exited(status)));
        }
        if !self.sessions.contains_key(&session) {
            return Some(Err(no_session()));
        }
        self.waiting.insert(connection, Waiting::Process(session));
        None
    }

    fn wait_container(&mut self, connection: u64, id: String) -> Option<Outcome> {
        let ending = match self.container(&id) {
            Ok(container) => container.ending(),
            Err(failure) => return Some(Err(failure)),
        };
        let event = match ending {
            None => {
                self.waiting.insert(connection, Waiting::Container(id));
                return None;
            }
            Some(None) => ContainerEvent::Gone { last: None },
            Some(Some(status)) => ContainerEvent::Exited { status, restarting: false },
        };
        Some(Ok(Reply::Event(event)))
    }

    fn resize(&mut self, session: SessionId, size: TerminalSize) -> Outcome {
        let session = self.sessions.get(&session).ok_or_else(no_session)?;
        if let Some(terminal) = self.processes.get(&session.process).and_then(|process| process.ends.terminal()) {
            sbx_container::sys::set_terminal_size(terminal, size.rows, size.columns)
                .map_err(|error| Failure::from(&Error::new("resize the terminal", error)))?;
        }
        Ok(Reply::Done)
    }

    fn signal_process(&mut self, session: SessionId, signal: i32) -> Result<(), Failure> {
        let session = self.sessions.get(&session).ok_or_else(no_session)?;
        let process = self.processes.get(&session.process);
        process.map_or(Ok(()), |process| signal_process(process.pidfd(), signal))
    }
}

impl Session {
    fn new(process: u64, owner: u64, streams: Vec<StreamKind>) -> Self {
        Self {
            process,
            streams: std::collections::BTreeMap::new(),
            awaited: BTreeSet::from_iter(streams),
            ready: false,
            ends_input: false,
            pending: None,
            owner,
        }
    }
}

pub(super) fn no_container(id: &str) -> Failure {
    Failure { kind: FailureKind::NoSuch, message: format!("No such container: {id}") }
}

pub(super) fn no_session() -> Failure {
    Failure { kind: FailureKind::NoSuch, message: "No such exec instance".into() }
}
