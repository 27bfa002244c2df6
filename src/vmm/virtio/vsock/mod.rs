//! virtio-vsock (virtio specification 1.3, section 5.10): streams between the host and the guest, in user space, with
//! nothing of the host's kernel but sockets.
//!
//! The way of a byte: the owner writes it to its end of a stream; the device's thread reads it from the other end straight
//! into a buffer that the driver has made available, and writes a header before it. Towards the host it goes straight from
//! the driver's buffer into the stream; only what the stream does not take at once is copied (`backlog.rs`), within what
//! the guest was allowed to send (`credit.rs`).
//!
//! | file | what it owns |
//! | --- | --- |
//! | `device.rs` | the device: queues, what is watched, the life of a connection |
//! | `from_guest.rs`, `to_guest.rs` | packets of the driver, and to it |
//! | `news.rs` | the event after a restore |
//! | `connection.rs` | one connection: its states, half-closed directions, what is owed to the guest |
//! | `credit.rs` | who may send how much |
//! | `table.rs` | all connections, found by ports or by event |
//! | `packet.rs` | the header on the wire |
//! | `gate.rs` | how connections come from the owner and go to it |
//! | `gates.rs` | all gates of a device, and whose port is whose |

mod backlog;
mod connection;
mod credit;
mod device;
mod from_guest;
mod gate;
mod gates;
mod news;
mod packet;
mod sys;
mod table;
#[cfg(test)]
mod tests;
mod to_guest;

pub use device::{Config, Vsock};
pub use gate::{Gate, InnerGate};
