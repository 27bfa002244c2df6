//! Starting a container and standing at its streams.

use std::time::Duration;

use anyhow::Context as _;
use sbx_protocol::{ExecRequest as ExecMessage, StreamKind};
use sbx_sandbox::id::Id;
use sbx_sandbox::plan::{ExecRequest, exec_process};
use sbx_sandbox::state::Status;

use crate::client::{Client, Session};
use crate::remove::{AnonymousVolumes, forget};
use crate::standby::{Duty, Standby};
use crate::{Engine, Error, ErrorKind, Result, reap, spawn};

/// A container that runs, a connection to its supervisor, and perhaps a session.
#[derive(Debug)]
pub struct Run {
    /// The container.
    pub id: Id,
    /// For requests.
    pub client: Client,
    /// Its streams, or those of a process of `exec`.
    pub session: Option<Session>,
}

impl Engine {
    /// Executes a supervisor for a container that is going to be made and started: it gets ready meanwhile.
    pub fn stand_by(&self, id: &Id) -> Result<Standby> {
        Ok(Standby::execute(&self.paths, id, Duty::Run)?)
    }

    /// Starts a container that does not run, with a session at `streams` from its first byte on. `None` where it runs
    /// already and no streams were asked for.
    pub fn start(&self, id: &Id, streams: &[StreamKind]) -> Result<Option<Run>> {
        let state = self.state(id)?;
        match state.status {
            Status::Running | Status::Restarting if streams.is_empty() => return Ok(None),
            Status::Running | Status::Restarting => return self.attach(id, streams).map(Some),
            Status::Paused => {
                return Err(Error::new(ErrorKind::Conflict, "cannot start a paused container, try unpause instead"));
            }
            Status::Removing | Status::Dead => {
                let message = "container is marked for removal and cannot be started";
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            Status::Created | Status::Exited => {}
        }
        self.wait_for_the_last_supervisor(id)?;
        self.check_joined(id)?;
        self.start_with(self.stand_by(id)?, streams).map(Some)
    }

    /// Starts a container that has just been created and has not run yet, by the supervisor that stands by for it.
    pub fn start_created(&self, standby: Standby, streams: &[StreamKind]) -> Result<Run> {
        self.check_joined(standby.id())?;
        self.start_with(standby, streams)
    }

    fn start_with(&self, standby: Standby, streams: &[StreamKind]) -> Result<Run> {
        let id = &standby.id().clone();
        let client = spawn::spawn(&self.paths, standby)?;
        let mut run = Run { id: id.clone(), client, session: None };
        let started = (|| {
            if !streams.is_empty() {
                run.session = Some(run.client.attach(id.as_str(), streams)?);
            }
            run.client.start(id.as_str())
        })();
        match started {
            Ok(_pid) => Ok(run),
            Err(error) => {
                drop(run);
                self.clear_failed_start(id)?;
                Err(error.into())
            }
        }
    }

    /// The supervisor of the last run may still be taking things away.
    fn wait_for_the_last_supervisor(&self, id: &Id) -> Result<()> {
        if self.paths.sandbox(id.as_str()).lock().exists() && !reap::wait_until_gone(&self.paths, id.as_str()) {
            let message = format!("container {id} is still ending; try again");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(())
    }

    /// `--rm` holds for a container that could not be started as well.
    fn clear_failed_start(&self, id: &Id) -> Result<()> {
        reap::wait_until_gone(&self.paths, id.as_str());
        if let Ok(spec) = self.store.spec(id)
            && spec.host_config.auto_remove
        {
            forget(&self.store, &spec, AnonymousVolumes::Remove)?.delete()?;
        }
        Ok(())
    }

    /// Containers whose namespaces are joined must run.
    fn check_joined(&self, id: &Id) -> Result<()> {
        let host = self.store.spec(id)?.host_config;
        for (kind, mode) in [("network", &host.network_mode), ("IPC", &host.ipc_mode), ("PID", &host.pid_mode)] {
            let Some(reference) = mode.strip_prefix("container:") else { continue };
            let other = self.store.find(reference)?;
            if !self.state(&other)?.status.is_active() {
                let message = format!("cannot join {kind} namespace of a non running container: {other}");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
        Ok(())
    }

    /// A session at the streams of a container that runs.
    pub fn attach(&self, id: &Id, streams: &[StreamKind]) -> Result<Run> {
        let mut client = self.running(id)?;
        let session = client.attach(id.as_str(), streams)?;
        Ok(Run { id: id.clone(), client, session: Some(session) })
    }

    /// Runs a further process in a container that runs.
    pub fn exec(&self, id: &Id, request: &ExecRequest, streams: &[StreamKind]) -> Result<Run> {
        let mut client = self.running(id)?;
        let spec = self.store.spec(id)?;
        let machine = self.machine_of(spec.isolation.isolation, &spec.host_config, None)?;
        let process = exec_process(&spec, &machine, request).map_err(|error| Error::of(ErrorKind::Invalid, error))?;
        let message = ExecMessage { container: id.to_string(), process, streams: streams.to_vec() };
        let session = client.exec(message)?;
        Ok(Run { id: id.clone(), client, session: Some(session) })
    }

    /// A connection to the supervisor of a container that runs.
    pub(crate) fn running(&self, id: &Id) -> Result<Client> {
        let not_running = || Error::new(ErrorKind::Conflict, format!("container {id} is not running"));
        if !self.state(id)?.status.is_active() {
            return Err(not_running());
        }
        Client::connect(&self.paths, id.as_str()).context("connect to the supervisor")?.ok_or_else(not_running)
    }

    /// Waits until the supervisor of a container has taken everything away.
    pub fn wait_until_gone(&self, id: &Id) -> Result<()> {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while reap::is_alive(&self.paths, id.as_str()) {
            if std::time::Instant::now() > deadline {
                let message = format!("the supervisor of container {id} does not end");
                return Err(Error::new(ErrorKind::Other, message));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Keeps a container from being started while it is changed.
#[derive(Debug)]
pub(crate) struct Held {
    _lock: std::fs::File,
    sandboxed: crate::paths::Sandboxed,
}

impl Engine {
    /// Holds a container that does not run.
    pub(crate) fn hold(&self, id: &Id) -> Result<Held> {
        let sandboxed = self.paths.sandbox(id.as_str());
        let lock = spawn::claim(&self.paths, &sandboxed)?;
        Ok(Held { _lock: lock, sandboxed })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A directory that stays is found by the next command.
        let _ = self.sandboxed.remove();
    }
}
