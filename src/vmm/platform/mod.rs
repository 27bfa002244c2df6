//! What a PC has besides processors, memory and virtio devices, as far as a guest of ours needs it: a serial line for the
//! first words, and a way to end the machine. Everything else is not there and reads as such.

mod bus;
mod serial;

pub use bus::{Bus, End};
pub use serial::{Serial, SerialState};
