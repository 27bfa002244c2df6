//! What a virtio device is to the rest of the machine.

use crate::virtio::io::{Interest, Io};

/// A virtio device. Its methods are never called at the same time: one lock guards the device, held by its thread while
/// it works and by a vCPU thread while the driver reads or writes the configuration space.
///
/// What the guest wrote is never trusted: whatever it does, a method returns (with an error where the driver broke the
/// rules of the specification) within a bounded time and with bounded memory.
pub trait Device: Send {
    /// Device id of the virtio specification, section 5.
    fn kind(&self) -> u32;

    /// Name of the device's thread, at most 15 bytes.
    fn name(&self) -> &str;

    /// Feature bits that the device offers, `VIRTIO_F_VERSION_1` among them.
    fn features(&self) -> u64;

    /// Largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads the device's configuration space. What lies beyond its end reads as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device's configuration space. A device without writable fields ignores it (section 2.5.1).
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready (`DRIVER_OK`), or the machine was restored: watch what must be watched. Called on the
    /// device's thread before anything else.
    fn start(&mut self, _io: &mut Io) -> Result<(), DeviceError> {
        Ok(())
    }

    /// The driver has made buffers available in a queue. May be called without a new buffer.
    fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError>;

    /// A watched file is ready (see [`Io::watch`]).
    fn source_ready(&mut self, _token: u64, _ready: Interest, _io: &mut Io) -> Result<(), DeviceError> {
        Ok(())
    }

    /// The driver has reset the device: back to the state it was made in. Its thread has let go of queues and files.
    fn reset(&mut self);

    /// The device's own state, for [`Device::restore`] of a device made from the same configuration. The transport saves
    /// features and queues. Called when no request is in flight.
    fn save(&self) -> Result<Vec<u8>, DeviceError>;

    /// Takes a state of [`Device::save`].
    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError>;
}

/// Why a device cannot go on. The driver is told by `DEVICE_NEEDS_RESET` (section 2.1.2); the machine goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke a rule of the specification.
    #[error("the guest's driver: {0}")]
    Driver(String),
    /// A queue lies outside the guest's memory or is malformed.
    #[error("a queue: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// A buffer lies outside the guest's memory.
    #[error("a buffer: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The host refused something.
    #[error("{step}: {source}")]
    Host {
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: std::io::Error,
    },
    /// A saved state is not one of this device.
    #[error("the saved state: {0}")]
    State(String),
}

impl DeviceError {
    /// Wraps an error of the host's kernel: `.map_err(DeviceError::host("read the disk"))`.
    pub fn host<E: Into<std::io::Error>>(step: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Host { step, source: source.into() }
    }
}
