//! Virtio: what a device is ([`Device`]), what it works with ([`Io`]), and the devices, one directory or file each.
//!
//! A device knows neither its address nor its transport. It lives on a thread of its own, which waits for its queues and
//! for the files that it asked to watch, and calls it; the transport reads its configuration under the same lock.

pub mod blk;
pub mod chain;
pub mod config_space;
pub mod device;
pub mod fs;
pub mod io;
pub mod pmem;
pub mod rng;

pub use chain::{Again, Chain, Reader, Turn, Writer, serve};
pub use device::{Device, DeviceError};
pub use io::{Interest, Interrupt, Io};
