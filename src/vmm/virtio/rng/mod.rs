//! virtio-rng: random bytes of the host's kernel for the guest's (virtio specification 1.3, section 5.4).
//!
//! A request gets at most [`MOST_BYTES`], as the specification allows ("the device MUST place one or more random bytes");
//! a driver that wants more asks again. How often it asks is not limited: making the bytes costs the guest's own time on a
//! CPU of the host, which its cgroup limits.

mod sys;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::virtio::chain::{Again, Chain, RING_FEATURES, Turn, serve};
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};

/// Most bytes that one request gets.
pub const MOST_BYTES: usize = 4096;

const QUEUE_SIZES: [u16; 1] = [64];
const AGAIN: u64 = 0;

/// What a source of random bytes is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngConfig {
    /// Name of the device's thread, at most 15 bytes.
    pub name: String,
}

/// The device.
#[derive(Debug)]
pub struct Rng {
    config: RngConfig,
    again: Again,
}

impl Rng {
    /// A source of random bytes.
    ///
    /// # Errors
    /// The kernel refuses an eventfd.
    pub fn new(config: RngConfig) -> Result<Self, DeviceError> {
        Ok(Self { config, again: Again::new()? })
    }

    fn turn(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        serve(io, 0, &self.again, fill)
    }
}

fn fill(chain: &mut Chain<'_>) -> Result<Turn, DeviceError> {
    if chain.reader.left() > 0 {
        return Err(DeviceError::Driver("a request for random bytes brings bytes".into()));
    }
    let mut bytes = [0; MOST_BYTES];
    let wanted = chain.writer.left().min(bytes.len());
    sys::fill(&mut bytes[..wanted]).map_err(DeviceError::host("get random bytes"))?;
    chain.writer.write_all(&bytes[..wanted])?;
    Ok(Turn::Done)
}

impl Device for Rng {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.again.watch(io, AGAIN)
    }

    fn queue_ready(&mut self, _queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        self.turn(io)
    }

    fn source_ready(&mut self, _token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        self.again.hear();
        self.turn(io)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        if state.is_empty() {
            return Ok(());
        }
        Err(DeviceError::State(format!("{} bytes for a source of random bytes, which has no state", state.len())))
    }
}
