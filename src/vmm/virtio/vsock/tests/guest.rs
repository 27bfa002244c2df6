//! The guest: a driver with receive buffers, and just so much of sockets as the tests need.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use crate::virtio::device::DeviceError;
use crate::virtio::driver::board::{Board, Piece};
use crate::virtio::vsock::device::{EVENT, RX, TX};
use crate::virtio::vsock::packet::{HEADER_SIZE, HOST_CID, Header, Op, Ports, TYPE_STREAM};
use crate::virtio::vsock::{Config, Gate, Vsock};

pub(super) const CID: u64 = 3;
pub(super) const ALLOWED: u32 = 1000;
/// What the guest sets aside for each socket, as Linux does.
pub(super) const GUEST_WINDOW: u32 = 256 << 10;

const RX_SIZE: usize = 4096 - 320;
const TX_SIZE: usize = (64 << 10) + HEADER_SIZE;

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) data: Vec<u8>,
}

pub(super) struct Guest {
    pub(super) board: Board<Vsock>,
    pub(super) gate: Gate,
    /// Where the available receive buffers lie, and where others may.
    rx: HashMap<u16, u64>,
    spare: Vec<u64>,
    rx_count: usize,
    tx_used: usize,
    /// What this guest says of its buffers in every packet, for each connection: bytes set aside and taken.
    pub(super) credit: HashMap<Ports, (u32, u32)>,
    /// Whether used receive buffers are made available again.
    pub(super) refills: bool,
}

impl Guest {
    /// A guest with receive buffers of the size that Linux takes.
    pub(super) fn new() -> Self {
        Self::with_buffers(128)
    }

    pub(super) fn with_buffers(rx_count: usize) -> Self {
        let (gate, inner) = Gate::pair().unwrap();
        let config = Config { guest_cid: CID, allowed_ports: vec![ALLOWED] };
        let device = Vsock::new(config, inner).unwrap();
        let room = (256 * 4096 + 32 * (TX_SIZE + 4096)) as u64;
        let mut guest = Self {
            board: Board::new(device, room),
            gate,
            rx: HashMap::new(),
            spare: Vec::new(),
            rx_count,
            tx_used: 0,
            credit: HashMap::new(),
            refills: true,
        };
        guest.fill();
        guest
    }

    /// Makes the first receive buffers available.
    pub(super) fn fill(&mut self) {
        let start = self.board.free_memory();
        self.rx.clear();
        self.spare = (0..255).rev().map(|number| start + number * 4096).collect();
        self.add_buffers(self.rx_count);
    }

    /// Makes `count` more receive buffers available.
    pub(super) fn add_buffers(&mut self, count: usize) {
        for _ in 0..count {
            let at = self.spare.pop().expect("no memory is left for buffers");
            self.offer(at);
        }
        self.board.kick(RX).unwrap();
        self.board.run().unwrap();
    }

    fn offer(&mut self, at: u64) {
        let head = self.board.rings[RX].offer(&[Piece::writable(at, RX_SIZE)]);
        self.rx.insert(head, at);
    }

    /// Receive buffers that could be made available.
    pub(super) fn spare(&self) -> usize {
        self.spare.len()
    }

