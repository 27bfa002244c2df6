//! Health probes: processes in the container whose exit code says how it is.

use std::time::Instant;

use sbx_sandbox::health::{HealthStatus, Probe as ProbeResult};
use sbx_sandbox::plan::{ExecRequest, exec_process};
use sbx_sandbox::state::Status;
use sbx_sandbox::timestamp::Timestamp;

use super::health::Probe;
use super::process::{Process, Role};
use super::supervisor::{Phase, Supervisor};

impl Supervisor {
    /// Starts a probe that is due and ends one that takes too long.
    pub(super) fn probe_health(&mut self, now: Instant) {
        let Some(schedule) = &mut self.health else { return };
        if schedule.due().is_none_or(|due| now < due) || !matches!(self.phase, Phase::Running { .. }) {
            return;
        }
        if let Some(probe) = &mut schedule.running {
            probe.timed_out = true;
            if let Some(process) = self.processes.get(&probe.process) {
                // One that has ended just now is as good.
                let _ = self.sandbox.signal(&process.handle, libc::SIGKILL);
            }
            return;
        }
        if self.record.status() == Status::Paused {
            schedule.ended(HealthStatus::Healthy, now);
            return;
        }
        let request = ExecRequest { args: schedule.command.clone(), ..ExecRequest::default() };
        let start = Timestamp::now();
        let started = exec_process(&self.spec, &self.machine, &request)
            .map_err(|error| error.to_string())
            .and_then(|plan| self.sandbox.exec(&plan).map_err(|failure| failure.message))
            .map(|started| Process::new(Role::Probe, started));
        match started {
            Ok(process) => {
                self.counter += 1;
                let key = self.counter;
                self.processes.insert(key, process);
                if let Some(schedule) = &mut self.health {
                    let deadline = now + schedule.timeout;
                    schedule.running = Some(Probe { process: key, start, deadline, timed_out: false });
                }
            }
            Err(message) => {
                let result = ProbeResult { start, end: Timestamp::now(), exit_code: -1, output: message };
                self.judge(result, now);
            }
        }
    }

    /// A probe's process is over.
    pub(super) fn probe_over(&mut self, process: &Process, now: Instant) {
        let Some(probe) = self.health.as_ref().and_then(|schedule| schedule.running.clone()) else { return };
        let seconds = self.health.as_ref().map_or(0, |schedule| schedule.timeout.as_secs());
        let (exit_code, output) = if probe.timed_out {
            (-1, format!("Health check exceeded timeout ({seconds}s)"))
        } else {
            let output = String::from_utf8_lossy(&process.captured).into_owned();
            (process.exit_code.unwrap_or(-1), output)
        };
        self.judge(ProbeResult { start: probe.start, end: Timestamp::now(), exit_code, output }, now);
    }

    fn judge(&mut self, result: ProbeResult, now: Instant) {
        let Some(schedule) = &mut self.health else { return };
        let (phase, retries) = (schedule.phase(now), schedule.retries);
        self.record.change_health(|health| health.record(result, phase, retries));
        let status = self.record.state().health.as_ref().map_or(HealthStatus::Starting, |health| health.status);
        schedule.ended(status, now);
    }
}
