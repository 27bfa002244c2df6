//! The state of a container and the one table of its transitions.
//!
//! ```text
//!            start            exit
//!  created ────────▶ running ───────▶ exited ──┐
//!     ▲                 │ ▲ │            │     │ start
//!     │           pause │ │ └─ exit ─▶ restarting ──▶ running
//!     │                 ▼ │ unpause      (policy)
//!     │               paused
//!  every state ── remove ──▶ removing ── fails ──▶ dead ── remove ──▶ removing
//! ```
//!
//! A state is changed only by [`State::apply`], so that an illegal move is an error with Docker's words and never a
//! file that contradicts itself.

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::timestamp::Timestamp;

/// Version of the stored form.
pub const SCHEMA: u32 = 1;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as in Docker's State.Status")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Removing,
    Dead,
}

impl Status {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// A process of the container exists, or is about to again.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// What is stored in `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where the container is in its life.
    pub status: Status,
    /// Process id of the first process as the host sees it; 0 when there is none.
    pub pid: i32,
    /// Of the last run; 128 + n for signal n.
    pub exit_code: i32,
    /// Why the last start or removal failed; empty when it did not.
    pub error: String,
    /// The last run ended because its memory ran out.
    pub oom_killed: bool,
    /// Of the last run.
    pub started_at: Timestamp,
    /// Of the last run.
    pub finished_at: Timestamp,
    /// Starts by the restart policy since the last start by a user.
    pub restart_count: u32,
    /// `None` without a health check.
    pub health: Option<Health>,
    /// A user stopped it, so that `unless-stopped` leaves it alone.
    pub stopped_by_user: bool,
    /// `/proc/sys/kernel/random/boot_id` of the last start: a running container of another boot does not run.
    pub boot_id: String,
    /// Process id of its supervisor; 0 when there is none.
    pub supervisor: i32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: Timestamp::NEVER,
            finished_at: Timestamp::NEVER,
            restart_count: 0,
            health: None,
            stopped_by_user: false,
            boot_id: String::new(),
            supervisor: 0,
        }
    }
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first process runs.
    Started {
        /// Of the first process as the host sees it.
        pid: i32,
        /// Of the supervisor.
        supervisor: i32,
        /// The boot in which this happens.
        boot_id: String,
        /// When.
        at: Timestamp,
        /// By the restart policy, not by a user.
        cause: StartCause,
        /// It has a health check.
        health_checked: bool,
    },
    /// The first process never ran.
    StartFailed {
        /// 125, 126 or 127.
        exit_code: i32,
        /// Why.
        error: String,
        /// When.
        at: Timestamp,
    },
    /// `pause`.
    Paused,
    /// `unpause`.
    Unpaused,
    /// The first process ended and the restart policy will start it again.
    ExitedForRestart(Exit),
    /// The first process ended for good.
    Exited(Exit),
    /// `stop` or `kill` by a user: remembered for the restart policy.
    StopRequested,
    /// A removal began.
    RemovalStarted,
    /// A removal could not be finished.
    RemovalFailed {
        /// Why.
        error: String,
    },
}

/// Who starts a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCause {
    /// A user: counters begin anew.
    User,
    /// The restart policy.
    Policy,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + n for signal n.
    pub exit_code: i32,
    /// The memory limit was hit.
    pub oom_killed: bool,
    /// When.
    pub at: Timestamp,
}

/// A move that the table does not have, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IllegalTransition {
    /// Where the container is.
    pub status: Status,
    message: String,
}

impl State {
    /// Makes the move, or says why it cannot be made; the state is unchanged then.
    pub fn apply(&mut self, event: Event) -> Result<(), IllegalTransition> {
        let next = self.next(&event)?;
        match event {
            Event::Started { pid, supervisor, boot_id, at, cause, health_checked } => {
                self.restart_count = match cause {
                    StartCause::User => 0,
                    StartCause::Policy => self.restart_count.saturating_add(1),
                };
                self.pid = pid;
                self.supervisor = supervisor;
                self.boot_id = boot_id;
                self.started_at = at;
                self.exit_code = 0;
                self.error.clear();
                self.oom_killed = false;
                self.stopped_by_user = false;
                self.health = health_checked.then(Health::default);
            }
            Event::StartFailed { exit_code, error, at } => {
                self.exit_code = exit_code;
                self.error = error;
                if self.status != Status::Created {
                    self.finished_at = at;
                }
                self.gone();
            }
            Event::ExitedForRestart(exit) | Event::Exited(exit) => {
                self.exit_code = exit.exit_code;
                self.oom_killed = exit.oom_killed;
                self.finished_at = exit.at;
                self.pid = 0;
                if next == Status::Exited {
                    self.gone();
                }
            }
            Event::StopRequested => self.stopped_by_user = true,
            Event::RemovalFailed { error } => self.error = error,
            Event::Paused | Event::Unpaused => {}
            Event::RemovalStarted => self.gone(),
        }
        self.status = next;
        Ok(())
    }

    fn gone(&mut self) {
        self.pid = 0;
        self.supervisor = 0;
    }

    /// The table: where an event leads from here.
    fn next(&self, event: &Event) -> Result<Status, IllegalTransition> {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        let next = match (self.status, event) {
            (Created | Exited | Restarting, Event::Started { .. }) => Running,
            (Created, Event::StartFailed { .. }) => Created,
            (Exited | Restarting | Running, Event::StartFailed { .. }) => Exited,
            (Running, Event::Paused) => Paused,
            (Paused, Event::Unpaused) => Running,
            (Running | Paused, Event::ExitedForRestart(_)) => Restarting,
            (Running | Paused | Restarting, Event::Exited(_)) => Exited,
            (status @ (Running | Paused | Restarting | Exited), Event::StopRequested) => status,
            (Created | Exited | Dead | Removing, Event::RemovalStarted) => Removing,
            (Removing, Event::RemovalFailed { .. }) => Dead,
            _ => return Err(self.illegal(event)),
        };
        Ok(next)
    }

