//! The device itself: what it is made from, its place among queues and files, and the life of a connection from the first
//! packet to the last. What comes from the guest is in `from_guest.rs`, what goes to it in `to_guest.rs`.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use super::connection::{Connection, Fate, Origin, Trunk};
use super::credit::SHARED_WINDOW;
use super::from_guest::MOST_REPLIES;
use super::gate::{Asked, InnerGate};
use super::gates::{FIRST, Gates, MOST_ADMITTED};
use super::news::News;
use super::packet::{Header, Ports};
use super::table::{Id, MOST, Table};
use crate::virtio::chain::{Again, RING_FEATURES};
use crate::virtio::config_space;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};

/// Stream sockets are served (`VIRTIO_VSOCK_F_STREAM`, section 5.10.3); without any bit that is implied too.
const FEATURE_STREAM: u64 = 1;

/// Queues (section 5.10.2): packets to the guest.
pub(super) const RX: usize = 0;
/// Packets from the guest.
pub(super) const TX: usize = 1;
/// Events to the guest.
pub(super) const EVENT: usize = 2;

/// Linux fills the first with buffers of 4 KiB: this many hold what four streams may have under way.
const QUEUE_SIZES: [u16; 3] = [256, 128, 16];

/// Epoll tokens. That of a gate is its number; that of a connection is the number of its id, marked.
const LAST_GATE: u64 = MOST_ADMITTED as u64;
const AGAIN: u64 = LAST_GATE + 1;
const CONNECTION: u64 = 1 << 31;

/// Most connections taken from a gate in one turn.
const GATE_TURN: usize = 32;
/// Turns after which a gate that was closed is seen to be: more than its socket holds.
const GATE_TURNS: usize = 32;

/// First port that the host's side of a connection gets: beyond those that services use.
const FIRST_PORT: u32 = 1 << 30;
/// The last one: the next two mean "any".
const LAST_PORT: u32 = u32::MAX - 2;

/// What a device is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Context id of the guest, 3 or more (0 to 2 are taken, vsock(7)).
    pub guest_cid: u64,
    /// Ports of the host that the guest may connect to; everything else is refused.
    pub allowed_ports: Vec<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self { guest_cid: 3, allowed_ports: Vec::new() }
    }
}

/// The virtio-vsock device. Each connection takes one descriptor: there can be 1536.
#[derive(Debug)]
pub struct Vsock {
    pub(super) trunk: Trunk,
    gates: Gates,
    pub(super) again: Again,
    pub(super) table: Table,
    /// Connections that have something for the guest, each once, in the order of their turns.
    pub(super) line: VecDeque<Id>,
    /// Answers to packets of no connection.
    pub(super) replies: VecDeque<Header>,
    /// There may be packets of the guest.
    pub(super) tx_due: bool,
    pub(super) news: News,
    next_port: u32,
}

/// What is saved: names only. Connections end with the machine that they were saved in.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    guest_cid: u64,
    next_port: u32,
}

impl Vsock {
    /// Makes a device.
    ///
    /// # Errors
    /// The context id is not one of a guest, or no descriptor is free.
    pub fn new(config: Config, gate: InnerGate) -> Result<Self, DeviceError> {
        // Section 5.10.4: the upper 32 bits are reserved; 2^32 - 1 means "any".
        if !(3..u64::from(u32::MAX)).contains(&config.guest_cid) {
            return Err(DeviceError::State(format!(
                "{} is no context id of a guest: take 3 or more",
                config.guest_cid
            )));
        }
        Ok(Self {
            trunk: Trunk { guest_cid: config.guest_cid, spare_window: SHARED_WINDOW },
            gates: Gates::new(gate, config.allowed_ports),
            again: Again::new()?,
            table: Table::default(),
            line: VecDeque::new(),
            replies: VecDeque::new(),
            tx_due: false,
            news: News::Known,
            next_port: FIRST_PORT,
        })
    }

    /// Does what there is to do, as far as one turn goes.
    fn work(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if self.tx_due {
            self.take(io)?;
        }
        let answers = self.replies.len();
        self.deliver(io)?;
        // The guest's packets may have waited for answers to leave.
        if self.tx_due && self.replies.len() < answers { self.again.ask() } else { Ok(()) }
    }

