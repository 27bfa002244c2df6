//! Packets to the guest. Answers to packets of no connection go first, then the connections in line take turns: each sends
//! at most [`QUANTUM`] bytes and goes to the end. One read of a stream fills many of the driver's buffers (Linux's have
//! 4 KiB less a little); the headers are written before what was read when it is known how much that is.

use std::sync::atomic::Ordering;

use virtio_queue::QueueT;
use vm_memory::VolatileSlice;

use super::connection::Got;
use super::device::{RX, Vsock};
use super::packet::{HEADER_SIZE, Header};
use super::table::Id;
use crate::virtio::chain::{Chain, Writer};
use crate::virtio::device::DeviceError;
use crate::virtio::io::Io;

/// Most bytes of one connection before it is the next one's turn.
const QUANTUM: usize = 64 << 10;
/// Most bytes in one packet, as Linux sends them (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
const MOST_DATA: usize = 64 << 10;
/// Most buffers filled by one read.
const MOST_BUFFERS: usize = 64;
/// Most turns of connections before the device looks at its other business.
const TURNS: usize = 64;

impl Vsock {
    /// Gives the driver what there is for it, as far as it has buffers.
    pub(super) fn deliver(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if !io.queues[RX].ready() {
            return Ok(());
        }
        let before = io.queues[RX].next_used();
        let result = self.deliver_some(io);
        if io.queues[RX].next_used() != before {
            io.signal_used(RX)?;
        }
        result
    }

    fn deliver_some(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        io.queues[RX].disable_notification(&io.memory)?;
        let mut turns = 0;
        while !self.replies.is_empty() || !self.line.is_empty() {
            if !has_buffer(io)? {
                if io.queues[RX].enable_notification(&io.memory)? {
                    continue;
                }
                return Ok(());
            }
            if let Some(reply) = self.replies.pop_front() {
                put(&reply, io)?;
            } else if turns == TURNS {
                return self.again.ask();
            } else if let Some(id) = self.line.pop_front() {
                turns += 1;
                self.turn(id, io)?;
                io.signal_used(RX)?;
            }
        }
        Ok(())
    }

    /// The turn of one connection, for which there is a buffer at least.
    fn turn(&mut self, id: Id, io: &mut Io) -> Result<(), DeviceError> {
        let Some(connection) = self.table.get_mut(id) else { return Ok(()) };
        connection.is_queued = false;
        if let Some(header) = connection.next_control(&mut self.trunk) {
            put(&header, io)?;
        }
        if connection.room() > 0 {
            self.send_data(id, io)?;
        }
        self.line_up(id);
        self.rewatch(id, io)
    }

    /// Reads from a stream into as many buffers as it may fill.
    fn send_data(&mut self, id: Id, io: &mut Io) -> Result<(), DeviceError> {
        let Some(connection) = self.table.get_mut(id) else { return Ok(()) };
        let (queue, memory) = (&mut io.queues[RX], &io.memory);
        let most = connection.room().min(QUANTUM);
        let mut buffers: Vec<(Chain<'_>, Writer<'_>)> = Vec::with_capacity(MOST_BUFFERS);
        let mut space = 0;
        while space < most && buffers.len() < MOST_BUFFERS {
            let Some(mut chain) = Chain::next(queue, memory)? else { break };
            let header = chain.writer.split_to(HEADER_SIZE);
            if chain.writer.left() == 0 {
                return Err(DeviceError::Driver("a receive buffer has no room for data".to_owned()));
            }
            if chain.writer.left() > MOST_DATA {
                chain.writer = chain.writer.split_to(MOST_DATA);
            }
            space += chain.writer.left();
            buffers.push((chain, header));
        }
        let pieces = buffers.iter().flat_map(|(chain, _)| chain.writer.pieces());
        let got = connection.read(at_most(most, pieces));
        let mut left = if let Got::Bytes(count) = got { count } else { 0 };
        for (chain, mut header) in buffers {
            if left == 0 {
                chain.put_back(queue);
                continue;
            }
            let count = left.min(chain.writer.left());
            left -= count;
            connection.data_header(count as u32, &mut self.trunk).write(&mut header)?;
            chain.finish_with(HEADER_SIZE + count, queue, memory)?;
        }
        Ok(())
    }
}

fn has_buffer(io: &Io) -> Result<bool, DeviceError> {
    let queue = &io.queues[RX];
    Ok(queue.avail_idx(&io.memory, Ordering::Acquire)?.0 != queue.next_avail())
}

/// Puts a packet without data into the driver's next buffer.
fn put(header: &Header, io: &mut Io) -> Result<(), DeviceError> {
    let (queue, memory) = (&mut io.queues[RX], &io.memory);
    // A driver that takes its buffers back, against all rules, loses the packet.
    let Some(mut chain) = Chain::next(queue, memory)? else { return Ok(()) };
    header.write(&mut chain.writer)?;
    chain.finish_with(HEADER_SIZE, queue, memory)
}

/// The front of some pieces of memory, `most` bytes of it.
fn at_most<'m>(
    mut most: usize,
    pieces: impl Iterator<Item = VolatileSlice<'m>>,
) -> impl Iterator<Item = VolatileSlice<'m>> {
    pieces.map_while(move |piece| {
        let part = piece.subslice(0, most.min(piece.len())).ok().filter(|part| !part.is_empty())?;
        most -= part.len();
        Some(part)
    })
}
