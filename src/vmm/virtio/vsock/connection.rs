//! One connection between a stream of the host and a socket of the guest.
//!
//! ```text
//!  owner connects ─► Requested ──RESPONSE──► Open ──── host done both ways: SHUTDOWN(both) ───► Closing ──RST──► gone
//!                        │                   ▲ │ │
//!                        │RST                │ │ └─ guest: SHUTDOWN(both), RST, or a broken rule ─► Draining ──► gone
//!                        ▼                   │ │       (answered by RST, save an RST)               all written
//!                      gone      guest: REQUEST└─ one direction at a time: SHUTDOWN(send), SHUTDOWN(receive)
//!                                (RESPONSE owed)
//! ```
//!
//! * A half-closed direction is a flag, not a state: the two directions end independently, each from either side.
//! * `Closing` has no stream any more; it only waits for the guest to agree, so that its ports are not used again before.
//! * `Draining` is no connection any more for the guest, which may use its ports again; the host's side still gets what the
//!   guest had sent. It keeps its place in the table, so that a guest cannot heap up backlogs by closing.
//!
//! Nothing waits here, and nothing is queued towards the guest: what is owed to it is a set of flags, and data stays in the
//! host's socket until the guest has made room.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags, Shutdown};
use vm_memory::VolatileSlice;

use super::backlog::Backlog;
use super::credit::{FromGuest, ToGuest};
use super::packet::{HOST_CID, Header, Op, Ports, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use super::sys;
use crate::virtio::chain::Reader;
use crate::virtio::io::Interest;

/// Who has opened a connection. Each has places of its own in the table: a guest that opens too many stands in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Owner,
    Guest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Requested,
    Open,
    Closing,
    Draining,
}

/// What becomes of a connection after something has happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Goes,
    /// The guest knows that it is over.
    Over,
    /// It is over, and the guest must be told by RST.
    Reset,
}

/// What reading from the host's side has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    /// Nothing now; the stream will call.
    Nothing,
    /// Nothing any more.
    End,
}

/// What all connections of a device have together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trunk {
    /// Context id of the guest.
    pub(super) guest_cid: u64,
    /// Bytes of window that streams may still take for themselves beyond their first.
    pub(super) spare_window: u32,
}

/// Answers owed to the guest. Everything else that it must be told follows from the state.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    request: bool,
    response: bool,
    credit_update: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    ports: Ports,
    origin: Origin,
    phase: Phase,
    stream: Option<OwnedFd>,
    to_guest: ToGuest,
    from_guest: FromGuest,
    backlog: Backlog,
    owed: Owed,
    /// Directions that the host's side has ended, as flags of SHUTDOWN, and those that the guest was told of.
    host_done: u32,
    told_done: u32,
    /// Directions that the guest has ended.
    guest_done: u32,
    /// The stream may have bytes, or its end.
    readable: bool,
    /// That is known and has been reported again: the stream need not be watched for it until all is read.
    is_deaf: bool,
    /// The other end of the stream is gone: nothing new can come, and nothing can go.
    is_closed: bool,
    /// What the stream is watched for, if it is.
    pub(super) watched: Option<Interest>,
    /// It stands in the line of those that have something for the guest.
    pub(super) is_queued: bool,
}

impl Connection {
    /// One that the owner wants: REQUEST is owed.
    pub(super) fn requested(ports: Ports, stream: OwnedFd) -> Self {
        let owed = Owed { request: true, ..Owed::default() };
        Self::new(ports, stream, (Origin::Owner, Phase::Requested), owed)
    }

    /// One that the guest has asked for by a packet, and that the owner has: RESPONSE is owed.
    pub(super) fn accepted(ports: Ports, stream: OwnedFd, request: &Header) -> Self {
        let owed = Owed { response: true, ..Owed::default() };
        let mut connection = Self::new(ports, stream, (Origin::Guest, Phase::Open), owed);
        connection.to_guest.update(request.buf_alloc, request.fwd_cnt);
        connection
    }