    pub(super) fn watch_gates(&self, io: &Io) -> Result<(), DeviceError> {
        self.gates.open().try_for_each(|(number, gate)| io.watch(gate.as_fd(), number as u64, Interest::READ))
    }

    /// Somebody has asked for connections, or has gone.
    fn gate_ready(&mut self, number: usize, io: &Io) -> Result<(), DeviceError> {
        for _ in 0..GATE_TURN {
            let Some(gate) = self.gates.get(number) else { return Ok(()) };
            let asked = match gate.next() {
                // Of somebody else's gate it is not known what it is.
                Err(_) if number != FIRST => Asked::Closed,
                asked => asked.map_err(DeviceError::host("take a connection from the owner"))?,
            };
            match asked {
                Asked::Connect(port, stream) => self.connect(port, stream, io)?,
                Asked::Admit(ports, gate) if number == FIRST => self.admit(ports, gate, io)?,
                Asked::Admit(..) | Asked::Nonsense => {}
                Asked::Nothing => break,
                Asked::Closed => {
                    io.unwatch(gate.as_fd())?;
                    self.gates.close(number);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets another party in; where it may not come, its gate ends.
    fn admit(&mut self, ports: Range<u32>, gate: InnerGate, io: &Io) -> Result<(), DeviceError> {
        // Who has these ports may be gone, which nobody has looked at yet.
        for _ in 0..GATE_TURNS {
            match self.gates.overlapping(&ports) {
                None => break,
                Some(FIRST) => return Ok(()),
                Some(other) => self.gate_ready(other, io)?,
            }
        }
        if self.gates.overlapping(&ports).is_some() {
            return Ok(());
        }
        let Some(number) = self.gates.insert(gate, ports) else { return Ok(()) };
        let Some(gate) = self.gates.get(number) else { return Ok(()) };
        if io.watch(gate.as_fd(), number as u64, Interest::READ).is_err() {
            // It cannot be waited for, so it is no gate.
            self.gates.close(number);
        }
        Ok(())
    }

    /// Opens a connection to the guest; where there is no place for it, its stream ends.
    fn connect(&mut self, guest_port: u32, stream: OwnedFd, io: &Io) -> Result<(), DeviceError> {
        if !self.make_place(Origin::Owner, io)? {
            return Ok(());
        }
        let ports = self.fresh_ports(guest_port);
        self.insert(Connection::requested(ports, stream), io)
    }

    /// A port of the host that no connection to that port of the guest has. There are more ports than connections.
    fn fresh_ports(&mut self, guest: u32) -> Ports {
        loop {
            let ports = Ports { host: self.next_port, guest };
            self.next_port = if self.next_port >= LAST_PORT { FIRST_PORT } else { self.next_port + 1 };
            if self.table.find(ports).is_none() {
                return ports;
            }
        }
    }

    /// The guest wants a connection. It gets it where the port is behind a gate, there is a place, and the gate takes it.
    pub(super) fn accept(&mut self, request: &Header, ports: Ports, io: &Io) -> Result<(), DeviceError> {
        if self.gates.of_port(ports.host).is_some()
            && self.make_place(Origin::Guest, io)?
            && let Some(gate) = self.gates.of_port(ports.host)
            && let Ok(stream) = gate.hand_over(ports.host)
        {
            return self.insert(Connection::accepted(ports, stream, request), io);
        }
        self.replies.push_back(Header::reset_of(request));
        Ok(())
    }

    /// Finds a place, if need be that of a connection that no one of the host's side stands behind any more and that the
    /// guest has not answered yet.
    fn make_place(&mut self, origin: Origin, io: &Io) -> Result<bool, DeviceError> {
        if self.table.has_place(origin) {
            return Ok(true);
        }
        if self.replies.len() >= MOST_REPLIES {
            return Ok(false);
        }
        let left = self.table.iter().find(|(_, other)| other.origin() == origin && other.is_left());
        let Some((id, _)) = left else { return Ok(false) };
        self.settle(id, Fate::Reset, io)?;
        Ok(true)
    }

    fn insert(&mut self, connection: Connection, io: &Io) -> Result<(), DeviceError> {
        let id = self.table.insert(connection);
        self.line_up(id);
        self.rewatch(id, io)
    }

    fn stream_ready(&mut self, id: Id, ready: Interest, io: &Io) -> Result<(), DeviceError> {
        let Some(connection) = self.table.get_mut(id) else { return Ok(()) };
        let fate = connection.stream_ready(ready);
        self.settle(id, fate, io)
    }

    /// Draws the consequences of what has happened to a connection.
    pub(super) fn settle(&mut self, id: Id, fate: Fate, io: &Io) -> Result<(), DeviceError> {
        if fate == Fate::Goes {
            self.line_up(id);
            return self.rewatch(id, io);
        }
        let Some(connection) = self.table.get_mut(id) else { return Ok(()) };
        if fate == Fate::Reset {
            self.replies.push_back(Header::reset(connection.ports(), self.trunk.guest_cid));
        }
        let must_drain = connection.must_drain();
        self.table.forget_ports(id);
        if must_drain {
            return self.rewatch(id, io);
        }
        let Some(connection) = self.table.remove(id) else { return Ok(()) };
        self.trunk.spare_window += connection.shared_window();
        match connection.stream() {
            Some(stream) if connection.watched.is_some() => io.unwatch(stream),
            _ => Ok(()),
        }
    }

    /// Puts a connection into the line, where it has something for the guest and does not stand there.
    pub(super) fn line_up(&mut self, id: Id) {
        if let Some(connection) = self.table.get_mut(id)
            && !connection.is_queued
            && connection.has_something()
        {
            connection.is_queued = true;
            self.line.push_back(id);
        }
        // A guest without buffers can open and reset connections that then stand here for nothing.
        if self.line.len() > 2 * MOST {
            self.line.retain(|id| self.table.get(*id).is_some());
        }
    }

    /// Watches a stream for what its connection waits for now, or lets go of it where nothing more can happen to it.
    pub(super) fn rewatch(&mut self, id: Id, io: &Io) -> Result<(), DeviceError> {
        let Some(connection) = self.table.get_mut(id) else { return Ok(()) };
        let (before, now) = (connection.watched, connection.interest());
        connection.watched = now;
        let Some(stream) = connection.stream() else { return Ok(()) };
        let token = id.number() | CONNECTION;
        match (before, now) {
            (None, Some(interest)) => io.watch(stream, token, interest)?,
            (Some(before), Some(interest)) if before != interest => io.rewatch(stream, token, interest)?,
            (Some(_), None) => io.unwatch(stream)?,
            _ => {}
        }
        connection.close_spare_stream();
        Ok(())
    }
}

impl Device for Vsock {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn name(&self) -> &str {
        "vsock"
    }

    fn features(&self) -> u64 {
        RING_FEATURES | FEATURE_STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// The configuration space is the context id (section 5.10.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config_space::read(&self.trunk.guest_cid.to_le_bytes(), offset, data);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.again.watch(io, AGAIN)?;
        if self.news == News::Known {
            self.watch_gates(io)?;
        }
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        match queue {
            TX => self.tx_due = true,
            EVENT => self.announce(io)?,
            _ => {}
        }
        self.work(io)
    }

    fn source_ready(&mut self, token: u64, ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        match token {
            AGAIN => {
                self.again.hear();
                self.tx_due = true;
                self.announce(io)?;
            }
            gate @ ..=LAST_GATE => self.gate_ready(gate as usize, io)?,
            token => self.stream_ready(Id::of(token & !CONNECTION), ready, io)?,
        }
        self.work(io)
    }

    fn reset(&mut self) {
        self.table = Table::default();
        self.line.clear();
        self.replies.clear();
        self.trunk.spare_window = SHARED_WINDOW;
        self.tx_due = false;
        self.news = News::Known;
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        let state = State { guest_cid: self.trunk.guest_cid, next_port: self.next_port };
        postcard::to_allocvec(&state).map_err(|error| DeviceError::State(error.to_string()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let state: State = postcard::from_bytes(state).map_err(|error| DeviceError::State(error.to_string()))?;
        if state.guest_cid != self.trunk.guest_cid {
            let (saved, made) = (state.guest_cid, self.trunk.guest_cid);
            return Err(DeviceError::State(format!("the guest's context id was {saved}, the device has {made}")));
        }
        self.reset();
        self.next_port = state.next_port.clamp(FIRST_PORT, LAST_PORT);
        self.news = News::Due;
        Ok(())
    }
}
