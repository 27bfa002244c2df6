//! Whether and when a container that ended is started again: Docker's restart policies.

use std::time::Duration;

use sbx_sandbox::host_config::RestartPolicy;

/// First wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A run of at least this length begins the waits anew.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The policy and how often it has acted.
#[derive(Clone, Debug)]
pub(crate) struct Restarts {
    policy: RestartPolicy,
    count: u32,
    wait: Duration,
}

impl Restarts {
    pub(crate) fn new(policy: &RestartPolicy) -> Self {
        Self { policy: policy.clone(), count: 0, wait: Duration::ZERO }
    }

    /// How long to wait before the container is started again after it ended by itself; `None` is never.
    pub(crate) fn after(&mut self, exit_code: i32, ran: Duration) -> Option<Duration> {
        let again = match self.policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let limit = self.policy.maximum_retry_count;
                exit_code != 0 && (limit <= 0 || i64::from(self.count) < limit)
            }
            _ => false,
        };
        if !again {
            return None;
        }
        if ran >= GOOD_RUN {
            self.wait = Duration::ZERO;
        }
        self.wait = if self.wait.is_zero() { FIRST_WAIT } else { (self.wait * 2).min(LONGEST_WAIT) };
        self.count += 1;
        Some(self.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(name: &str, limit: i64) -> Restarts {
        Restarts::new(&RestartPolicy { name: name.into(), maximum_retry_count: limit })
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut always = restarts("always", 0);
        let short = Duration::from_secs(1);
        let waits: Vec<u128> = (0..12).map(|_| always.after(0, short).unwrap().as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(always.after(0, GOOD_RUN).unwrap(), FIRST_WAIT);
    }

    #[test]
    fn on_failure_counts_and_ignores_success() {
        let mut policy = restarts("on-failure", 2);
        assert!(policy.after(0, Duration::ZERO).is_none());
        assert!(policy.after(1, Duration::ZERO).is_some());
        assert!(policy.after(1, Duration::ZERO).is_some());
        assert!(policy.after(1, Duration::ZERO).is_none());
    }

    #[test]
    fn no_policy_never_restarts() {
        assert!(restarts("no", 0).after(1, Duration::ZERO).is_none());
        assert!(restarts("", 0).after(1, Duration::ZERO).is_none());
    }
}
