//! The page of a device's registers as memory of the guest: read-only for it, so that a read costs no way to the host
//! and back (`KVM_MEM_READONLY`). A write still comes to the transport, which then shows what has changed.
//!
//! Every interrupt makes Linux read one register and write another; with the page, and the write swallowed by KVM
//! ([`super::io::Interrupt::acknowledgements`]), none of both leaves the host's kernel.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::error::{Error, Result};
use crate::layout::DEVICE_SIZE;
use crate::virtio::registers::CONFIG;

/// How much of a configuration space is shown, in bytes: more than any device has.
pub(super) const CONFIG_BYTES: usize = 256;

/// The page. It is mapped for as long as it lives, which must be as long as the guest runs.
#[derive(Debug)]
pub struct RegisterPage {
    memory: MmapRegion,
    writing: Mutex<()>,
}

/// The page while nobody else writes it.
pub(super) struct Writing<'a> {
    page: &'a RegisterPage,
    _alone: MutexGuard<'a, ()>,
}

impl RegisterPage {
    /// A page of zeroes.
    pub(super) fn new() -> Result<Self> {
        let memory = MmapRegion::new(DEVICE_SIZE as usize)
            .map_err(|error| Error::Config(format!("cannot map the page of a device's registers: {error}")))?;
        Ok(Self { memory, writing: Mutex::new(()) })
    }

    /// Where it starts in this process.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Waits until nobody else writes.
    pub(super) fn write(&self) -> Writing<'_> {
        Writing { page: self, _alone: self.writing.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// What the guest reads.
    pub(super) fn get(&self, offset: u64) -> u32 {
        self.memory.as_volatile_slice().load(offset as usize, Ordering::SeqCst).map_or(0, u32::from_le)
    }
}

impl Writing<'_> {
    /// Shows the value of a register.
    pub(super) fn set(&self, offset: u64, value: u32) {
        // Every offset of a register lies within the page.
        let _inside = self.page.memory.as_volatile_slice().store(value.to_le(), offset as usize, Ordering::SeqCst);
    }

    /// Adds bits to a register.
    pub(super) fn add(&self, offset: u64, bits: u32) {
        self.set(offset, self.page.get(offset) | bits);
    }

    /// Shows a configuration space from its beginning.
    pub(super) fn set_config(&self, space: &[u8; CONFIG_BYTES]) {
        let _inside = self.page.memory.as_volatile_slice().write_slice(space, CONFIG as usize);
    }
}
