//! Working through a queue, a bounded number of chains at a time.
//!
//! A driver on one CPU can fill a queue as fast as the device on another empties it. A device that goes on until the queue
//! is empty would then never return, and with it the lock that guards it: no pause, no reset, no save. So one turn ends
//! after as many chains as the queue is long, and the device asks its own thread, by an eventfd, for [`Again`].

use std::os::fd::AsFd;

use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_queue::QueueT;

use super::Chain;
use crate::virtio::device::DeviceError;
use crate::virtio::io::{Interest, Io};

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is used; its writer knows how much was written.
    Done,
    /// It is used, and so much was written.
    Wrote(usize),
    /// The device keeps it: it is used later, by `add_used` with [`Chain::head`]. What a device keeps is part of its state.
    Kept,
    /// It cannot be served now: it stays the next one, and the turn ends. The device serves the queue again when it can;
    /// no notification of the driver is needed for that, and none may come.
    Later,
}

/// A device's wish to be called again. It is watched like a file: in [`crate::virtio::Device::start`] by [`Again::watch`],
/// and [`crate::virtio::Device::source_ready`] with its token calls [`Again::hear`] and serves every queue.
#[derive(Debug)]
pub struct Again(EventFd);

impl Again {
    /// Makes the eventfd.
    pub fn new() -> Result<Self, DeviceError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        EventFd::from_flags(flags).map(Self).map_err(DeviceError::host("make an eventfd"))
    }

    /// Watches it, and asks at once for a first turn: after a restore there may be chains that no notification tells of.
    pub fn watch(&self, io: &Io, token: u64) -> Result<(), DeviceError> {
        io.watch(self.0.as_fd(), token, Interest::READ)?;
        self.ask()
    }

    /// Asks to be called again.
    pub fn ask(&self) -> Result<(), DeviceError> {
        self.0.write(1).map(drop).map_err(DeviceError::host("ask for another turn"))
    }

    /// Takes the wish back, before the turn that it asked for.
    pub fn hear(&self) {
        // Fails only where nothing was asked for.
        let _ = self.0.read();
    }
}

/// Gives the available chains of a queue to `handle`, at most as many as the queue is long, and tells the driver of those
/// used. A queue that the driver has not set up is left alone.
///
/// # Errors
/// Of the chain or of `handle`; what was used before is told to the driver all the same.
pub fn serve(
    io: &mut Io,
    queue: usize,
    again: &Again,
    handle: impl FnMut(&mut Chain<'_>) -> Result<Turn, DeviceError>,
) -> Result<(), DeviceError> {
    if !io.queues[queue].ready() {
        return Ok(());
    }
    let before = io.queues[queue].next_used();
    let result = turn(io, queue, again, handle);
    if io.queues[queue].next_used() != before {
        io.signal_used(queue)?;
    }
    result
}

fn turn(
    io: &mut Io,
    queue: usize,
    again: &Again,
    mut handle: impl FnMut(&mut Chain<'_>) -> Result<Turn, DeviceError>,
) -> Result<(), DeviceError> {
    let (queue, memory) = (&mut io.queues[queue], &io.memory);
    let mut budget = queue.size();
    loop {
        queue.disable_notification(memory)?;
        while budget > 0 {
            let Some(mut chain) = Chain::next(queue, memory)? else { break };
            match handle(&mut chain)? {
                Turn::Done => chain.finish(queue, memory)?,
                Turn::Wrote(written) => chain.finish_with(written, queue, memory)?,
                Turn::Kept => {}
                Turn::Later => {
                    chain.put_back(queue);
                    return Ok(());
                }
            }
            budget -= 1;
        }
        if budget == 0 {
            return again.ask();
        }
        if !queue.enable_notification(memory)? {
            return Ok(());
        }
    }
}