    pub(super) fn header(&self, ports: Ports, op: Op) -> Header {
        let (buf_alloc, fwd_cnt) = self.credit.get(&ports).copied().unwrap_or((GUEST_WINDOW, 0));
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: ports.guest,
            dst_port: ports.host,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc,
            fwd_cnt,
        }
    }

    /// Sends a packet without data.
    pub(super) fn send(&mut self, ports: Ports, op: Op) {
        let header = self.header(ports, op);
        self.send_raw(&header, &[]).unwrap();
    }

    pub(super) fn send_shutdown(&mut self, ports: Ports, flags: u32) {
        let header = Header { flags, ..self.header(ports, Op::Shutdown) };
        self.send_raw(&header, &[]).unwrap();
    }

    pub(super) fn send_data(&mut self, ports: Ports, data: &[u8]) {
        let header = Header { len: data.len() as u32, ..self.header(ports, Op::Data) };
        self.send_raw(&header, data).unwrap();
    }

    /// Sends whatever it is given, header and payload in a descriptor each, as Linux does.
    pub(super) fn send_raw(&mut self, header: &Header, data: &[u8]) -> Result<(), DeviceError> {
        self.queue_raw(header, data);
        self.board.kick(TX)?;
        self.board.run()
    }

    /// Makes a packet available without telling the device.
    pub(super) fn queue_raw(&mut self, header: &Header, data: &[u8]) {
        let start = self.board.free_memory() + 256 * 4096;
        let at = start + (self.tx_used % 32 * (TX_SIZE + 4096)) as u64;
        self.tx_used += 1;
        while self.board.rings[TX].take_used().is_some() {}
        self.board.write(&header.encode(), at);
        self.board.write(data, at + 4096);
        let mut pieces = vec![Piece::readable(at, HEADER_SIZE)];
        if !data.is_empty() {
            pieces.push(Piece::readable(at + 4096, data.len()));
        }
        self.board.rings[TX].offer(&pieces);
    }

    /// Lets the device work, and takes what it has sent.
    pub(super) fn receive(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            self.board.run().unwrap();
            let before = packets.len();
            while let Some((head, written)) = self.board.rings[RX].take_used() {
                let at = self.rx.remove(&head).unwrap();
                let bytes = self.board.read(at, written);
                let header = Header::decode(bytes[..HEADER_SIZE].try_into().unwrap());
                assert_eq!(written, HEADER_SIZE + header.len as usize);
                assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
                packets.push(Packet { header, data: bytes[HEADER_SIZE..].to_vec() });
                if self.refills {
                    self.offer(at);
                } else {
                    self.spare.push(at);
                }
            }
            if packets.len() == before {
                return packets;
            }
            assert!(self.board.was_interrupted(), "the driver was not told");
            self.board.kick(RX).unwrap();
        }
    }

    /// Takes what the device has sent: operations alone, of a conversation with one connection.
    pub(super) fn operations(&mut self) -> Vec<Op> {
        self.receive().iter().map(|packet| packet.header.op).collect()
    }

    /// Takes what the device has sent, which must be one packet without data.
    pub(super) fn one(&mut self, op: Op) -> Header {
        let packets = self.receive();
        assert_eq!(packets.iter().map(|packet| packet.header.op).collect::<Vec<_>>(), [op]);
        packets[0].header
    }

    /// A connection that the owner has opened, both ends of it.
    pub(super) fn connected(&mut self, port: u32) -> (Ports, UnixStream) {
        let stream = self.gate.connect(port).unwrap();
        let request = self.one(Op::Request);
        assert_eq!(request.dst_port, port);
        let ports = Ports { host: request.src_port, guest: port };
        self.send(ports, Op::Response);
        assert!(self.receive().is_empty());
        stream.set_nonblocking(true).unwrap();
        (ports, stream)
    }

    /// A connection that the guest has opened, both ends of it.
    pub(super) fn accepted(&mut self, port: u32) -> (Ports, UnixStream) {
        let ports = Ports { host: ALLOWED, guest: port };
        self.send(ports, Op::Request);
        self.one(Op::Response);
        let (to, stream) = self.gate.accept().unwrap();
        assert_eq!(to, ALLOWED);
        stream.set_nonblocking(true).unwrap();
        (ports, stream)
    }

    /// What a stream has now.
    pub(super) fn read_all(stream: &mut UnixStream) -> Vec<u8> {
        let (mut all, mut part) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            match stream.read(&mut part) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(error) => panic!("{error} after {} bytes", all.len()),
            }
        }
    }

    /// Whether a stream is at its end.
    pub(super) fn is_at_end(stream: &mut UnixStream) -> bool {
        match stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Writes as much as a stream takes now.
    pub(super) fn write_some(stream: &mut UnixStream, bytes: &[u8]) -> usize {
        match stream.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Number of connections that the device holds.
    pub(super) fn held(&self) -> usize {
        self.board.device.table.iter().count()
    }

    /// Makes a buffer for events available.
    pub(super) fn add_event_buffer(&mut self) {
        let at = self.board.free_memory() + 255 * 4096;
        self.board.rings[EVENT].offer(&[Piece::writable(at, 4)]);
        self.board.kick(EVENT).unwrap();
        self.board.run().unwrap();
    }
}

/// Bytes that are different wherever they are.
pub(super) fn pattern(count: usize) -> Vec<u8> {
    (0..count as u32).flat_map(|number| (number.wrapping_mul(0x9e37_79b9) >> 16).to_le_bytes()).take(count).collect()
}

/// The data of packets, in one piece.
pub(super) fn data_of(packets: &[Packet]) -> Vec<u8> {
    packets.iter().filter(|packet| packet.header.op == Op::Data).flat_map(|packet| packet.data.clone()).collect()
}
