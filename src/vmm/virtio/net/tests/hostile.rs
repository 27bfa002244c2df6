//! A guest that breaks the rules.

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;

use super::station::{Station, config, pattern, wire};
use crate::virtio::DeviceError;
use crate::virtio::driver::board::Piece;
use crate::virtio::driver::{Hostile, attack};
use crate::virtio::net::Net;
use crate::virtio::net::device::{RX, TX};
use crate::virtio::net::header::{HEADER_SIZE, Header, MOST_FRAME};

#[test]
fn frames_that_are_none_are_dropped() {
    let mut station = Station::new();
    for length in [0, 13, MOST_FRAME + 1, 70_000] {
        station.send(&Header::default(), &pattern(length));
    }
    assert_eq!(station.arrived(), None);
    assert_eq!(station.board.rings[TX].free(), 256 - 2, "all but the last two descriptors were given back");
    for length in [14, MOST_FRAME] {
        station.send(&Header::default(), &pattern(length));
        assert_eq!(station.arrived().unwrap().1.len(), length);
    }
}

#[test]
fn headers_that_lie_do_not_reach_the_tap() {
    let mut station = Station::new();
    for header in [
        Header { flags: 1, csum_start: 100, csum_offset: 0, ..Header::default() },
        Header { flags: 1, csum_start: 0xffff, csum_offset: 0xffff, ..Header::default() },
        Header { gso_type: 1, gso_size: 100, ..Header::default() },
        Header { flags: 1, csum_start: 34, csum_offset: 16, gso_type: 3, gso_size: 100, ..Header::default() },
        Header { flags: 1, csum_start: 34, csum_offset: 16, gso_type: 1, gso_size: 0, ..Header::default() },
    ] {
        station.send(&header, &pattern(100));
        assert_eq!(station.arrived(), None, "{header:?}");
    }
    station.send(&Header { flags: 0xf0, hdr_len: 9999, num_buffers: 3, ..Header::default() }, &pattern(100));
    assert_eq!(station.arrived().unwrap().0, Header::default());
}

#[test]
fn a_frame_in_more_pieces_than_a_call_takes_is_dropped() {
    let mut station = Station::new();
    let at = station.board.free_memory();
    let table = at + 8192;
    station.board.write(&[0; 4096], at);
    let number = 1024_u16;
    for (head, (first, fits)) in [(3, (HEADER_SIZE, true)), (4, (HEADER_SIZE + 1, false))] {
        // Indirect: the header, in the second case with the first byte of the frame, then single bytes.
        for index in 0..number {
            let (address, length) = if index == 0 { (at, first as u32) } else { (at + 100 + u64::from(index), 1) };
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&address.to_le_bytes());
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            bytes[12] = u8::from(index + 1 < number);
            bytes[14..].copy_from_slice(&(index + 1).to_le_bytes());
            station.board.write(&bytes, table + u64::from(index) * 16);
        }
        let ring = &mut station.board.rings[TX];
        ring.write_descriptor(head, table, u32::from(number) * 16, (4, 0));
        ring.offer_head(head);
        station.board.kick(TX).unwrap();
        station.board.run().unwrap();
        assert_eq!(station.arrived().is_some(), fits, "{first}");
    }
}

#[test]
fn chains_that_are_no_frames_are_the_drivers_fault() {
    let mut station = Station::new();
    station.queue(&[0; HEADER_SIZE - 1], &[]);
    assert!(matches!(station.board.kick(TX), Err(DeviceError::Driver(_))));
    let mut station = Station::new();
    let at = station.board.free_memory();
    for number in 0..50 {
        let size = if number == 0 { HEADER_SIZE - 1 } else { 1536 };
        station.board.rings[RX].offer(&[Piece::writable(at + number * 4096, size)]);
    }
    station.put(&Header::default(), &pattern(100));
    assert!(matches!(station.board.run(), Err(DeviceError::Driver(_))));
}

#[test]
fn a_hostile_driver_does_no_harm() {
    let network: RefCell<Option<UnixDatagram>> = RefCell::new(None);
    let segment =
        Header { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16, num_buffers: 0 };
    let plain = [Header::default().encode().as_slice(), &pattern(200)].concat();
    let large = [segment.encode().as_slice(), &pattern(5000)].concat();
    let hostile = Hostile {
        requests: &[(TX, &plain), (TX, &large)],
        host: &|number| {
            let guard = network.borrow();
            let Some(wire) = guard.as_ref() else { return };
            let header = if number & 1 == 0 { Header::default() } else { segment };
            let _ = wire.send(&[header.encode().as_slice(), &pattern((number >> 8) as usize % 60_000)].concat());
            while wire.recv(&mut [0; 64]).is_ok() {}
        },
        ..Hostile::default()
    };
    attack(&hostile, || {
        let (tap, wire) = wire();
        *network.borrow_mut() = Some(wire);
        Box::new(Net::new(config(), tap).unwrap())
    });
}
