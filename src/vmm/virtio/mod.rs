//! Virtio: what a device is ([`Device`]), what it works with ([`Io`]), and the devices, one directory or file each.
//!
//! A device knows neither its address nor its transport. It lives on a thread of its own ([`thread`]), which waits for
//! its queues and for the files that it asked to watch, and calls it; the transport ([`mmio`]) reads its configuration
//! under the same lock.

pub mod device;
pub mod io;
pub mod mmio;
mod queues;
mod registers;
pub mod thread;

pub use device::{Device, DeviceError};
pub use io::{Interest, Interrupt, Io};
pub use mmio::{Transport, TransportState};
