//! The health of a container: what its probes have said, and what follows from that.

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// Results of probes that are kept.
pub const HEALTH_LOG: usize = 5;
/// Bytes of a probe's output that are kept.
pub const HEALTH_OUTPUT: usize = 4096;

/// How a container's health check goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last [`HEALTH_LOG`] probes, oldest first.
    pub log: Vec<Probe>,
}

/// Health as Docker names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as in Docker's State.Health.Status")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

/// One probe of a health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 healthy, 1 unhealthy, -1 when it ran too long or could not be run.
    pub exit_code: i32,
    /// The end of what it wrote, at most [`HEALTH_OUTPUT`] bytes.
    pub output: String,
}

impl Health {
    /// Takes a finished probe in. `grace` is true while failures do not count (the start period);
    /// `retries` is how many failures in a row make it unhealthy, 0 meaning Docker's default of 3.
    pub fn record(&mut self, mut probe: Probe, phase: ProbePhase, retries: u32) {
        truncate(&mut probe.output);
        let retries = if retries == 0 { 3 } else { retries };
        if probe.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if phase == ProbePhase::Counting || self.status != HealthStatus::Starting {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(probe);
        let surplus = self.log.len().saturating_sub(HEALTH_LOG);
        self.log.drain(..surplus);
    }
}

/// Whether failures count yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbePhase {
    /// The start period: failures do not count until a first success.
    Starting,
    /// Every failure counts.
    Counting,
}

fn truncate(output: &mut String) {
    if output.len() > HEALTH_OUTPUT {
        let mut end = HEALTH_OUTPUT;
        while !output.is_char_boundary(end) {
            end -= 1;
        }
        output.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_follows_docker() {
        let probe =
            |exit_code| Probe { start: Timestamp::NEVER, end: Timestamp::NEVER, exit_code, output: "é".repeat(3000) };
        let mut health = Health::default();
        health.record(probe(1), ProbePhase::Starting, 2);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        health.record(probe(0), ProbePhase::Starting, 2);
        assert_eq!(health.status, HealthStatus::Healthy);
        health.record(probe(1), ProbePhase::Starting, 2);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 1));
        health.record(probe(-1), ProbePhase::Counting, 2);
        assert_eq!(health.status, HealthStatus::Unhealthy);
        for _ in 0..9 {
            health.record(probe(1), ProbePhase::Counting, 0);
        }
        assert_eq!(health.log.len(), HEALTH_LOG);
        assert!(health.log.iter().all(|probe| probe.output.len() <= HEALTH_OUTPUT));
    }
}
