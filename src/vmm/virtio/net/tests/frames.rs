//! Frames that go as they should, both ways.

use super::station::{MAC, Station, pattern};
use crate::virtio::Device;
use crate::virtio::driver::board::Piece;
use crate::virtio::net::device::{RX, TX};
use crate::virtio::net::header::{HEADER_SIZE, Header, MOST_FRAME};

const MERGING: u64 = 1 << 15;
const GUEST_SEGMENTS: u64 = 1 << 7 | 1 << 8;

/// A TCP segment over IPv4 that is still to be cut.
fn segment() -> Header {
    Header { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16, num_buffers: 0 }
}

#[test]
fn a_frame_of_the_guest_reaches_the_network() {
    let mut station = Station::new();
    station.send(&Header::default(), &pattern(60));
    assert_eq!(station.arrived(), Some((Header::default(), pattern(60))));
    station.send(&segment(), &pattern(60_000));
    assert_eq!(station.arrived(), Some((segment(), pattern(60_000))));
    assert_eq!(station.arrived(), None);
}

#[test]
fn many_frames_of_the_guest_arrive_in_order() {
    let mut station = Station::new();
    let mut expected = 0_u32;
    for round in 0..40_u32 {
        for number in 0..10 {
            station.queue(&[0; HEADER_SIZE], &[pattern(100), (round * 10 + number).to_le_bytes().to_vec()].concat());
        }
        station.board.kick(TX).unwrap();
        station.board.run().unwrap();
        while let Some((_, frame)) = station.arrived() {
            assert_eq!(frame[100..], expected.to_le_bytes());
            expected += 1;
        }
    }
    assert_eq!(expected, 400);
}

#[test]
fn a_frame_of_the_network_reaches_the_guest_in_one_buffer() {
    let mut station = Station::new();
    station.offer(2, 66_000);
    station.put(&Header::default(), &pattern(1514));
    let frames = station.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].bytes, pattern(1514));
    assert_eq!(frames[0].header, Header { num_buffers: 1, ..Header::default() });
}

#[test]
fn a_large_frame_is_spread_over_small_buffers_and_seen_at_once() {
    let mut station = Station::new();
    station.offer(60, 1536);
    for length in [60_usize, 1524, 1525, 3060, 3061, 40_000, 60_000, 65_549] {
        station.put(&segment(), &pattern(length));
        let frames = station.frames();
        assert_eq!(frames.len(), 1, "{length}");
        assert_eq!(frames[0].bytes, pattern(length));
        let parts = (HEADER_SIZE + length).div_ceil(1536);
        assert_eq!(frames[0].parts.len(), parts);
        assert!(frames[0].parts[..parts - 1].iter().all(|part| *part == 1536));
        assert_eq!(frames[0].header, Header { num_buffers: parts as u16, ..segment() });
        station.offer(parts, 1536);
    }
}

#[test]
fn buffers_that_a_frame_did_not_need_serve_the_next() {
    let mut station = Station::new();
    station.offer(60, 1536);
    for number in 0..5 {
        station.put(&Header::default(), &pattern(100 + number));
    }
    let frames = station.frames();
    assert_eq!(frames.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>(), [100, 101, 102, 103, 104]);
    assert!(frames.iter().all(|frame| frame.parts.len() == 1));
}

#[test]
fn frames_wait_while_the_driver_has_too_few_buffers_and_the_device_rests() {
    let mut station = Station::new();
    station.offer(10, 1536);
    for _ in 0..3 {
        station.put(&Header::default(), &pattern(100));
    }
    // Ten buffers are too few for the largest frame. `frames` fails where the device does not come to rest.
    assert!(station.frames().is_empty());
    station.offer(30, 1536);
    assert!(station.frames().is_empty());
    station.offer(10, 1536);
    // After each frame there must be room for the largest again: 50 hold it, 43 do, 42 do not.
    assert_eq!(station.frames().len(), 3);
}

#[test]
fn a_thousand_frames_pass_through_few_buffers() {
    let mut station = Station::new();
    station.offer(50, 1536);
    let (mut put, mut got) = (0_u32, 0_u32);
    while got < 1000 {
        if put < 1000 && put - got < 100 {
            station.put(&Header::default(), &[pattern(64), put.to_le_bytes().to_vec()].concat());
            put += 1;
        } else {
            let frames = station.frames();
            assert!(!frames.is_empty());
            for frame in &frames {
                assert_eq!(frame.bytes[64..], got.to_le_bytes());
                got += 1;
            }
            station.offer(frames.len(), 1536);
        }
    }
}

#[test]
fn a_driver_that_merges_nothing_gets_each_frame_in_one_chain() {
    let mut station = Station::with_features(|all| all & !MERGING & !GUEST_SEGMENTS);
    let at = station.board.free_memory();
    // As Linux gives them: the header and the frame in a descriptor each.
    for number in 0..4 {
        let at = at + number * 4096;
        station.board.rings[RX].offer(&[Piece::writable(at, HEADER_SIZE), Piece::writable(at + 64, 1518)]);
    }
    station.put(&Header::default(), &pattern(1514));
    station.put(&Header::default(), &pattern(60));
    station.board.run().unwrap();
    for (number, length) in [(0, 1514), (1, 60)] {
        let (_, written) = station.board.rings[RX].take_used().unwrap();
        assert_eq!(written, HEADER_SIZE + length);
        let at = at + number * 4096;
        assert_eq!(station.board.read(at + 64, length), pattern(length));
        assert_eq!(station.board.read(at + 10, 2), [1, 0]);
    }
}

#[test]
fn frames_whose_work_the_driver_does_not_take_are_dropped() {
    let mut station = Station::with_features(|all| all & !GUEST_SEGMENTS & !(1 << 1));
    station.offer(10, 2048);
    station.put(&segment(), &pattern(1000));
    station.put(&Header { gso_type: 0, gso_size: 0, ..segment() }, &pattern(1000));
    station.put(&Header { flags: 2, ..Header::default() }, &pattern(500));
    let frames = station.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].header.flags, frames[0].bytes.len()), (0, 500));
}

#[test]
fn a_frame_that_was_cut_off_is_dropped() {
    let mut station = Station::with_features(|all| all & !MERGING);
    station.offer(10, 2048);
    station.put(&segment(), &pattern(5000));
    station.put(&Header::default(), &pattern(500));
    let frames = station.frames();
    assert_eq!(frames.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>(), [500]);
}

#[test]
fn a_full_tap_holds_frames_back_and_gets_all_of_them() {
    let mut station = Station::new();
    let mut sent = 0;
    // Until the device holds one back: then it is not used.
    while station.board.rings[TX].free() > 250 {
        station.send(&Header::default(), &pattern(60_000));
        sent += 1;
        while station.board.rings[TX].take_used().is_some() {}
        assert!(sent < 1000);
    }
    let mut arrived = 0;
    loop {
        let some = std::iter::from_fn(|| station.arrived()).count();
        arrived += some;
        station.board.run().unwrap();
        if some == 0 {
            break;
        }
    }
    assert_eq!(arrived, sent);
}

#[test]
fn the_configuration_space_is_that_of_the_specification() {
    let station = Station::new();
    let mut space = [0xff; 14];
    station.board.device.read_config(0, &mut space);
    assert_eq!(space[..6], MAC);
    assert_eq!(space[6..], [1, 0, 1, 0, 0xdc, 5, 0, 0]);
    assert_eq!(HEADER_SIZE + MOST_FRAME, 65_565);
}
