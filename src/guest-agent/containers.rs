//! One container of the machine, from its plan to its end.
//!
//! ```text
//! Create           Start                the first process is over
//!   └─▶ Prepared ─────────▶ Running ──────────────────────────────▶ Over
//!          │ its process ended before, or cannot be started          ▲
//!          └──────────────────────────────────────────────────────────
//! ```

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sbx_container::cgroup::Cgroup;
use sbx_container::files::{self, Task};
use sbx_container::overlay::{self, OverlayOptions};
use sbx_container::plan::{ContainerPlan, Namespace, ProcessPlan};
use sbx_container::{Error, Handles, Prepared, Running, Target, usage};
use sbx_protocol::guest::{CreateRequest, OverlayRoot};
use sbx_protocol::{ExitStatus, Failure, FailureKind, ProcessRow, StatsSample};

use crate::{machine, uplink};

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    plan: ContainerPlan,
    /// Key of its first process in the server's table.
    pub(crate) first: u64,
    /// The machine's ends of its interfaces.
    links: Vec<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    Prepared(Box<Prepared>),
    Running(Live),
    /// Its start has failed, now or as soon as its process had been made.
    Failed(Error),
    Over(ExitStatus),
}

/// What exists only while the container runs.
#[derive(Debug)]
struct Live {
    pid: i32,
    pidfd: OwnedFd,
    cgroup: Cgroup,
    paused: bool,
}

/// What is handed to a container besides its plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// This program's own file, for the reaper.
    pub(crate) program: &'a OwnedFd,
    /// A directory over which the child attaches its root.
    pub(crate) stage: &'a Path,
}

impl Container {
    /// Makes the container up to its start, out of what the machine has been furnished with.
    pub(crate) fn create(request: CreateRequest, first: u64, place: Place<'_>) -> Result<Self, Error> {
        let CreateRequest { root, uplinks, mut plan, .. } = request;
        not_like_the_agent(&mut plan.process);
        let user_namespace = match (&plan.namespaces.user, &plan.id_maps) {
            (Namespace::New, Some(maps)) => Some(sbx_container::user_namespace(maps)?),
            _ => None,
        };
        let handles = Handles {
            root: stack(&root, user_namespace.as_ref().map(AsFd::as_fd))?,
            stage: place.stage.to_owned(),
            user_namespace,
            own_program: Some(
                place.program.try_clone().map_err(|error| Error::new("duplicate the reaper's file", error))?,
            ),
        };
        let prepared = sbx_container::create(&plan, handles)?;
        // The child builds its root meanwhile.
        let links = uplink::connect(&uplinks, &plan, prepared.pid())?;
        Ok(Self { plan, first, links, state: State::Prepared(Box::new(prepared)) })
    }

    /// Runs the program.
    pub(crate) fn start(&mut self) -> Result<Running, Failure> {
        let prepared = self.take_prepared()?;
        let started = prepared.start().and_then(|(running, cgroup)| {
            let pidfd = running.pidfd.try_clone().map_err(|error| Error::new("duplicate a pidfd", error))?;
            let live = Live { pid: running.pid, pidfd, cgroup, paused: false };
            Ok((running, live))
        });
        match started {
            Ok((running, live)) => {
                self.state = State::Running(live);
                Ok(running)
            }
            Err(error) => {
                self.cut_off();
                let failure = Failure::from(&error);
                self.state = State::Failed(error);
                Err(failure)
            }
        }
    }

    fn take_prepared(&mut self) -> Result<Box<Prepared>, Failure> {
        let meanwhile = State::Failed(Error::new("start", "it was begun and not finished"));
        match std::mem::replace(&mut self.state, meanwhile) {
            State::Prepared(prepared) => Ok(prepared),
            before => {
                let failure = match &before {
                    State::Failed(error) => Failure::from(error),
                    _ => conflict("the container has been started already".to_owned()),
                };
                self.state = before;
                Err(failure)
            }
        }
    }

    /// Its process has ended before its start: finds out why, for whoever asks for the start.
    pub(crate) fn ended_early(&mut self) {
        // What this returns is kept in the state.
        let _ = self.start();
    }

    /// Whether its first process, waiting for the start, has this id.
    pub(crate) fn waits_as(&self, pid: i32) -> bool {
        matches!(&self.state, State::Prepared(prepared) if prepared.pid() == pid)
    }

