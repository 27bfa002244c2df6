//! Limits of a disk: bytes and operations per second, reads and writes apart, as `--device-read-bps` and its three
//! siblings want them.
//!
//! Each limit is a bucket of tokens that fills at the limit's rate. A request passes while there is a token left, and may
//! take more than there are: the bucket is then in debt, and the next request waits until it is paid. So a request larger
//! than the bucket passes too, and the mean rate holds. Time is given by the caller.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of a disk; what is absent is not limited. Requests are served in order, so that one that waits holds up those
/// behind it, whatever their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes read per second.
    pub read_bytes: Option<NonZeroU64>,
    /// Bytes written per second.
    pub write_bytes: Option<NonZeroU64>,
    /// Reads per second.
    pub read_operations: Option<NonZeroU64>,
    /// Writes, discards and write-zeroes per second.
    pub write_operations: Option<NonZeroU64>,
}

/// Which of the limits a request falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// A bucket holds what its rate yields in this time, at least one token: requests that come in bursts pass as such, and a
/// second after a pause carries at most a tenth more than its share.
const BURST: Duration = Duration::from_millis(100);

/// Tokens are counted in 10^-9 of one, so that a slow rate gains something in every nanosecond.
const TOKEN: i128 = 1_000_000_000;

#[derive(Debug)]
struct Bucket {
    rate: i128,
    level: i128,
    filled: Duration,
}

impl Bucket {
    fn new(rate: NonZeroU64, now: Duration) -> Self {
        let mut bucket = Self { rate: i128::from(rate.get()), level: 0, filled: now };
        bucket.level = bucket.capacity();
        bucket
    }

    fn capacity(&self) -> i128 {
        (self.rate * BURST.as_nanos() as i128).max(TOKEN)
    }

    fn fill(&mut self, now: Duration) {
        let passed = i128::try_from(now.saturating_sub(self.filled).as_nanos()).unwrap_or(i128::MAX);
        self.filled = now;
        self.level = self.level.saturating_add(passed.saturating_mul(self.rate)).min(self.capacity());
    }

    /// How long until there is a token; zero where there is one.
    fn wait(&self) -> Duration {
        if self.level > 0 {
            return Duration::ZERO;
        }
        let nanoseconds = -self.level / self.rate + 1;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn take(&mut self, tokens: u64) {
        self.level -= i128::from(tokens) * TOKEN;
    }
}

#[derive(Debug)]
pub(super) struct Throttle {
    read: [Option<Bucket>; 2],
    write: [Option<Bucket>; 2],
}

impl Throttle {
    pub(super) fn new(limits: &Limits, now: Duration) -> Self {
        let bucket = |rate: Option<NonZeroU64>| rate.map(|rate| Bucket::new(rate, now));
        Self {
            read: [bucket(limits.read_bytes), bucket(limits.read_operations)],
            write: [bucket(limits.write_bytes), bucket(limits.write_operations)],
        }
    }

    /// Lets a request of so many bytes pass, or says how long it has to wait; then nothing is taken.
    pub(super) fn admit(&mut self, kind: Kind, bytes: u64, now: Duration) -> Result<(), Duration> {
        let buckets = match kind {
            Kind::Read => &mut self.read,
            Kind::Write => &mut self.write,
        };
        buckets.iter_mut().flatten().for_each(|bucket| bucket.fill(now));
        let wait = buckets.iter().flatten().map(Bucket::wait).max().unwrap_or_default();
        if wait > Duration::ZERO {
            return Err(wait);
        }
        for (bucket, tokens) in buckets.iter_mut().zip([bytes, 1]) {
            if let Some(bucket) = bucket {
                bucket.take(tokens);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(read_bytes: u64, write_operations: u64) -> Limits {
        Limits {
            read_bytes: NonZeroU64::new(read_bytes),
            write_operations: NonZeroU64::new(write_operations),
            ..Limits::default()
        }
    }

    /// Plays requests of `bytes` as fast as they are admitted, and says how many bytes passed in `time`.
    fn passed(throttle: &mut Throttle, kind: Kind, bytes: u64, time: Duration) -> u64 {
        let (mut now, mut passed) = (Duration::ZERO, 0);
        while now < time {
            match throttle.admit(kind, bytes, now) {
                Ok(()) => passed += bytes,
                Err(wait) => now += wait,
            }
        }
        passed
    }

    #[test]
    fn the_mean_rate_is_the_limit_for_small_and_large_requests() {
        for bytes in [512, 4096, 1 << 20, 1 << 25] {
            let mut throttle = Throttle::new(&limits(1 << 20, 0), Duration::ZERO);
            let passed = passed(&mut throttle, Kind::Read, bytes, Duration::from_secs(100));
            let most = (100 << 20) + (1 << 20) / 10 + 2 * bytes;
            let least = (100 << 20) - bytes;
            assert!((least..=most).contains(&passed), "{passed} bytes in requests of {bytes}");
        }
    }

    #[test]
    fn operations_are_limited_whatever_their_size() {
        let mut throttle = Throttle::new(&limits(0, 3), Duration::ZERO);
        let passed = passed(&mut throttle, Kind::Write, 1, Duration::from_secs(60));
        assert!((179..=182).contains(&passed), "{passed} operations");
    }

    #[test]
    fn the_other_kind_is_free() {
        let mut throttle = Throttle::new(&limits(1, 0), Duration::ZERO);
        assert_eq!(throttle.admit(Kind::Read, 100, Duration::ZERO), Ok(()));
        assert!(throttle.admit(Kind::Read, 1, Duration::ZERO).is_err());
        for _ in 0..1000 {
            assert_eq!(throttle.admit(Kind::Write, u64::from(u32::MAX), Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut throttle = Throttle::new(&limits(u64::MAX, 0), Duration::ZERO);
        assert_eq!(throttle.admit(Kind::Read, u64::MAX, Duration::MAX), Ok(()));
        let mut throttle = Throttle::new(&limits(1, 0), Duration::ZERO);
        assert_eq!(throttle.admit(Kind::Read, u64::MAX, Duration::ZERO), Ok(()));
        assert_eq!(throttle.admit(Kind::Read, 1, Duration::ZERO), Err(Duration::from_nanos(u64::MAX)));
        // A clock that goes back takes nothing away.
        assert!(throttle.admit(Kind::Read, 1, Duration::ZERO).is_err());
    }
}
