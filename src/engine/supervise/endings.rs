//! What follows when a process is over: its sessions end with their last bytes, and with the first process the container
//! does, or starts again.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sbx_protocol::{ContainerEvent, ExitStatus, Reply, SessionId, StreamKind};
use sbx_sandbox::state::{Event, Exit, StartCause};
use sbx_sandbox::timestamp::Timestamp;

use super::process::{Process, Role};
use super::streams::CHUNK;
use super::supervisor::{FIRST, Phase, Supervisor, Waiting};
use crate::reap::KILLED;

/// More than what a pipe holds (F_SETPIPE_SZ of an unprivileged process).
const LAST_CHUNKS: usize = (1 << 20) / CHUNK + 1;

/// Longest wait for the end of a process that was killed.
const DEATH: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Looks for processes that are over.
    pub(super) fn settle_processes(&mut self) {
        let now = Instant::now();
        let over: Vec<u64> =
            self.processes.iter().filter(|(_, process)| process.is_over(now)).map(|(key, _)| *key).collect();
        for key in over {
            self.take_rest(key);
            if let Some(mut process) = self.processes.remove(&key) {
                process.ends.abandon();
                self.process_over(key, &process, now);
            }
        }
    }

    /// Takes what there still is of a process's output.
    fn take_rest(&mut self, key: u64) {
        for kind in [StreamKind::Stdout, StreamKind::Stderr] {
            let _ = (0..LAST_CHUNKS).take_while(|_| self.take_output(key, kind)).count();
        }
    }

    fn process_over(&mut self, key: u64, process: &Process, now: Instant) {
        let code = process.exit_code.unwrap_or(255);
        let oom_killed = key == FIRST && self.sandbox.oom_killed(&process.handle);
        let status = ExitStatus { code, oom_killed };
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.process == key).map(|(id, _)| *id).collect();
        match process.role {
            Role::Probe => self.probe_over(process, now),
            Role::Keeper => self.kept_over(now),
            Role::Exec | Role::Files => {
                for id in sessions {
                    self.end_session(id);
                    self.exits.insert(id, status);
                    self.tell_waiting(
                        |waiting| matches!(waiting, Waiting::Process(session, _) if *session == id),
                        &Reply::Exited(status),
                    );
                }
            }
            Role::First => self.first_over(status, now),
        }
    }

    pub(super) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for (_, mut stream) in session.streams {
            if stream.end() {
                self.counter += 1;
                self.farewells.insert(self.counter, stream);
            }
        }
    }

    /// The container's first process is over: stop, restart or end.
    fn first_over(&mut self, status: ExitStatus, now: Instant) {
        self.last_exit = Some(status);
        self.health = None;
        self.end_visits(now);
        if let Some(log) = &mut self.log {
            // Like every write of the log: a hole in it must not keep the container from ending.
            let _ = log.finish();
        }
        let reason = self.sandbox.end_container();
        let ran = match self.phase {
            Phase::Running { since } => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        let exit = Exit { exit_code: status.code, oom_killed: status.oom_killed, at: Timestamp::now() };
        let stopping = self.stopping.take();
        if stopping.is_some_and(|stopping| stopping.restart) {
            self.record.apply(Event::Exited(exit));
            self.start_again(StartCause::User);
            self.tell_waiting(|waiting| *waiting == Waiting::Death, &Reply::Done);
            return;
        }
        let again = if stopping.is_some() || self.record.stopped_by_user() {
            None
        } else {
            self.restarts.after(status.code, ran)
        };
        match again {
            Some(wait) => {
                self.record.apply(Event::ExitedForRestart(exit));
                self.note_end(reason);
                self.phase = Phase::Waiting { until: now + wait };
                self.announce(ContainerEvent::Exited { status, restarting: true });
            }
            None => {
                self.record.apply(Event::Exited(exit));
                self.note_end(reason);
                self.end_execs(now);
                self.announce(ContainerEvent::Exited { status, restarting: false });
                self.phase = Phase::Over;
            }
        }
    }

    /// What `exec` has started and has not been seen to end has died with the container.
    fn end_execs(&mut self, now: Instant) {
        for key in self.with_role(Role::Exec) {
            self.give_up(key, now);
        }
    }

    /// Whoever is at the container's files has to go: they would keep its mounts, which are about to be taken away or made
    /// once more.
    fn end_visits(&mut self, now: Instant) {
        for key in self.with_role(Role::Files) {
            self.kill_and_wait(key);
            self.give_up(key, now);
        }
    }

    fn with_role(&self, role: Role) -> Vec<u64> {
        self.processes.iter().filter(|(_, process)| process.role == role).map(|(key, _)| *key).collect()
    }

    fn give_up(&mut self, key: u64, now: Instant) {
        self.take_rest(key);
        if let Some(mut process) = self.processes.remove(&key) {
            process.reap();
            process.exit_code.get_or_insert(KILLED);
            process.ends.abandon();
            self.process_over(key, &process, now);
        }
    }

    /// Kills a process of ours and waits for its end, for a moment: it may hang at a file.
    fn kill_and_wait(&mut self, key: u64) {
        let Some(process) = self.processes.get(&key) else { return };
        if self.sandbox.signal(&process.handle, libc::SIGKILL).is_ok() {
            let mut end = [PollFd::new(process.end(), PollFlags::POLLIN)];
            let _ = poll(&mut end, PollTimeout::try_from(DEATH).unwrap_or(PollTimeout::MAX));
        }
    }

    /// Nobody is at the files of a container that does not run: it goes down again.
    pub(super) fn let_go(&mut self) {
        self.kill_and_wait(FIRST);
        self.give_up(FIRST, Instant::now());
    }

    fn kept_over(&mut self, now: Instant) {
        self.end_visits(now);
        // What cannot be taken away now is found by its name later, as after every run.
        let _ = self.sandbox.end_container();
        self.phase = Phase::Over;
    }

    /// Why the container has ended where that was not its own doing. Stays in the state until the next start.
    fn note_end(&mut self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.record.note_error(&reason);
        }
    }

    pub(super) fn start_again(&mut self, cause: StartCause) {
        match self.start_container(cause) {
            Ok(_) => self.tell_waiting(|waiting| *waiting == Waiting::Stop, &Reply::Done),
            Err(failure) => {
                let status = ExitStatus { code: crate::failure::exit_code(failure.kind), oom_killed: false };
                self.tell_waiting(|waiting| *waiting == Waiting::Stop, &Reply::Failed(failure));
                self.announce(ContainerEvent::Exited { status, restarting: false });
                self.phase = Phase::Over;
            }
        }
    }
}