    fn illegal(&self, event: &Event) -> IllegalTransition {
        let status = self.status;
        let message = match (status, event) {
            (Status::Paused, Event::Started { .. }) => {
                "cannot start a paused container, try unpause instead".to_owned()
            }
            (Status::Removing | Status::Dead, Event::Started { .. }) => {
                "container is marked for removal and cannot be started".to_owned()
            }
            (Status::Running, Event::Started { .. }) => "container is already running".to_owned(),
            (Status::Paused, Event::Paused) => "container is already paused".to_owned(),
            (Status::Restarting, Event::Paused) => {
                "container is restarting, wait until the container is running".to_owned()
            }
            (_, Event::Unpaused) => "container is not paused".to_owned(),
            (_, Event::Paused | Event::StopRequested | Event::Exited(_) | Event::ExitedForRestart(_)) => {
                "container is not running".to_owned()
            }
            (_, Event::RemovalStarted) => {
                format!("container is {}: stop the container before removing or force remove", status.as_str())
            }
            _ => format!("container is {}", status.as_str()),
        };
        IllegalTransition { status, message }
    }

    /// Whether it is marked as active by a boot of the host that is over.
    pub fn is_from_another_boot(&self, boot_id: &str) -> bool {
        self.status.is_active() && self.boot_id != boot_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Event {
        Event::Started {
            pid: 7,
            supervisor: 6,
            boot_id: "b".into(),
            at: Timestamp::from_unix(10, 0),
            cause: StartCause::User,
            health_checked: false,
        }
    }

    fn exit(exit_code: i32) -> Exit {
        Exit { exit_code, oom_killed: false, at: Timestamp::from_unix(20, 0) }
    }

    fn in_status(status: Status) -> State {
        State { status, ..State::default() }
    }

    #[test]
    fn the_table_is_exactly_this() {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        let events = [
            started(),
            Event::StartFailed { exit_code: 127, error: "no".into(), at: Timestamp::NEVER },
            Event::Paused,
            Event::Unpaused,
            Event::ExitedForRestart(exit(1)),
            Event::Exited(exit(1)),
            Event::StopRequested,
            Event::RemovalStarted,
            Event::RemovalFailed { error: "busy".into() },
        ];
        let table = [
            (Created, [Some(Running), Some(Created), None, None, None, None, None, Some(Removing), None]),
            (
                Running,
                [None, Some(Exited), Some(Paused), None, Some(Restarting), Some(Exited), Some(Running), None, None],
            ),
            (Paused, [None, None, None, Some(Running), Some(Restarting), Some(Exited), Some(Paused), None, None]),
            (Restarting, [Some(Running), Some(Exited), None, None, None, Some(Exited), Some(Restarting), None, None]),
            (Exited, [Some(Running), Some(Exited), None, None, None, None, Some(Exited), Some(Removing), None]),
            (Removing, [None, None, None, None, None, None, None, Some(Removing), Some(Dead)]),
            (Dead, [None, None, None, None, None, None, None, Some(Removing), None]),
        ];
        for (status, row) in table {
            for (event, expected) in events.iter().zip(row) {
                let mut state = in_status(status);
                let before = state.clone();
                match (state.apply(event.clone()), expected) {
                    (Ok(()), Some(next)) => assert_eq!(state.status, next, "{status:?} {event:?}"),
                    (Err(error), None) => {
                        assert_eq!(state, before, "an illegal move changed the state");
                        assert!(!error.to_string().is_empty());
                    }
                    (result, expected) => {
                        panic!("{status:?} {event:?}: {result:?}, expected {expected:?}")
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_leaves_its_exit_and_the_next_one_begins_clean() {
        let mut state = State::default();
        state.apply(started()).unwrap();
        assert_eq!((state.pid, state.supervisor), (7, 6));
        state.apply(Event::StopRequested).unwrap();
        state.apply(Event::Exited(Exit { exit_code: 137, oom_killed: true, at: Timestamp::from_unix(20, 0) })).unwrap();
        assert_eq!((state.pid, state.supervisor, state.exit_code, state.oom_killed), (0, 0, 137, true));
        assert!(state.stopped_by_user);
        state.apply(started()).unwrap();
        assert_eq!((state.exit_code, state.oom_killed, state.stopped_by_user), (0, false, false));
    }

    #[test]
    fn restarts_are_counted_until_a_user_starts() {
        let mut state = State::default();
        state.apply(started()).unwrap();
        for count in 1..=3 {
            state.apply(Event::ExitedForRestart(exit(1))).unwrap();
            let Event::Started { pid, supervisor, boot_id, at, .. } = started() else { unreachable!() };
            let again =
                Event::Started { pid, supervisor, boot_id, at, cause: StartCause::Policy, health_checked: true };
            state.apply(again).unwrap();
            assert_eq!(state.restart_count, count);
            assert!(state.health.is_some());
        }
        state.apply(Event::Exited(exit(0))).unwrap();
        state.apply(started()).unwrap();
        assert_eq!(state.restart_count, 0);
    }

    #[test]
    fn another_boot_is_noticed_only_for_active_containers() {
        let mut state = State::default();
        assert!(!state.is_from_another_boot("c"));
        state.apply(started()).unwrap();
        assert!(!state.is_from_another_boot("b"));
        assert!(state.is_from_another_boot("c"));
    }
}
