//! virtio-blk: a disk over pieces of opened files (virtio specification 1.3, section 5.2).
//!
//! Data goes between the files and the guest's memory by `preadv` and `pwritev`, without a copy of ours. A flush is an
//! `fdatasync` that was waited for; a driver that does not know of flushes has each write made durable by itself. A
//! read-only disk is read-only here, whatever the guest's driver believes: no call that writes is reachable for it.
//!
//! ```text
//! serving ── a request falls under a limit ──▶ throttled (the timer runs, the queue is left alone) ── timer ──▶ serving
//! ```
//!
//! After a restore the disk may have another length than the saved one: the driver is told by a change of the
//! configuration. So a machine can be saved with an empty disk and restored with a real one.

mod counters;
mod disk;
mod extent;
mod request;
#[cfg(test)]
mod tests;
mod throttle;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

pub use counters::Counters;
pub use extent::Extent;
pub use throttle::Limits;

use crate::virtio::chain::{Again, RING_FEATURES, Turn, serve};
use crate::virtio::config_space;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};
use disk::{Disk, SECTOR};
use request::{SERIAL_LENGTH, Served, Server};
use throttle::Throttle;

/// What a disk is, apart from its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkConfig {
    /// Name of the device's thread, at most 15 bytes.
    pub name: String,
    /// What the guest reads in `/sys/block/vdX/serial`: at most 20 bytes.
    pub serial: String,
    /// Whether the guest may write.
    pub access: Access,
    /// Logical block size in bytes: a power of two from 512 to 4096. The guest never reads or writes less.
    pub block_size: u32,
    /// Bytes and operations per second.
    pub limits: Limits,
}

/// Whether the guest may write to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// It may not.
    ReadOnly,
    /// It may.
    ReadWrite,
}

/// Why a disk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BlkError {
    /// The serial is longer than virtio allows.
    #[error("the serial {0:?} of a disk has more than {SERIAL_LENGTH} bytes")]
    Serial(String),
    /// The block size is not one.
    #[error("the block size {0} of a disk is not a power of two from 512 to 4096")]
    BlockSize(u32),
    /// The extents do not make a disk.
    #[error("the disk {name}: {source}")]
    Extents {
        /// The disk.
        name: String,
        /// What is wrong.
        source: io::Error,
    },
    /// No timer or eventfd.
    #[error("the disk {name}: {source}")]
    Descriptor {
        /// The disk.
        name: String,
        /// The answer of the kernel.
        source: DeviceError,
    },
}

const QUEUE_SIZES: [u16; 1] = [256];
const AGAIN: u64 = 0;
const TIMER: u64 = 1;
/// A turn ends after so many bytes: requests are few then, but long.
const BYTES_PER_TURN: u64 = 64 << 20;
const UNLIMITED: u64 = RING_FEATURES
    | 1 << VIRTIO_BLK_F_SIZE_MAX
    | 1 << VIRTIO_BLK_F_SEG_MAX
    | 1 << VIRTIO_BLK_F_BLK_SIZE
    | 1 << VIRTIO_BLK_F_FLUSH;

/// The device.
#[derive(Debug)]
pub struct Blk {
    config: BlkConfig,
    server: Server,
    again: Again,
    timer: TimerFd,
    throttled: bool,
    resized: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    sectors: u64,
    access: Access,
}

impl Blk {
    /// A disk of these extents, one after the other.
    ///
    /// # Errors
    /// The configuration or the extents do not make a disk.
    pub fn new(config: BlkConfig, extents: Vec<Extent>) -> Result<Self, BlkError> {
        if !config.block_size.is_power_of_two() || !(512..=4096).contains(&config.block_size) {
            return Err(BlkError::BlockSize(config.block_size));
        }
        let mut serial = [0; SERIAL_LENGTH];
        match serial.get_mut(..config.serial.len()) {
            Some(place) => place.copy_from_slice(config.serial.as_bytes()),
            None => return Err(BlkError::Serial(config.serial)),
        }
        let disk = match config.access {
            Access::ReadOnly => Disk::read_only(extents),
            Access::ReadWrite => Disk::writable(extents),
        };
        let disk = disk.map_err(|source| BlkError::Extents { name: config.name.clone(), source })?;
        let descriptor = |source| BlkError::Descriptor { name: config.name.clone(), source };
        let throttle = Throttle::new(&config.limits, now().map_err(descriptor)?);
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(DeviceError::host("make a timer"));
        Ok(Self {
            server: Server { disk, serial, throttle, counters: Arc::default(), write_through: false },
            again: Again::new().map_err(descriptor)?,
            timer: timer.map_err(descriptor)?,
            throttled: false,
            resized: false,
            config,
        })
    }