    fn new(ports: Ports, stream: OwnedFd, (origin, phase): (Origin, Phase), owed: Owed) -> Self {
        Self {
            ports,
            origin,
            phase,
            stream: Some(stream),
            to_guest: ToGuest::default(),
            from_guest: FromGuest::default(),
            backlog: Backlog::default(),
            owed,
            host_done: 0,
            told_done: 0,
            guest_done: 0,
            readable: true,
            is_deaf: false,
            is_closed: false,
            watched: None,
            is_queued: false,
        }
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether it only waits for the guest to answer, with no one on the host's side.
    pub(super) fn is_left(&self) -> bool {
        match self.phase {
            Phase::Closing => true,
            Phase::Requested => self.is_closed,
            Phase::Open | Phase::Draining => false,
        }
    }

    /// Bytes of window to be given back at the end.
    pub(super) fn shared_window(&self) -> u32 {
        self.from_guest.shared()
    }

    /// Bytes of the guest that wait here for the host's side.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.backlog.waiting().len()
    }

    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// What the stream should be watched for; none where it should not be, not even for its end, which is always reported.
    pub(super) fn interest(&self) -> Option<Interest> {
        let is_of_use = self.stream.is_some() && !self.is_closed && self.phase != Phase::Closing;
        let reads = !self.is_deaf && !self.is_read_out() && self.phase != Phase::Draining;
        is_of_use.then(|| Interest { readable: reads, writable: !self.backlog.is_empty(), closed: false })
    }

    /// A packet of the guest for this connection; `body` has the bytes that it claims.
    pub(super) fn packet(&mut self, header: &Header, body: &mut Reader<'_>) -> Fate {
        self.to_guest.update(header.buf_alloc, header.fwd_cnt);
        match (self.phase, header.op) {
            (_, Op::Reset) => Fate::Over,
            (Phase::Requested, Op::Response) => {
                self.phase = Phase::Open;
                Fate::Goes
            }
            (Phase::Open, Op::Data) => self.data(body),
            (Phase::Open | Phase::Closing, Op::Shutdown) => self.shutdown(header.flags),
            (Phase::Open, Op::CreditRequest) => {
                self.owed.credit_update = true;
                Fate::Goes
            }
            (Phase::Open, Op::CreditUpdate) => Fate::Goes,
            // What was under way when the host's side went.
            (Phase::Closing, Op::Data | Op::CreditRequest | Op::CreditUpdate) => Fate::Goes,
            _ => Fate::Reset,
        }
    }

    fn data(&mut self, body: &mut Reader<'_>) -> Fate {
        let count = body.left();
        let fits = u32::try_from(count).is_ok_and(|count| self.from_guest.receive(count));
        if !fits || self.guest_done & SHUTDOWN_SEND != 0 {
            return Fate::Reset;
        }
        if self.backlog.is_empty() && self.host_done & SHUTDOWN_RECEIVE == 0 {
            self.write_through(body);
        }
        if self.host_done & SHUTDOWN_RECEIVE != 0 {
            self.forward(body.left());
        } else {
            self.backlog.append(body);
        }
        Fate::Goes
    }

