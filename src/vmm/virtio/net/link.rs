//! The cable, as the owner sees it: plugged in or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::virtio::chain::Again;
use crate::virtio::device::DeviceError;

/// A handle on a network device, for any thread, while the device runs on its own.
#[derive(Clone, Debug)]
pub struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    again: Again,
    is_up: AtomicBool,
}

impl Link {
    pub(super) fn new() -> Result<Self, DeviceError> {
        Ok(Self(Arc::new(Shared { again: Again::new()?, is_up: AtomicBool::new(true) })))
    }

    /// Plugs the cable in: the guest sees a carrier again. What came to the tap meanwhile is lost.
    ///
    /// # Errors
    /// The device's thread cannot be woken.
    pub fn connect(&self) -> Result<(), DeviceError> {
        self.set(true);
        self.again().ask()
    }

    /// Pulls the cable out: the guest sees no carrier, and no frame goes either way.
    ///
    /// # Errors
    /// The device's thread cannot be woken.
    pub fn disconnect(&self) -> Result<(), DeviceError> {
        self.set(false);
        self.again().ask()
    }

    /// Whether it is plugged in.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_up.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, is_up: bool) {
        self.0.is_up.store(is_up, Ordering::SeqCst);
    }

    /// What wakes the device's thread.
    pub(super) fn again(&self) -> &Again {
        &self.0.again
    }
}