    /// What the disk has done; stays readable while the device runs.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.server.counters)
    }

    fn turn(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if self.throttled {
            return Ok(());
        }
        self.server.write_through = io.features & (1 << VIRTIO_BLK_F_FLUSH) == 0;
        let now = now()?;
        let (mut moved, mut wait) = (0, None);
        serve(io, 0, &self.again, |chain| {
            if moved > BYTES_PER_TURN {
                self.again.ask()?;
                return Ok(Turn::Later);
            }
            Ok(match self.server.serve(chain, now)? {
                Served::Answered { written, moved: bytes } => {
                    moved += bytes;
                    Turn::Wrote(written)
                }
                Served::Throttled(time) => {
                    wait = Some(time);
                    Turn::Later
                }
            })
        })?;
        wait.map_or(Ok(()), |time| self.wait(time))
    }

    fn wait(&mut self, time: Duration) -> Result<(), DeviceError> {
        Counters::add(&self.server.counters.waits, 1);
        self.throttled = true;
        let expiration = Expiration::OneShot(TimeSpec::from_duration(time));
        self.timer.set(expiration, TimerSetTimeFlags::empty()).map_err(DeviceError::host("set a timer"))
    }
}

impl Device for Blk {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn features(&self) -> u64 {
        UNLIMITED
            | match self.config.access {
                Access::ReadOnly => 1 << VIRTIO_BLK_F_RO,
                Access::ReadWrite => 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
            }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = configuration_space(self.server.disk.sectors(), self.config.block_size);
        config_space::read(&space, offset, data);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.again.watch(io, AGAIN)?;
        io.watch(self.timer.as_fd(), TIMER, Interest::READ)?;
        if std::mem::take(&mut self.resized) {
            io.signal_config(self)?;
        }
        Ok(())
    }

    fn queue_ready(&mut self, _queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        self.turn(io)
    }

    fn source_ready(&mut self, token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        if token == TIMER {
            self.timer.unset().map_err(DeviceError::host("stop a timer"))?;
            self.throttled = false;
        } else {
            self.again.hear();
        }
        self.turn(io)
    }

    fn reset(&mut self) {
        // What was taken from the limits stays taken: a reset is no way around them.
        self.throttled = false;
        self.server.write_through = false;
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        let state = State { sectors: self.server.disk.sectors(), access: self.config.access };
        postcard::to_stdvec(&state).map_err(|error| DeviceError::State(error.to_string()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let state: State = postcard::from_bytes(state).map_err(|error| DeviceError::State(error.to_string()))?;
        if state.access != self.config.access {
            let problem = format!("the disk was {:?} and is {:?}", state.access, self.config.access);
            return Err(DeviceError::State(problem));
        }
        self.resized = state.sectors != self.server.disk.sectors();
        Ok(())
    }
}

/// `struct virtio_blk_config` (section 5.2.4) as far as the offered features define it.
fn configuration_space(sectors: u64, block_size: u32) -> [u8; 60] {
    let mut space = [0; 60];
    let mut put = |offset: usize, bytes: &[u8]| space[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &sectors.to_le_bytes());
    put(8, &request::LONGEST_SEGMENT.to_le_bytes());
    put(12, &request::MOST_SEGMENTS.to_le_bytes());
    put(20, &block_size.to_le_bytes());
    put(36, &request::MOST_DISCARDED_SECTORS.to_le_bytes());
    put(40, &request::MOST_DISCARD_SEGMENTS.to_le_bytes());
    // Alignment of a discard: what a file system of the host can give back, in sectors.
    put(44, &(4096 / SECTOR as u32).to_le_bytes());
    put(48, &request::MOST_ZEROED_SECTORS.to_le_bytes());
    put(52, &1_u32.to_le_bytes());
    // Write-zeroes may give space back.
    put(56, &[1]);
    space
}

fn now() -> Result<Duration, DeviceError> {
    clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).map_err(DeviceError::host("read the clock"))
}
