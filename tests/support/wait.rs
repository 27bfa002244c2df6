//! Waiting for things that happen in their own time: always for a condition, always with a deadline.

use std::time::{Duration, Instant};

/// How long a command or a condition may take before the test fails. Generous, and it costs nothing but when something
/// hangs: two slow cores, several suites, and in `scripts/nested-kvm` a processor of a tenth of the speed.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Waits until `condition` gives a value, and fails with `what` when it does not within the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, condition)
}

/// The same with a deadline of its own.
#[track_caller]
pub fn within<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {} s: {what}", deadline.as_secs());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
