//! virtio-net (virtio specification 1.3, section 5.1) on a tap device that the owner has opened.
//!
//! Frames go straight between the tap and the guest's memory, one system call each; checksums and the cutting of large TCP
//! segments are left to whoever has hardware for it, so that a frame has up to 64 KiB (`header.rs` says what is believed of
//! the guest in that). While the driver has no buffers, the tap is not read: its queue fills, and the host's kernel drops
//! what comes then, as a network does.
//!
//! The owner opens the tap with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, non-blocking, gives it a header of [`HEADER_SIZE`]
//! (`TUNSETVNETHDRSZ`) and the offloads of [`tap_offloads`] (`TUNSETOFFLOAD`).

mod device;
mod header;
mod link;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub use device::{Config, Net};
pub use header::{HEADER_SIZE, tap_offloads};
pub use link::Link;
