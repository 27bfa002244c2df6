//! What clients ask of the supervisor.

use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use sbx_protocol::{
    AttachRequest, ContainerEvent, ExecRequest, ExitStatus, Failure, FailureKind, FilesRequest, Hello, Purpose, Reply,
    Request, SessionId, StreamKind, TerminalSize,
};
use sbx_sandbox::state::{Event, StartCause, Status};
use sbx_sandbox::timestamp::Timestamp;
use sbx_vm_mode::Admitted;

use super::connection::{Connection, Heard};
use super::health::Schedule;
use super::process::{Process, Role};
use super::streams::{Pending, Session, Stream, session_id};
use super::supervisor::{FIRST, Phase, Stopping, Supervisor, Waiting};
use crate::failure;
use crate::standby::Duty;

type Outcome = Result<Reply, Failure>;

impl Supervisor {
    /// Takes what a connection has to say, and sends it what is left to say.
    pub(super) fn serve(&mut self, id: u64, flags: PollFlags) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut alive = connection.flush();
        if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            alive &= connection.fill();
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
        self.end_visits_of(id);
    }

    /// Nobody wants the rest of an archive whose reader or writer has gone.
    fn end_visits_of(&mut self, owner: u64) {
        for session in self.sessions.values().filter(|session| session.owner == owner) {
            if let Some(process) = self.processes.get(&session.process)
                && process.role == Role::Files
            {
                // One that has ended by itself is as good.
                let _ = self.sandbox.signal(&process.handle, libc::SIGKILL);
            }
        }
    }

    /// Works on every message of a connection that has arrived, one at a time.
    fn hear(&mut self, id: u64) {
        while let Some(connection) = self.connections.get_mut(&id) {
            match connection.hear() {
                Heard::Nothing => return,
                Heard::End => return self.drop_connection(id),
                Heard::Hello(hello) => self.greet(id, &hello),
                Heard::Request(request) => {
                    connection.busy = true;
                    connection.is_interested |=
                        matches!(*request, Request::Start { .. } | Request::Attach(_) | Request::Exec(_));
                    self.work(id, *request);
                }
            }
        }
    }

    fn greet(&mut self, id: u64, hello: &Hello) {
        match hello.purpose {
            Purpose::Control => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.is_control = true;
                }
            }
            Purpose::Stream { session, kind } => {
                let Some(connection) = self.connections.remove(&id) else { return };
                let (socket, early) = connection.into_stream();
                // A stream for a session that does not exist is closed by being dropped.
                let Some(session) = self.sessions.get_mut(&session) else { return };
                if kind == StreamKind::Stdin
                    && !early.is_empty()
                    && let Some(process) = self.processes.get_mut(&session.process)
                {
                    process.ends.write(&early);
                }
                session.streams.insert(kind, Stream::new(socket));
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
            Request::WaitProcess { session } => return self.wait_process(id, session),
            Request::WaitContainer { container } => match self.check(&container) {
                Ok(()) => {
                    self.waiting.insert(id, Waiting::Container);
                    return;
                }
                Err(failure) => Err(failure),
            },
            Request::Stop { container, signal, timeout, restart } => {
                let stopped = self.check(&container).and_then(|()| self.stop(signal, timeout, restart));
                match stopped {
                    Ok(true) => {
                        self.waiting.insert(id, Waiting::Stop);
                        return;
                    }
                    Ok(false) => Ok(Reply::Done),
                    Err(failure) => Err(failure),
                }
            }
            Request::Kill { container, signal } => match self.check(&container).and_then(|()| self.kill(signal)) {
                Ok(Reply::Done) if signal == libc::SIGKILL => {
                    self.waiting.insert(id, Waiting::Death);
                    return;
                }
                outcome => outcome,
            },
            other => self.work_at_once(id, other),
        };
        self.answer(id, &outcome.unwrap_or_else(Reply::Failed));
    }

    /// Requests that are answered without waiting for anything.
    fn work_at_once(&mut self, id: u64, request: Request) -> Outcome {
        match request {
            Request::Start { container } => {
                self.check(&container)?;
                self.start()
            }
            Request::Attach(request) => self.attach(id, &request),
            Request::Exec(request) => self.prepare_exec(id, *request),
            Request::Files(request) => self.prepare_files(id, *request),
            Request::Ready { session } => self.ready(session),
            Request::Resize { session, size } => self.resize(session, size),
            Request::SignalProcess { session, signal } => self.signal_process(session, signal),
            Request::Pause { container } => {
                self.check(&container)?;
                self.pause()
            }
            Request::Unpause { container } => {
                self.check(&container)?;
                self.unpause()
            }
            Request::Top { container } => {
                self.check_running(&container)?;
                self.sandbox.processes().map(Reply::Processes)
            }
            Request::Stats { container } => {
                self.check_running(&container)?;
                self.sandbox.stats().map(|sample| Reply::Stats(Box::new(sample)))
            }
            Request::WaitProcess { .. }
            | Request::WaitContainer { .. }
            | Request::Stop { .. }
            | Request::Kill { .. } => Err(failure::other("a request that waits")),
            Request::Admit { container } => {
                self.check_running(&container)?;
                self.admit(id)
            }
            Request::Wake(_)
            | Request::Create(_)
            | Request::PowerOff
            | Request::Locate { .. }
            | Request::Remove { .. } => Err(failure::other("a request for the agent of a virtual machine")),
        }
    }

    fn check(&self, container: &str) -> Result<(), Failure> {
        if container == self.spec.id.as_str() {
            return Ok(());
        }
        Err(Failure { kind: FailureKind::NoSuch, message: format!("No such container: {container}") })
    }

    fn check_running(&self, container: &str) -> Result<(), Failure> {
        self.check(container)?;
        if matches!(self.phase, Phase::Running { .. }) {
            return Ok(());
        }
        Err(failure::conflict(format!("container {} is not running", self.spec.id)))
    }

    /// Lets another container into the machine, with the two descriptors that have come with the request.
    fn admit(&mut self, id: u64) -> Outcome {
        let files = self.connections.get_mut(&id).map(Connection::take_files).unwrap_or_default();
        let odd = |_| failure::other("not the descriptors of somebody who moves in");
        let [control, gate] = files.try_into().map_err(odd)?;
        self.sandbox.admit(control, gate).map(|admitted| {
            let Admitted { pid, first_port } = admitted;
            Reply::Admitted { pid, first_port }
        })
    }

    fn start(&mut self) -> Outcome {
        if self.phase != Phase::Prepared {
            return Err(failure::conflict("the container has been started already"));
        }
        let started = match self.duty {
            Duty::Run => self.start_container(StartCause::User),
            Duty::Files => self.keep_container(),
        };
        match started {
            Ok(pid) => Ok(Reply::Started { pid }),
            Err(failure) => {
                self.phase = Phase::Over;
                Err(failure)
            }
        }
    }

    /// Starts the container; on failure the state says why.
    pub(super) fn start_container(&mut self, cause: StartCause) -> Result<i32, Failure> {
        match self.sandbox.launch() {
            Ok((started, pid)) => {
                let now = Instant::now();
                self.processes.insert(FIRST, Process::new(Role::First, started));
                self.phase = Phase::Running { since: now };
                self.record.tell_network(&self.sandbox.network_facts());
                self.health = Schedule::new(self.spec.config.healthcheck.as_ref(), now);
                self.record.apply(Event::Started {
                    pid,
                    supervisor: std::process::id().cast_signed(),
                    boot_id: crate::facts::boot_id(),
                    at: Timestamp::now(),
                    cause,
                    health_checked: self.health.is_some(),
                });
                Ok(pid)
            }
            Err(failure) => {
                // Why it failed is known already.
                let _ = self.sandbox.end_container();
                self.record.apply(Event::StartFailed {
                    exit_code: failure::exit_code(failure.kind),
                    error: failure.message.clone(),
                    at: Timestamp::now(),
                });
                Err(failure)
            }
        }
    }

    /// Makes the container up without its program. To everybody else it is as stopped as before.
    fn keep_container(&mut self) -> Result<i32, Failure> {
        match self.sandbox.launch() {
            Ok((started, pid)) => {
                self.processes.insert(FIRST, Process::new(Role::Keeper, started));
                self.phase = Phase::Kept;
                Ok(pid)
            }
            Err(failure) => {
                // Why it failed is known already.
                let _ = self.sandbox.end_container();
                Err(failure)
            }
        }
    }

    fn attach(&mut self, owner: u64, request: &AttachRequest) -> Outcome {
        self.check(&request.container)?;
        if self.record.status() == Status::Paused {
            return Err(failure::conflict("You cannot attach to a paused container, unpause it first"));
        }
        if matches!(self.phase, Phase::Waiting { .. }) {
            return Err(failure::conflict("You cannot attach to a restarting container, wait until it is running"));
        }
        let id = session_id(&mut self.counter);
        self.sessions.insert(id, Session::new(FIRST, owner));
        Ok(Reply::Session(id))
    }

    fn prepare_exec(&mut self, owner: u64, request: ExecRequest) -> Outcome {
        self.check_running(&request.container)?;
        if self.record.status() == Status::Paused {
            return Err(failure::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                self.spec.id
            )));
        }
        Ok(self.prepare(owner, Pending::Exec(Box::new(request.process))))
    }

    fn prepare_files(&mut self, owner: u64, request: FilesRequest) -> Outcome {
        self.check(&request.container)?;
        if !matches!(self.phase, Phase::Running { .. } | Phase::Kept) {
            return Err(failure::conflict(format!("container {} is not up", self.spec.id)));
        }
        Ok(self.prepare(owner, Pending::Files(Box::new(request.task))))
    }

    fn prepare(&mut self, owner: u64, pending: Pending) -> Reply {
        self.counter += 1;
        let mut session = Session::new(self.counter, owner);
        session.pending = Some(pending);
        let id = session_id(&mut self.counter);
        self.sessions.insert(id, session);
        Reply::Session(id)
    }

    fn ready(&mut self, id: SessionId) -> Outcome {
        let session = self.sessions.get_mut(&id).ok_or_else(no_session)?;
        session.ready = true;
        let key = session.process;
        if let Some(pending) = session.pending.take() {
            let started = match pending {
                Pending::Exec(plan) => self.sandbox.exec(&plan).map(|started| Process::new(Role::Exec, started)),
                Pending::Files(task) => self.sandbox.visit(&task).map(|started| Process::new(Role::Files, started)),
            };
            match started {
                Ok(process) => drop(self.processes.insert(key, process)),
                Err(failure) => {
                    self.sessions.remove(&id);
                    return Err(failure);
                }
            }
        }
        Ok(Reply::Done)
    }

    fn wait_process(&mut self, connection: u64, session: SessionId) {
        if let Some(status) = self.exits.remove(&session) {
            return self.answer(connection, &Reply::Exited(status));
        }
        match self.sessions.get(&session) {
            Some(found) => {
                let process = found.process;
                self.waiting.insert(connection, Waiting::Process(session, process));
            }
            None => self.answer(connection, &Reply::Failed(no_session())),
        }
    }

    fn resize(&mut self, session: SessionId, size: TerminalSize) -> Outcome {
        let session = self.sessions.get(&session).ok_or_else(no_session)?;
        if let Some(process) = self.processes.get(&session.process) {
            self.sandbox.resize(&process.handle, size)?;
        }
        Ok(Reply::Done)
    }

    fn signal_process(&mut self, session: SessionId, signal: i32) -> Outcome {
        let session = self.sessions.get(&session).ok_or_else(no_session)?;
        if let Some(process) = self.processes.get(&session.process) {
            self.sandbox.signal(&process.handle, signal)?;
        }
        Ok(Reply::Done)
    }

    fn kill(&mut self, signal: i32) -> Outcome {
        if !matches!(self.phase, Phase::Running { .. }) {
            return Err(failure::conflict(format!("container {} is not running", self.spec.id)));
        }
        if signal == libc::SIGKILL || signal == self.stop_signal() {
            self.record.apply(Event::StopRequested);
        }
        if signal == libc::SIGKILL {
            self.thaw();
        }
        self.send_first(signal)?;
        if signal == self.stop_signal() {
            self.thaw();
        }
        Ok(Reply::Done)
    }

    fn stop_signal(&self) -> i32 {
        sbx_sandbox::signal::parse(&self.spec.config.stop_signal).unwrap_or(libc::SIGTERM)
    }

    fn send_first(&self, signal: i32) -> Result<(), Failure> {
        let Some(process) = self.processes.get(&FIRST) else { return Ok(()) };
        self.sandbox.signal(&process.handle, signal)
    }

    /// Begins a stop; `false` when there is nothing to wait for.
    fn stop(&mut self, signal: i32, timeout: i64, restart: bool) -> Result<bool, Failure> {
        match self.phase {
            Phase::Running { .. } => {
                let timeout = u64::try_from(timeout).ok().map(Duration::from_secs);
                self.begin_stop(signal, timeout, restart);
                Ok(true)
            }
            Phase::Waiting { .. } if restart => {
                self.start_container(StartCause::User)?;
                Ok(false)
            }
            Phase::Waiting { .. } => {
                self.record.apply(Event::StopRequested);
                let status = ExitStatus { code: self.record.state().exit_code, oom_killed: false };
                let at = Timestamp::now();
                self.record.apply(Event::Exited(sbx_sandbox::state::Exit {
                    exit_code: status.code,
                    oom_killed: false,
                    at,
                }));
                self.phase = Phase::Over;
                self.announce(ContainerEvent::Exited { status, restarting: false });
                Ok(false)
            }
            Phase::Prepared | Phase::Kept | Phase::Over => Ok(false),
        }
    }

    /// Sends the stop signal and sets the moment at which patience ends.
    pub(super) fn begin_stop(&mut self, signal: i32, timeout: Option<Duration>, restart: bool) {
        self.record.apply(Event::StopRequested);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.stopping = Some(Stopping { deadline, restart });
        // A signal that cannot be sent leaves the kill at the deadline.
        let _ = self.send_first(signal);
        self.thaw();
    }

    fn thaw(&mut self) {
        if self.record.status() == Status::Paused && self.sandbox.unpause().is_ok() {
            self.record.apply(Event::Unpaused);
        }
    }

    fn pause(&mut self) -> Outcome {
        match (self.phase, self.record.status()) {
            (Phase::Running { .. }, Status::Paused) => {
                Err(failure::conflict(format!("container {} is already paused", self.spec.id)))
            }
            (Phase::Running { .. }, _) => {
                self.sandbox.pause()?;
                self.record.apply(Event::Paused);
                Ok(Reply::Done)
            }
            (Phase::Waiting { .. }, _) => Err(failure::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                self.spec.id
            ))),
            _ => Err(failure::conflict(format!("container {} is not running", self.spec.id))),
        }
    }

    fn unpause(&mut self) -> Outcome {
        if self.record.status() != Status::Paused {
            return Err(failure::conflict(format!("container {} is not paused", self.spec.id)));
        }
        self.sandbox.unpause()?;
        self.record.apply(Event::Unpaused);
        Ok(Reply::Done)
    }
}

fn no_session() -> Failure {
    Failure { kind: FailureKind::NoSuch, message: "No such exec instance".into() }
}
