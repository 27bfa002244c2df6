//! Virtio: what a device is ([`Device`]), what it works with ([`Io`]), and the devices, one directory or file each.
//!
//! A device knows neither its address nor its transport. It lives on a thread of its own ([`thread`]), which waits for
//! its queues and for the files that it asked to watch, and calls it; the transport ([`mmio`]) reads its configuration
//! under the same lock.

pub mod balloon;
pub mod blk;
pub mod chain;
pub mod config_space;
pub mod console;
pub mod device;
#[cfg(test)]
pub(crate) mod driver;
pub mod fs;
pub mod io;
pub mod mmio;
pub mod net;
mod page;
pub mod pmem;
mod queues;
mod registers;
pub mod rng;
pub mod thread;
pub mod vsock;

pub use chain::{Again, Chain, Reader, Turn, Writer, serve};
pub use device::{Device, DeviceError};
pub use io::{Interest, Interrupt, Io};
pub use mmio::{Transport, TransportState};
pub use page::RegisterPage;
