//! How a container is, in the words of `ps`.

use sbx_sandbox::health::HealthStatus;
use sbx_sandbox::state::{State, Status};
use sbx_sandbox::timestamp::Timestamp;

use crate::units::human_duration;

/// `Up 2 minutes (healthy)`, `Exited (0) 3 seconds ago`, `Created`, as of `now`.
pub(super) fn text(state: &State, now: Timestamp) -> String {
    let up = human_duration(now.since(state.started_at));
    let ended = human_duration(now.since(state.finished_at));
    match state.status {
        Status::Paused => format!("Up {up} (Paused)"),
        Status::Restarting => format!("Restarting ({}) {ended} ago", state.exit_code),
        Status::Running => match &state.health {
            Some(health) if health.status == HealthStatus::Starting => format!("Up {up} (health: starting)"),
            Some(health) => format!("Up {up} ({})", health_word(health.status)),
            None => format!("Up {up}"),
        },
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        // A start that failed before the first process ran.
        Status::Exited if state.finished_at.is_never() => format!("Exited ({})", state.exit_code),
        Status::Exited => format!("Exited ({}) {ended} ago", state.exit_code),
    }
}

/// As filters and `inspect` name it.
pub(super) fn health_word(health: HealthStatus) -> &'static str {
    match health {
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

#[cfg(test)]
mod tests {
    use sbx_sandbox::health::Health;

    use super::*;

    #[test]
    fn the_words_are_dockers() {
        let now = Timestamp::from_unix(1000, 0);
        let state = |status, health: Option<HealthStatus>| State {
            status,
            exit_code: 3,
            started_at: Timestamp::from_unix(880, 0),
            finished_at: Timestamp::from_unix(997, 0),
            health: health.map(|status| Health { status, ..Health::default() }),
            ..State::default()
        };
        for (status, health, words) in [
            (Status::Running, None, "Up 2 minutes"),
            (Status::Running, Some(HealthStatus::Starting), "Up 2 minutes (health: starting)"),
            (Status::Running, Some(HealthStatus::Healthy), "Up 2 minutes (healthy)"),
            (Status::Running, Some(HealthStatus::Unhealthy), "Up 2 minutes (unhealthy)"),
            (Status::Paused, Some(HealthStatus::Healthy), "Up 2 minutes (Paused)"),
            (Status::Restarting, None, "Restarting (3) 3 seconds ago"),
            (Status::Exited, None, "Exited (3) 3 seconds ago"),
            (Status::Created, None, "Created"),
            (Status::Removing, None, "Removal In Progress"),
            (Status::Dead, None, "Dead"),
        ] {
            assert_eq!(text(&state(status, health), now), words);
        }
    }
}
