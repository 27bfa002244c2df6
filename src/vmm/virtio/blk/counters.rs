//! What a disk has done, for whoever shows it: `stats`, a log, a test. Read from any thread while the device works.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sums since the device was made. Requests count when they have succeeded.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reads.
    pub reads: AtomicU64,
    /// Bytes read.
    pub read_bytes: AtomicU64,
    /// Writes.
    pub writes: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Discards and write-zeroes.
    pub clears: AtomicU64,
    /// Flushes.
    pub flushes: AtomicU64,
    /// Requests that the host could not fulfil; the driver was told.
    pub failures: AtomicU64,
    /// Times that the limits made the queue wait.
    pub waits: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Counters {
    /// What the host's kernel said of the last failure.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn failed(&self, step: &str, error: &std::io::Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(format!("{step}: {error}"));
    }

    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