    /// `None` while it may still run; then how it ended, if it ran.
    pub(crate) fn ending(&self) -> Option<Option<ExitStatus>> {
        match &self.state {
            State::Prepared(_) | State::Running(_) => None,
            State::Failed(_) => Some(None),
            State::Over(status) => Some(Some(*status)),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    fn live(&self) -> Result<&Live, Failure> {
        match &self.state {
            State::Running(live) => Ok(live),
            _ => Err(not_running(&self.plan.id)),
        }
    }

    /// Its first process.
    pub(crate) fn pid(&self) -> Result<i32, Failure> {
        Ok(self.live()?.pid)
    }

    /// Runs a further process.
    pub(crate) fn exec(&self, mut process: ProcessPlan) -> Result<Running, Failure> {
        let live = self.live()?;
        if live.paused {
            let id = &self.plan.id;
            return Err(conflict(format!("Container {id} is paused, unpause the container before exec")));
        }
        not_like_the_agent(&mut process);
        sbx_container::join(self.target(live), &process).map_err(|error| Failure::from(&error))
    }

    /// Does something with its files, frozen or not.
    pub(crate) fn visit(&self, task: &Task) -> Result<Running, Failure> {
        files::visit(self.target(self.live()?), task).map_err(|error| Failure::from(&error))
    }

    fn target<'a>(&'a self, live: &'a Live) -> Target<'a> {
        Target { plan: &self.plan, pid: live.pid, pidfd: live.pidfd.as_fd(), cgroup: &live.cgroup }
    }

    /// Signals the first process.
    pub(crate) fn kill(&mut self, signal: i32) -> Result<(), Failure> {
        if signal == libc::SIGKILL && self.live()?.paused {
            self.unpause()?;
        }
        signal_process(self.live()?.pidfd.as_fd(), signal)
    }

    pub(crate) fn pause(&mut self) -> Result<(), Failure> {
        if self.live()?.paused {
            return Err(conflict(format!("container {} is already paused", self.plan.id)));
        }
        self.live()?.cgroup.freeze().map_err(|error| other(error.to_string()))?;
        self.set_paused(true);
        Ok(())
    }

    pub(crate) fn unpause(&mut self) -> Result<(), Failure> {
        if !self.live()?.paused {
            return Err(conflict(format!("container {} is not paused", self.plan.id)));
        }
        self.live()?.cgroup.thaw().map_err(|error| other(error.to_string()))?;
        self.set_paused(false);
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) {
        if let State::Running(live) = &mut self.state {
            live.paused = paused;
        }
    }

    /// Its processes. Users are numbers: whose names they have is the host's to know.
    pub(crate) fn processes(&self) -> Result<Vec<ProcessRow>, Failure> {
        let pids = self.live()?.cgroup.pids().map_err(|error| other(error.to_string()))?;
        usage::rows(&pids).map_err(|error| Failure::from(&error))
    }

    pub(crate) fn stats(&self) -> Result<StatsSample, Failure> {
        let live = self.live()?;
        let names: Vec<&str> = self.plan.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let sample = machine::size().and_then(|machine| {
            let networks = usage::interfaces(live.pid, &names)?;
            usage::sample(&live.cgroup, machine, networks)
        });
        sample.map_err(|error| Failure::from(&error))
    }

    /// The first process has ended: kills what it left behind, where its end is not the end of all.
    pub(crate) fn kill_rest(&self) {
        if let State::Running(live) = &self.state
            && self.plan.namespaces.pid != Namespace::New
        {
            // What cannot be killed keeps its cgroup, and the machine's end takes it.
            let _ = live.cgroup.kill();
        }
    }

    /// The first process has ended with `code`, and its output too: takes away what exists only while it runs.
    pub(crate) fn end(&mut self, code: i32) -> ExitStatus {
        let mut oom_killed = false;
        if let State::Running(live) = &self.state {
            // A counter that cannot be read is that of a group that is gone.
            oom_killed = live.cgroup.oom_kill_count().is_ok_and(|count| count > 0);
            let _ = live.cgroup.remove();
        }
        self.cut_off();
        let status = ExitStatus { code, oom_killed };
        self.state = State::Over(status);
        status
    }

    fn cut_off(&mut self) {
        if !self.links.is_empty() {
            uplink::disconnect(&std::mem::take(&mut self.links));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.cut_off();
    }
}

/// The agent is not to be killed when memory runs out; what it starts is.
fn not_like_the_agent(process: &mut ProcessPlan) {
    process.oom_score_adj.get_or_insert(0);
}

/// The root as a detached mount: the layers as they are mounted, under the writable layer.
fn stack(root: &OverlayRoot, user_namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let open = |path: &String| File::open(path).map_err(|error| Error::new(format!("open the layer {path}"), error));
    let layers = root.layers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<BorrowedFd<'_>> = layers.iter().map(AsFd::as_fd).collect();
    let writable = Path::new(&root.writable);
    let made = match overlay::has_upper(writable) {
        true => Ok(()),
        false => overlay::make_upper(writable, &layers),
    };
    let options = OverlayOptions { user_namespace, ..OverlayOptions::default() };
    made.and_then(|()| overlay::overlay(&layers, Some(writable), &options))
        .map_err(|error| Error::new("root file system", error))
}

/// Signals a process; one that has ended and waits to be reaped is as good.
pub(crate) fn signal_process(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Failure> {
    match sbx_container::sys::pidfd_send_signal(pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        sent => sent.map_err(|error| other(format!("send signal {signal}: {error}"))),
    }
}

pub(crate) fn not_running(id: &str) -> Failure {
    conflict(format!("container {id} is not running"))
}

pub(crate) fn conflict(message: String) -> Failure {
    Failure { kind: FailureKind::Conflict, message }
}

pub(crate) fn other(message: String) -> Failure {
    Failure { kind: FailureKind::Other, message }
}