    /// Writes straight from the guest's memory, as far as the stream takes it.
    fn write_through(&mut self, body: &mut Reader<'_>) {
        let Some(stream) = &self.stream else { return };
        while body.left() > 0 {
            match sys::send(stream.as_fd(), body.pieces()) {
                Ok(count) => {
                    body.skip(count);
                    self.from_guest.forward(count as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.stop_writing(),
            }
        }
    }

    /// Writes what waits, as far as the stream takes it.
    fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        while !self.backlog.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match socket::send(stream.as_raw_fd(), self.backlog.waiting(), flags) {
                Ok(count) => {
                    self.backlog.take(count);
                    self.from_guest.forward(count as u32);
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return,
                Err(_) => return self.stop_writing(),
            }
        }
        if self.guest_done & SHUTDOWN_SEND != 0 {
            self.shut_stream(Shutdown::Write);
        }
    }

    /// The host's side reads no more.
    fn stop_writing(&mut self) {
        self.host_done |= SHUTDOWN_RECEIVE;
        let lost = self.backlog.clear();
        self.forward(lost);
    }

    fn forward(&mut self, count: usize) {
        // Never more than a window.
        self.from_guest.forward(count as u32);
    }

    fn shutdown(&mut self, flags: u32) -> Fate {
        let new = flags & SHUTDOWN_BOTH & !self.guest_done;
        self.guest_done |= new;
        if self.guest_done == SHUTDOWN_BOTH {
            return Fate::Reset;
        }
        if new & SHUTDOWN_RECEIVE != 0 {
            self.readable = false;
            self.shut_stream(Shutdown::Read);
        }
        if new & SHUTDOWN_SEND != 0 && self.backlog.is_empty() {
            self.shut_stream(Shutdown::Write);
        }
        Fate::Goes
    }

    fn shut_stream(&self, how: Shutdown) {
        if let Some(stream) = &self.stream {
            // Fails only where the other end is gone, which is as good.
            let _ = socket::shutdown(stream.as_raw_fd(), how);
        }
    }

    /// Something has happened to the stream.
    pub(super) fn stream_ready(&mut self, ready: Interest) -> Fate {
        self.is_deaf |= ready.readable && self.readable;
        self.readable |= ready.readable || ready.closed;
        if ready.closed {
            self.is_closed = true;
            self.stop_writing();
        }
        self.flush();
        if self.phase == Phase::Draining && self.backlog.is_empty() { Fate::Over } else { Fate::Goes }
    }

    /// The guest has let go. True where bytes of it still wait for the host's side: then the connection must stay until
    /// they are written.
    pub(super) fn must_drain(&mut self) -> bool {
        self.phase = Phase::Draining;
        self.owed = Owed::default();
        self.shut_stream(Shutdown::Read);
        !self.backlog.is_empty()
    }

    /// Bytes that can be read from the stream and sent to the guest now.
    pub(super) fn room(&self) -> usize {
        let wants = self.reads() && !self.owed.response;
        if wants { self.to_guest.free() as usize } else { 0 }
    }

    fn reads(&self) -> bool {
        self.phase == Phase::Open && self.readable && !self.is_read_out()
    }

    /// Whether no byte will go to the guest any more.
    fn is_read_out(&self) -> bool {
        self.guest_done & SHUTDOWN_RECEIVE != 0 || self.host_done & SHUTDOWN_SEND != 0
    }

    /// Whether there is something for the guest, a packet or bytes.
    pub(super) fn has_something(&self) -> bool {
        self.room() > 0 || self.peek().is_some()
    }

    fn peek(&self) -> Option<Op> {
        match self.phase {
            Phase::Requested if self.owed.request => return Some(Op::Request),
            Phase::Open => {}
            _ => return None,
        }
        if self.owed.response {
            Some(Op::Response)
        } else if self.owed.credit_update || self.from_guest.is_update_due(self.to_guest.alloc()) {
            Some(Op::CreditUpdate)
        } else if self.reads() && self.to_guest.must_ask() {
            Some(Op::CreditRequest)
        } else if self.told_done != self.host_done && self.room() == 0 {
            // With room, the next read may find the end, and one packet tells both.
            Some(Op::Shutdown)
        } else {
            None
        }
    }

    /// The next packet without data, for which there is a buffer.
    pub(super) fn next_control(&mut self, trunk: &mut Trunk) -> Option<Header> {
        let op = self.peek()?;
        let mut flags = 0;
        match op {
            Op::Request => self.owed.request = false,
            Op::Response => self.owed.response = false,
            Op::CreditUpdate => self.owed.credit_update = false,
            Op::CreditRequest => self.to_guest.ask(),
            _ => {
                flags = self.host_done;
                self.told_done = flags;
                if flags == SHUTDOWN_BOTH {
                    self.phase = Phase::Closing;
                }
            }
        }
        Some(self.header(op, flags, trunk))
    }

    /// Reads from the stream, straight into the guest's memory.
    pub(super) fn read<'m>(&mut self, pieces: impl Iterator<Item = VolatileSlice<'m>>) -> Got {
        let Some(stream) = &self.stream else { return Got::Nothing };
        match sys::receive(stream.as_fd(), pieces) {
            Ok(0) => {
                self.readable = false;
                self.host_done |= SHUTDOWN_SEND;
                Got::End
            }
            Ok(count) => {
                self.to_guest.count(count as u32);
                Got::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Got::Bytes(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (self.readable, self.is_deaf) = (false, false);
                Got::Nothing
            }
            // The other end is gone and has left bytes of the guest unread.
            Err(_) => {
                self.readable = false;
                self.host_done = SHUTDOWN_BOTH;
                self.stop_writing();
                Got::End
            }
        }
    }

    /// The header of a packet with data.
    pub(super) fn data_header(&mut self, len: u32, trunk: &mut Trunk) -> Header {
        Header { len, ..self.header(Op::Data, 0, trunk) }
    }

    fn header(&mut self, op: Op, flags: u32, trunk: &mut Trunk) -> Header {
        let own_alloc = self.to_guest.alloc();
        if self.from_guest.is_update_due(own_alloc) {
            self.from_guest.grow(own_alloc, &mut trunk.spare_window);
        }
        let (buf_alloc, fwd_cnt) = self.from_guest.tell();
        Header {
            src_cid: HOST_CID,
            dst_cid: trunk.guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    }

    /// Closes the stream where the connection needs it no more. It must not be watched then.
    pub(super) fn close_spare_stream(&mut self) {
        if self.phase == Phase::Closing {
            self.stream = None;
        }
    }
}
