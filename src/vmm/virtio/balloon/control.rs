//! The host's side of a balloon: how much the guest should give up, what it has given, what it says of its memory.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::virtio::chain::Again;
use crate::virtio::device::DeviceError;

/// What the guest's kernel says of its memory, in bytes where it is a size. What it did not say is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStatistics {
    /// Read from swap since boot.
    pub swapped_in: Option<u64>,
    /// Written to swap since boot.
    pub swapped_out: Option<u64>,
    /// Major faults since boot.
    pub major_faults: Option<u64>,
    /// Minor faults since boot.
    pub minor_faults: Option<u64>,
    /// Unused memory.
    pub free: Option<u64>,
    /// All memory.
    pub total: Option<u64>,
    /// Memory that programs could get without swapping, as `MemAvailable` in `/proc/meminfo`.
    pub available: Option<u64>,
    /// Memory of the page cache that could be given up.
    pub caches: Option<u64>,
}

/// What both sides share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) again: Again,
    pub(super) target: AtomicU32,
    pub(super) actual: AtomicU32,
    pub(super) target_changed: AtomicBool,
    pub(super) statistics_wanted: AtomicBool,
    pub(super) statistics: Mutex<(u64, MemoryStatistics)>,
    pub(super) released: AtomicU64,
    pub(super) failure: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(target: u32) -> Result<Self, DeviceError> {
        Ok(Self {
            again: Again::new()?,
            target: AtomicU32::new(target),
            actual: AtomicU32::new(0),
            target_changed: AtomicBool::new(false),
            statistics_wanted: AtomicBool::new(false),
            statistics: Mutex::default(),
            released: AtomicU64::new(0),
            failure: Mutex::default(),
        })
    }
}

/// A handle on a balloon, for any thread, while the device runs on its own.
#[derive(Clone, Debug)]
pub struct BalloonControl(pub(super) Arc<Shared>);

impl BalloonControl {
    /// How many pages of 4 KiB the guest should give up. It does so as it can; see [`BalloonControl::actual`].
    ///
    /// # Errors
    /// The device's thread cannot be woken.
    pub fn set_target(&self, pages: u32) -> Result<(), DeviceError> {
        self.0.target.store(pages, Ordering::SeqCst);
        self.0.target_changed.store(true, Ordering::SeqCst);
        self.0.again.ask()
    }

    /// How many pages of 4 KiB the guest says it has given up.
    #[must_use]
    pub fn actual(&self) -> u32 {
        self.0.actual.load(Ordering::SeqCst)
    }

    /// Asks the guest for new statistics. They come when its kernel gets to it, or never.
    ///
    /// # Errors
    /// The device's thread cannot be woken.
    pub fn ask_for_statistics(&self) -> Result<(), DeviceError> {
        self.0.statistics_wanted.store(true, Ordering::SeqCst);
        self.0.again.ask()
    }

    /// The guest's last statistics, and how many times it has sent some: zero where it never has.
    #[must_use]
    pub fn statistics(&self) -> (u64, MemoryStatistics) {
        *self.0.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes given back to the host since the machine began, by the balloon and by reports of free pages.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.0.released.load(Ordering::Relaxed)
    }

    /// What the host's kernel said when it last refused to take memory back.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
