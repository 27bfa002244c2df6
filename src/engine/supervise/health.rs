//! When a container's health is probed (Docker's HEALTHCHECK). The results are judged by `sandbox::state::Health`.

use std::time::{Duration, Instant};

use sbx_sandbox::config::Healthcheck;
use sbx_sandbox::health::{HealthStatus, ProbePhase};
use sbx_sandbox::timestamp::Timestamp;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);

/// The schedule of a running container's probes.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) command: Vec<String>,
    interval: Duration,
    pub(crate) timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    pub(crate) retries: u32,
    begun: Instant,
    next: Instant,
    /// The probe that runs.
    pub(crate) running: Option<Probe>,
}

/// A probe that runs.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) process: u64,
    pub(crate) start: Timestamp,
    pub(crate) deadline: Instant,
    pub(crate) timed_out: bool,
}

impl Schedule {
    /// The schedule of a container that starts now; `None` where nothing is probed.
    pub(crate) fn new(check: Option<&Healthcheck>, now: Instant) -> Option<Self> {
        let check = check?;
        let command = match check.test.first().map(String::as_str) {
            Some("CMD") => check.test[1..].to_vec(),
            Some("CMD-SHELL") => vec!["/bin/sh".into(), "-c".into(), check.test[1..].join(" ")],
            _ => return None,
        };
        if command.is_empty() {
            return None;
        }
        let or = |nanoseconds: i64, default: Duration| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => default,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        let start_period = or(check.start_period, Duration::ZERO);
        let mut schedule = Self {
            command,
            interval: or(check.interval, INTERVAL),
            timeout: or(check.timeout, TIMEOUT),
            start_period,
            start_interval: or(check.start_interval, START_INTERVAL),
            retries: u32::try_from(check.retries).unwrap_or(0),
            begun: now,
            next: now,
            running: None,
        };
        schedule.next = now + schedule.wait(HealthStatus::Starting, now);
        Some(schedule)
    }

    /// Inside the start period failures do not count.
    pub(crate) fn phase(&self, now: Instant) -> ProbePhase {
        if now < self.begun + self.start_period { ProbePhase::Starting } else { ProbePhase::Counting }
    }

    fn wait(&self, status: HealthStatus, now: Instant) -> Duration {
        if status == HealthStatus::Starting && self.phase(now) == ProbePhase::Starting {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// The next moment at which something is to be done.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.running {
            Some(probe) if probe.timed_out => None,
            Some(probe) => Some(probe.deadline),
            None => Some(self.next),
        }
    }

    /// A probe has ended; plans the next one.
    pub(crate) fn ended(&mut self, status: HealthStatus, now: Instant) {
        self.running = None;
        self.next = now + self.wait(status, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: &[&str]) -> Healthcheck {
        Healthcheck { test: test.iter().map(|word| (*word).to_owned()).collect(), ..Healthcheck::default() }
    }

    #[test]
    fn commands_are_taken_from_both_forms() {
        let now = Instant::now();
        let shell = Schedule::new(Some(&check(&["CMD-SHELL", "exit 1"])), now).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "exit 1"]);
        let plain = Schedule::new(Some(&check(&["CMD", "a", "b"])), now).unwrap();
        assert_eq!(plain.command, ["a", "b"]);
        assert!(Schedule::new(Some(&check(&["NONE"])), now).is_none());
        assert!(Schedule::new(Some(&check(&[])), now).is_none());
        assert!(Schedule::new(None, now).is_none());
    }

    #[test]
    fn the_start_period_has_its_own_interval() {
        let now = Instant::now();
        let mut wanted = check(&["CMD", "a"]);
        wanted.start_period = 10_000_000_000;
        wanted.start_interval = 1_000_000_000;
        wanted.interval = 7_000_000_000;
        let mut schedule = Schedule::new(Some(&wanted), now).unwrap();
        assert_eq!(schedule.due(), Some(now + Duration::from_secs(1)));
        schedule.ended(HealthStatus::Healthy, now);
        assert_eq!(schedule.due(), Some(now + Duration::from_secs(7)));
        let later = now + Duration::from_secs(11);
        schedule.ended(HealthStatus::Starting, later);
        assert_eq!(schedule.due(), Some(later + Duration::from_secs(7)));
        assert_eq!(schedule.phase(later), ProbePhase::Counting);
    }
}
