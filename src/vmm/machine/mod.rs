//! A machine: put together ([`Builder`]), confined, run to its end ([`Machine::run`]), and told what to do meanwhile by a
//! socket ([`Remote`]).
//!
//! Its owner holds the other end of that socket; without it the machine ends. It can let other parties in
//! ([`Remote::admit`]), who plug devices into the machine while it runs ([`Remote::plug`]) and take them out again:
//!
//! ```text
//!  plug: description, descriptors            the main thread           the thread "maker"
//!    ──────────────────────────────────────▶ orders it ──────────────▶ makes it and its thread
//!    ◀────────────────────────────────────── connects it to KVM ◀─────
//!      address N: the guest's driver looks at virtio-mmio.N (`bind`), and later lets go of it (`unbind`)
//!  unplug N, or the party's end is closed
//!    ──────────────────────────────────────▶ takes it out when no driver holds it
//! ```
//!
//! Everything happens in one process, which may be forked from a process with a single thread: KVM binds a machine to
//! the address space that made it, so nothing of it is made before the fork.

mod build;
mod control;
mod events;
mod maker;
mod parties;
mod plugged;
mod processors;
mod run;
mod save;
mod serve;
mod wiring;

use serde::{Deserialize, Serialize};

pub use crate::memory::WorkingSet;
pub use build::{Boot, Builder, Initrd};
pub use control::{DESCRIPTION_MAX, Remote, pair};
pub use maker::Maker;
pub use run::Machine;
pub use save::SavedMachine;

/// Stack of a thread, in bytes: more than any of them needs, and too little for the host to make a huge page of it, which a
/// stack would have to itself.
const STACK: usize = 512 << 10;

/// What a machine is; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Number of processors, from 1 to 64.
    pub vcpus: usize,
    /// For how many devices there are addresses, at least. Those that no device has are told to the guest's kernel too, whose
    /// driver finds nobody there; when a restored machine has a device at such an address, the guest has only to let the
    /// driver look again (a write of `virtio-mmio.N` to `/sys/bus/platform/drivers/virtio-mmio/bind`).
    pub addresses: usize,
    /// Words for the kernel's command line. Without a `console=` among them there is no output.
    pub command_line: String,
    /// How many bytes of the serial port's output are kept.
    pub serial_limit: u64,
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest switched the machine off, with a status (see `layout::POWER`).
    PowerOff(u8),
    /// The guest asked for a reset: what Linux does for `reboot`, and after a panic.
    Reset,
    /// The guest cannot go on: a triple fault, or something that KVM or the processor refuses.
    Crash(String),
    /// Somebody told the machine to stop.
    Stopped,
    /// The other end of the control socket is gone, and with it the machine's owner.
    Abandoned,
}
