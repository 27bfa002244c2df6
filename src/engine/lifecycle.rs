//! What is done to containers that exist: stop, kill, pause, wait, rename, remove.

use std::time::Duration;

use sbx_protocol::{ContainerEvent, ProcessRow, Reply, Request, StatsSample};
use sbx_sandbox::id::Id;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::state::{Event, Exit, State, Status};
use sbx_sandbox::store::Durability;
use sbx_sandbox::timestamp::Timestamp;

use crate::client::Client;
use crate::remove::{AnonymousVolumes, forget};
use crate::{Engine, Error, ErrorKind, Result, reap};

/// Exit code of a container that a reboot ended.
const LOST: i32 = 255;
/// Longest wait for a process that was killed; one that waits for a device may take its time to die.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    /// The container that a user means.
    pub fn find(&self, reference: &str) -> Result<Id> {
        Ok(self.store.find(reference)?)
    }

    /// What a container is.
    pub fn spec(&self, id: &Id) -> Result<SandboxSpec> {
        Ok(self.store.spec(id)?)
    }

    /// How a container is. One that is said to run and that nobody supervises was ended by a reboot.
    pub fn state(&self, id: &Id) -> Result<State> {
        let state = self.store.state(id)?;
        if !state.status.is_active() || reap::is_alive(&self.paths, id.as_str()) {
            return Ok(state);
        }
        // It may have ended between the two looks.
        let state = self.store.state(id)?;
        if !state.status.is_active() {
            return Ok(state);
        }
        let exit = Exit { exit_code: LOST, oom_killed: false, at: Timestamp::now() };
        Ok(self.store.apply(id, Durability::Rebuildable, Event::Exited(exit))?)
    }

    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds (the container's own where `None`;
    /// negative waits for ever). One that does not run is fine.
    pub fn stop(&self, id: &Id, signal: Option<i32>, timeout: Option<i64>) -> Result<()> {
        self.stop_or_restart(id, signal, timeout, false)
    }

    /// Stops a container and starts it again; one that does not run is started.
    pub fn restart(&self, id: &Id, signal: Option<i32>, timeout: Option<i64>) -> Result<()> {
        if self.state(id)?.status.is_active() {
            return self.stop_or_restart(id, signal, timeout, true);
        }
        self.start(id, &[]).map(drop)
    }

    fn stop_or_restart(&self, id: &Id, signal: Option<i32>, timeout: Option<i64>, restart: bool) -> Result<()> {
        if !self.state(id)?.status.is_active() {
            return Ok(());
        }
        let Some(mut client) = Client::connect(&self.paths, id.as_str())? else { return Ok(()) };
        let spec = self.store.spec(id)?;
        let own_signal = || sbx_sandbox::signal::parse(&spec.config.stop_signal).unwrap_or(libc::SIGTERM);
        let request = Request::Stop {
            container: id.to_string(),
            signal: signal.unwrap_or_else(own_signal),
            timeout: timeout.or(spec.config.stop_timeout).unwrap_or(self.settings.container.stop_timeout),
            restart,
        };
        match client.tell(&request) {
            Ok(()) | Err(crate::ClientError::Gone) => {}
            Err(error) => return Err(error.into()),
        }
        if restart { Ok(()) } else { self.wait_until_gone(id) }
    }

    /// Sends a signal to a container's first process. SIGKILL is answered when it is dead: a command that follows finds
    /// it so.
    pub fn kill(&self, id: &Id, signal: i32) -> Result<()> {
        let mut client = self.running(id)?;
        match client.tell_within(&Request::Kill { container: id.to_string(), signal }, KILL_PATIENCE) {
            Ok(()) | Err(crate::ClientError::Gone) => {}
            Err(error) => return Err(error.into()),
        }
        // It may have been started again, by a restart that was under way.
        if signal == libc::SIGKILL && !self.store.state(id).is_ok_and(|state| state.status.is_active()) {
            self.wait_until_gone(id)?;
        }
        Ok(())
    }

    /// Freezes a container.
    pub fn pause(&self, id: &Id) -> Result<()> {
        Ok(self.running(id)?.tell(&Request::Pause { container: id.to_string() })?)
    }

    /// Thaws a container.
    pub fn unpause(&self, id: &Id) -> Result<()> {
        if !self.state(id)?.status.is_active() {
            return Err(Error::new(ErrorKind::Conflict, format!("Container {id} is not paused")));
        }
        Ok(self.running(id)?.tell(&Request::Unpause { container: id.to_string() })?)
    }

    /// Processes of a container.
    pub fn processes(&self, id: &Id) -> Result<Vec<ProcessRow>> {
        match self.running(id)?.ask(&Request::Top { container: id.to_string() })? {
            Reply::Processes(rows) => Ok(rows),
            other => Err(Error::new(ErrorKind::Other, format!("unexpected answer {other:?}"))),
        }
    }

    /// What a container uses now; `None` where it does not run.
    pub fn stats(&self, id: &Id) -> Result<Option<StatsSample>> {
        if !self.state(id)?.status.is_active() {
            return Ok(None);
        }
        let Some(mut client) = Client::connect(&self.paths, id.as_str())? else { return Ok(None) };
        match client.ask(&Request::Stats { container: id.to_string() }) {
            Ok(Reply::Stats(sample)) => Ok(Some(*sample)),
            Ok(other) => Err(Error::new(ErrorKind::Other, format!("unexpected answer {other:?}"))),
            // Between two runs of a restart policy, or just ended.
            Err(crate::ClientError::Refused(_) | crate::ClientError::Gone) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a container does not run; its exit code.
    pub fn wait(&self, id: &Id) -> Result<i32> {
        if self.state(id)?.status.is_active()
            && let Some(mut client) = Client::connect(&self.paths, id.as_str())?
        {
            return self.wait_with(&mut client, id);
        }
        Ok(self.store.state(id)?.exit_code)
    }

    /// The same by a connection that is there already; good for a container that goes away with `--rm`.
    pub fn wait_with(&self, client: &mut Client, id: &Id) -> Result<i32> {
        let mut code = None;
        loop {
            match client.wait_container(id.as_str())? {
                ContainerEvent::Exited { status, restarting: false } => code = Some(status.code),
                ContainerEvent::Exited { .. } => {}
                ContainerEvent::Gone { last } => {
                    code = code.or(last.map(|status| status.code));
                    break;
                }
            }
        }
        self.wait_until_gone(id)?;
        match code {
            Some(code) => Ok(code),
            None => Ok(self.store.state(id)?.exit_code),
        }
    }

    /// Gives a container another name.
    pub fn rename(&self, id: &Id, name: &str) -> Result<()> {
        Ok(self.store.rename(id, name)?)
    }

    /// Removes a container that does not run, or, with `force`, one that does.
    pub fn remove(&self, id: &Id, force: Force, volumes: AnonymousVolumes) -> Result<()> {
        let state = self.state(id)?;
        if state.status.is_active() {
            if force == Force::No {
                let name = self.store.spec(id)?.name;
                let advice = match state.status {
                    Status::Paused => "container is paused and must be unpaused first",
                    Status::Restarting => "container is restarting: stop the container before removing or force remove",
                    _ => "container is running: stop the container before removing or force remove",
                };
                let message = format!("cannot remove container \"/{name}\": {advice}");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            self.stop(id, Some(libc::SIGKILL), Some(0))?;
        } else if self.paths.sandbox(id.as_str()).lock().exists() {
            reap::wait_until_gone(&self.paths, id.as_str());
        }
        // `--rm` may have been faster.
        let Ok(spec) = self.store.spec(id) else { return Ok(()) };
        let _held = self.hold(id)?;
        forget(&self.store, &spec, volumes)?.delete()?;
        Ok(())
    }
}

/// Whether a container that runs is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It is an error.
    No,
    /// It is killed.
    Yes,
}
