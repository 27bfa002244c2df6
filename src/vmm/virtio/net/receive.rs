//! Frames from the tap to the guest. A frame may be spread over several of the driver's buffers (`VIRTIO_NET_F_MRG_RXBUF`);
//! how many it took is known when it is there, so as many as the largest frame needs are held ready, and those that were not
//! needed serve the next one, or are given back.

use std::collections::VecDeque;
use std::iter;
use std::os::fd::AsFd;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_MRG_RXBUF};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::device::{Net, RX};
use super::header::{ETHERNET, HEADER_SIZE, Header, MOST_FRAME, has};
use crate::virtio::chain::{self, Chain};
use crate::virtio::device::DeviceError;
use crate::virtio::io::Io;

/// Most frames in one turn.
const TURN: usize = 32;
/// Most frames thrown away when the link comes up: more than the queue of a tap holds (`TUN_READQ_SIZE`).
const MOST_STALE: usize = 1024;

/// Why a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The tap has no frame, or the turn was long enough: the tap will call.
    Tap,
    /// The driver has too few buffers.
    Starved,
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum One {
    /// The guest has a frame.
    Given,
    /// A frame was thrown away.
    Dropped,
    /// There was none.
    None,
}

/// Buffers that were taken from the driver and not used yet.
#[derive(Default)]
struct Held<'m> {
    chains: VecDeque<Chain<'m>>,
    room: usize,
}

impl<'m> Held<'m> {
    /// Takes buffers until a frame fits. False where the driver has not so many; it will tell when it has more.
    fn fill(&mut self, want: Want, queue: &mut Queue, memory: &'m GuestMemoryMmap) -> Result<bool, DeviceError> {
        while self.room < want.bytes && (want.merges || self.chains.is_empty()) {
            let Some(chain) = Chain::next(queue, memory)? else {
                if queue.enable_notification(memory)? {
                    continue;
                }
                return Ok(false);
            };
            self.room += chain.writer.left();
            self.chains.push_back(chain);
        }
        Ok(true)
    }

    fn pop(&mut self) -> Option<Chain<'m>> {
        let chain = self.chains.pop_front()?;
        self.room -= chain.writer.left();
        Some(chain)
    }

    fn put_back(self, queue: &mut Queue) {
        self.chains.into_iter().for_each(|chain| chain.put_back(queue));
    }
}

/// The buffers that must be there before the tap is read: what does not fit is cut off there.
#[derive(Clone, Copy, Debug)]
struct Want {
    bytes: usize,
    /// More than one buffer may be taken.
    merges: bool,
}

impl Net {
    /// Takes frames from the tap while it has some and the driver has buffers, as many as one turn allows.
    pub(super) fn receive(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if self.is_stale {
            self.is_stale = false;
            self.throw_away();
        }
        self.is_starved = !io.queues[RX].ready();
        if !self.is_up || self.is_starved {
            return Ok(());
        }
        let before = io.queues[RX].next_used();
        let result = self.receive_some(io);
        if io.queues[RX].next_used() != before {
            io.signal_used(RX)?;
        }
        self.is_starved = result? == End::Starved;
        Ok(())
    }

    fn receive_some(&self, io: &mut Io) -> Result<End, DeviceError> {
        let features = io.features;
        let want = self.want(features);
        let (queue, memory) = (&mut io.queues[RX], &io.memory);
        queue.disable_notification(memory)?;
        let mut held = Held::default();
        for _ in 0..TURN {
            if !held.fill(want, queue, memory)? {
                held.put_back(queue);
                return Ok(End::Starved);
            }
            let Some(first) = held.pop() else { break };
            match self.receive_one(first, &mut held, features, (queue, memory))? {
                One::Given => {}
                One::Dropped => std::mem::take(&mut held).put_back(queue),
                One::None => break,
            }
        }
        held.put_back(queue);
        Ok(End::Tap)
    }

    fn want(&self, features: u64) -> Want {
        let cuts = has(features, VIRTIO_NET_F_GUEST_TSO4) || has(features, VIRTIO_NET_F_GUEST_TSO6);
        let frame = if cuts { MOST_FRAME } else { usize::from(self.config.mtu) + ETHERNET };
        Want { bytes: HEADER_SIZE + frame, merges: has(features, VIRTIO_NET_F_MRG_RXBUF) }
    }

    /// Reads a frame into the first buffer and as many of those held as it needs. Where there is none for the guest, the
    /// first is given back to the driver, and those held must be too.
    fn receive_one<'m>(
        &self,
        mut first: Chain<'m>,
        held: &mut Held<'m>,
        features: u64,
        (queue, memory): (&mut Queue, &'m GuestMemoryMmap),
    ) -> Result<One, DeviceError> {
        let mut place = first.writer.split_to(HEADER_SIZE);
        // The header goes through the device's own memory: the guest cannot change what is decided by it.
        let mut header = [0; HEADER_SIZE];
        let rest = held.chains.iter().flat_map(|chain| chain.writer.pieces());
        let pieces: Vec<_> = first.writer.pieces().chain(rest).take(chain::MOST_PIECES - 1).collect();
        let room: usize = pieces.iter().map(VolatileSlice::len).sum();
        let own = VolatileSlice::from(header.as_mut_slice());
        // An error is none of the guest's: the interface is down, or it is gone, which the tap reports by itself.
        let Ok(count) = chain::read_stream(self.tap.as_fd(), iter::once(own).chain(pieces)) else {
            first.put_back(queue);
            return Ok(One::None);
        };
        let frame = count.saturating_sub(HEADER_SIZE);
        // Only a driver that gives less than it must sees a frame fill everything, which then was cut off.
        let is_cut = frame == room && count < self.want(features).bytes;
        let Some(mut header) = Header::decode(header).for_guest(features).filter(|_| frame >= ETHERNET && !is_cut)
        else {
            first.put_back(queue);
            return Ok(One::Dropped);
        };
        let used = spread(frame, &first, held);
        header.num_buffers = used.len() as u16;
        place.write_all(&header.encode())?;
        chain::finish_together(&used, queue, memory)?;
        Ok(One::Given)
    }

    /// Throws away what came to the tap while the cable was out.
    fn throw_away(&self) {
        let mut frame = [0; 64];
        for _ in 0..MOST_STALE {
            if nix::unistd::read(&self.tap, &mut frame).is_err() {
                return;
            }
        }
    }
}

/// The buffers that a frame has filled, `(head, bytes)`: the first, and those that it takes out of the held.
fn spread(frame: usize, first: &Chain<'_>, held: &mut Held<'_>) -> Vec<(u16, u32)> {
    let count = frame.min(first.writer.left());
    let mut used = vec![(first.head(), (HEADER_SIZE + count) as u32)];
    let mut left = frame - count;
    while left > 0
        && let Some(next) = held.pop()
    {
        let count = left.min(next.writer.left());
        used.push((next.head(), count as u32));
        left -= count;
    }
    used
}
