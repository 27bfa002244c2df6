//! The guest: a driver with buffers for frames, and the other end of the tap.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};

use crate::virtio::Device;
use crate::virtio::driver::board::{Board, Piece};
use crate::virtio::net::device::{RX, TX};
use crate::virtio::net::header::{HEADER_SIZE, Header};
use crate::virtio::net::{Config, Net};

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Room in memory for one buffer.
const PLACE: usize = 72 << 10;
/// Buffers for received frames.
pub(super) const BUFFERS: usize = 64;

/// A frame as the guest gets it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) bytes: Vec<u8>,
    /// Bytes in each of the buffers that it took, the header included.
    pub(super) parts: Vec<usize>,
}

pub(super) struct Station {
    pub(super) board: Board<Net>,
    /// The network's end of the tap, where that is a socket.
    pub(super) wire: UnixDatagram,
    places: HashMap<u16, (u64, usize)>,
    spare: Vec<u64>,
    sent: u64,
}

pub(super) fn config() -> Config {
    Config { mac: MAC, mtu: 1500 }
}

/// A socket that stands for a tap, and the network behind it.
pub(super) fn wire() -> (OwnedFd, UnixDatagram) {
    let (tap, wire) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_NONBLOCK).unwrap();
    for end in [&tap, &wire] {
        setsockopt(end, sockopt::SndBuf, &(1 << 20)).unwrap();
    }
    (tap, wire.into())
}

impl Station {
    pub(super) fn new() -> Self {
        let (tap, wire) = wire();
        let device = Net::new(config(), tap).unwrap();
        let features = device.features();
        Self::with_device(device, wire, features)
    }

    pub(super) fn with_features(change: impl FnOnce(u64) -> u64) -> Self {
        let (tap, wire) = wire();
        let device = Net::new(config(), tap).unwrap();
        let features = change(device.features());
        Self::with_device(device, wire, features)
    }

    pub(super) fn with_device(device: Net, wire: UnixDatagram, features: u64) -> Self {
        let room = ((BUFFERS + 16) * PLACE) as u64;
        let board = Board::with_features(device, room, features);
        let start = board.free_memory();
        let spare = (0..BUFFERS as u64).rev().map(|number| start + number * PLACE as u64).collect();
        Self { board, wire, places: HashMap::new(), spare, sent: 0 }
    }

    /// Makes `count` buffers of `size` bytes available.
    pub(super) fn offer(&mut self, count: usize, size: usize) {
        for _ in 0..count {
            let at = self.spare.pop().expect("no memory is left for buffers");
            let head = self.board.rings[RX].offer(&[Piece::writable(at, size)]);
            self.places.insert(head, (at, size));
        }
        self.board.kick(RX).unwrap();
        self.board.run().unwrap();
    }

    /// Lets the device work and takes the frames that the guest has.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        self.board.run().unwrap();
        let mut frames: Vec<Frame> = Vec::new();
        let mut more = 0;
        while let Some((head, written)) = self.board.rings[RX].take_used() {
            let (at, size) = self.places.remove(&head).unwrap();
            assert!(written <= size);
            let mut bytes = self.board.read(at, written);
            self.spare.push(at);
            if more == 0 {
                let rest = bytes.split_off(HEADER_SIZE);
                let header = Header::decode(bytes.try_into().unwrap());
                more = header.num_buffers;
                frames.push(Frame { header, bytes: rest, parts: vec![written] });
            } else {
                let frame = frames.last_mut().unwrap();
                frame.bytes.extend(bytes);
                frame.parts.push(written);
            }
            more -= 1;
        }
        assert_eq!(more, 0, "a frame is seen in part");
        if !frames.is_empty() {
            assert!(self.board.was_interrupted(), "the driver was not told");
        }
        frames
    }

    /// Makes a frame of the guest available, the header in a buffer of its own.
    pub(super) fn queue(&mut self, header: &[u8], frame: &[u8]) {
        while self.board.rings[TX].take_used().is_some() {}
        let place = BUFFERS as u64 + self.sent % 16;
        self.sent += 1;
        let at = self.board.free_memory() + place * PLACE as u64;
        self.board.write(header, at);
        self.board.write(frame, at + 1024);
        let mut pieces = vec![Piece::readable(at, header.len())];
        if !frame.is_empty() {
            pieces.push(Piece::readable(at + 1024, frame.len()));
        }
        self.board.rings[TX].offer(&pieces);
    }

    /// Sends a frame of the guest.
    pub(super) fn send(&mut self, header: &Header, frame: &[u8]) {
        self.queue(&header.encode(), frame);
        self.board.kick(TX).unwrap();
        self.board.run().unwrap();
    }

    /// What the network gets next, header and frame.
    pub(super) fn arrived(&self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = vec![0; 1 << 17];
        match self.wire.recv(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                let frame = bytes.split_off(HEADER_SIZE);
                Some((Header::decode(bytes.try_into().unwrap()), frame))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Puts a frame on the network.
    pub(super) fn put(&self, header: &Header, frame: &[u8]) {
        self.wire.send(&[&header.encode(), frame].concat()).unwrap();
    }
}

/// Bytes that are different wherever they are.
pub(super) fn pattern(count: usize) -> Vec<u8> {
    (0..count as u32).map(|number| (number.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}
