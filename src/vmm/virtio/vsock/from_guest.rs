//! Packets of the guest. Nothing in them is trusted: a packet that is not from the guest's own id is dropped, one of no
//! connection is answered by RST, and one that breaks the rules of its connection ends it.

use virtio_queue::QueueT;

use super::connection::Fate;
use super::device::{TX, Vsock};
use super::news::News;
use super::packet::{HOST_CID, Header, Op, Ports, TYPE_STREAM};
use super::table::Id;
use crate::virtio::chain::{Chain, Reader};
use crate::virtio::device::DeviceError;
use crate::virtio::io::Io;

/// Most packets in one turn; a packet of Linux has up to 64 KiB.
const TURN: usize = 128;
/// The driver hears of used buffers after so many.
const SIGNAL_EVERY: usize = 16;
/// Most answers that wait for a buffer of the driver.
pub(super) const MOST_REPLIES: usize = 256;
/// Most answers to one packet: one for it, one for a connection that must make place.
const REPLIES_OF_ONE: usize = 2;

impl Vsock {
    /// Takes packets from the driver, as many as one turn allows and there is room to answer.
    pub(super) fn take(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if !io.queues[TX].ready() {
            self.tx_due = false;
            return Ok(());
        }
        let before = io.queues[TX].next_used();
        let result = self.take_some(io);
        if io.queues[TX].next_used() != before {
            io.signal_used(TX)?;
        }
        result
    }

    fn take_some(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        io.queues[TX].disable_notification(&io.memory)?;
        for count in 1..=TURN {
            if self.replies.len() + REPLIES_OF_ONE > MOST_REPLIES {
                return Ok(());
            }
            let Some(mut chain) = Chain::next(&mut io.queues[TX], &io.memory)? else {
                if io.queues[TX].enable_notification(&io.memory)? {
                    continue;
                }
                self.tx_due = false;
                return Ok(());
            };
            self.packet(&mut chain.reader, io)?;
            chain.finish(&mut io.queues[TX], &io.memory)?;
            if count % SIGNAL_EVERY == 0 {
                io.signal_used(TX)?;
            }
        }
        self.again.ask()
    }

    fn packet(&mut self, packet: &mut Reader<'_>, io: &Io) -> Result<(), DeviceError> {
        let header = Header::read(packet)?;
        if header.src_cid != self.trunk.guest_cid {
            return Ok(());
        }
        let is_served = header.dst_cid == HOST_CID && header.kind == TYPE_STREAM && self.news == News::Known;
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        match (self.table.find(ports).filter(|_| is_served), header.op) {
            (None, Op::Reset) => {}
            (None, Op::Request) if is_served => self.accept(&header, ports, io)?,
            (None, _) => self.replies.push_back(Header::reset_of(&header)),
            (Some(id), Op::Request) => {
                // The guest has forgotten the connection that these ports had.
                let was_left = self.table.get(id).is_some_and(super::connection::Connection::is_left);
                self.settle(id, if was_left { Fate::Over } else { Fate::Reset }, io)?;
                if was_left {
                    self.accept(&header, ports, io)?;
                }
            }
            (Some(id), op) => {
                let claimed = if op == Op::Data { header.len as usize } else { 0 };
                let fate = self.body(id, &header, claimed, packet);
                self.settle(id, fate, io)?;
            }
        }
        Ok(())
    }

    /// Gives a packet with the payload that it claims to its connection.
    fn body(&mut self, id: Id, header: &Header, claimed: usize, packet: &mut Reader<'_>) -> Fate {
        let Some(connection) = self.table.get_mut(id) else { return Fate::Over };
        if claimed > packet.left() {
            Fate::Reset
        } else if claimed == packet.left() {
            connection.packet(header, packet)
        } else {
            connection.packet(header, &mut packet.split_to(claimed))
        }
    }
}
