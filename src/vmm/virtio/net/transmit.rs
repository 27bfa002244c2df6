//! Frames from the guest to the tap. The header is read once, checked, and written anew (`header.rs`); the frame goes from
//! the driver's buffers into the tap as it is. What the tap does not take for reasons of the frame is dropped, as a network
//! does.

use std::io;
use std::iter;
use std::os::fd::AsFd;

use virtio_queue::QueueT;
use vm_memory::VolatileSlice;

use super::device::{Net, TX};
use super::header::{ETHERNET, HEADER_SIZE, Header, MOST_FRAME};
use crate::virtio::chain::{self, Chain, Reader};
use crate::virtio::device::DeviceError;
use crate::virtio::io::Io;

/// Most frames in one turn.
const TURN: usize = 64;

impl Net {
    /// Gives frames of the guest to the tap, as many as one turn allows.
    pub(super) fn transmit(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if !io.queues[TX].ready() {
            return Ok(());
        }
        let before = io.queues[TX].next_used();
        let result = self.transmit_some(io);
        if io.queues[TX].next_used() != before {
            io.signal_used(TX)?;
        }
        result
    }

    fn transmit_some(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        let features = io.features;
        let (queue, memory) = (&mut io.queues[TX], &io.memory);
        queue.disable_notification(memory)?;
        self.is_stuck = false;
        for _ in 0..TURN {
            let Some(mut chain) = Chain::next(queue, memory)? else {
                if queue.enable_notification(memory)? {
                    continue;
                }
                return Ok(());
            };
            if self.is_up && !self.send(&mut chain.reader, features)? {
                // The tap will call; no notification of the driver is needed meanwhile.
                self.is_stuck = true;
                chain.put_back(queue);
                return Ok(());
            }
            chain.finish(queue, memory)?;
        }
        self.link.again().ask()
    }

    /// Sends one frame, or drops it. False where the tap takes none now.
    fn send(&self, frame: &mut Reader<'_>, features: u64) -> Result<bool, DeviceError> {
        let mut header = [0; HEADER_SIZE];
        frame.read_exact(&mut header)?;
        let length = frame.left();
        let is_frame = (ETHERNET..=MOST_FRAME).contains(&length) && frame.pieces().count() < chain::MOST_PIECES;
        let Some(header) = Header::decode(header).for_tap(length, features).filter(|_| is_frame) else {
            return Ok(true);
        };
        let mut header = header.encode();
        let own = VolatileSlice::from(header.as_mut_slice());
        let sent = chain::write_stream(self.tap.as_fd(), iter::once(own).chain(frame.pieces()));
        Ok(!sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
    }
}
