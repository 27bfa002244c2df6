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

#[cfg(test)]
mod tests {
    use super::{MOST_BYTES, Rng, RngConfig};
    use crate::virtio::driver::{Buffer, Driver, Hostile, attack};
    use crate::virtio::{Device, DeviceError};

    fn rng() -> Rng {
        Rng::new(RngConfig { name: "rng".into() }).unwrap()
    }

    #[test]
    fn requests_get_bytes_that_differ() {
        let mut device = rng();
        let mut driver = Driver::new(&mut device, 0);
        let mut ask = || driver.ask(&mut device, 0, &[Buffer::Room(16), Buffer::Room(48)]).unwrap();
        let ((one, length), (two, _)) = (ask(), ask());
        assert_eq!((one.len(), length), (64, 64));
        assert_ne!(one, two);
        assert!(one.windows(8).all(|bytes| bytes != [0; 8]), "{one:?}");
    }

    #[test]
    fn a_request_gets_a_bounded_number_of_bytes() {
        let mut device = rng();
        let mut driver = Driver::new(&mut device, 0);
        for (room, expected) in [(0, 0), (1, 1), (4096, 4096), (1 << 20, MOST_BYTES as u32)] {
            let (answer, length) = driver.ask(&mut device, 0, &[Buffer::Room(room)]).unwrap();
            assert_eq!(length, expected);
            assert!(answer[expected as usize..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_request_that_brings_bytes_stops_the_device() {
        let mut device = rng();
        let mut driver = Driver::new(&mut device, 0);
        driver.send(0, &[Buffer::Bytes(b"seed"), Buffer::Room(4)]);
        assert!(matches!(driver.kick(&mut device, 0), Err(DeviceError::Driver(_))));
        device.reset();
        assert_eq!(Driver::new(&mut device, 0).ask(&mut device, 0, &[Buffer::Room(4)]).unwrap().1, 4);
    }

    #[test]
    fn it_has_no_state() {
        let mut device = rng();
        let saved = device.save().unwrap();
        device.restore(&saved).unwrap();
        assert!(device.restore(b"x").is_err());
    }

    #[test]
    fn a_hostile_driver_does_no_harm() {
        attack(&Hostile { requests: &[(0, b"")], ..Hostile::default() }, || Box::new(rng()));
    }
}
