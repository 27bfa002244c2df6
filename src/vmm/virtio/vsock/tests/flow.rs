//! Who may send how much, and whose turn it is.

use std::collections::HashMap;
use std::io::Write;

use super::guest::{GUEST_WINDOW, Guest, data_of, pattern};
use crate::virtio::driver::board::Piece;
use crate::virtio::vsock::credit::{FIRST_WINDOW, LARGEST_WINDOW, SHARED_WINDOW};
use crate::virtio::vsock::device::RX;
use crate::virtio::vsock::packet::{HEADER_SIZE, Header, Op, Ports, SHUTDOWN_BOTH};

#[test]
fn the_device_sends_no_more_than_the_guest_has_room_for_and_goes_on_when_it_has_more() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.credit.insert(ports, (10_000, 0));
    guest.send(ports, Op::CreditUpdate);
    let bytes = pattern(50_000);
    stream.write_all(&bytes).unwrap();
    let mut got = Vec::new();
    for taken in [0, 10_000, 13_000, 23_000, 30_000, 40_000] {
        guest.credit.insert(ports, (10_000, taken));
        guest.send(ports, Op::CreditUpdate);
        got.extend(data_of(&guest.receive()));
        let expected = (taken as usize + 10_000).min(bytes.len());
        assert_eq!(got.len(), expected);
    }
    assert_eq!(got, bytes);
}

#[test]
fn a_guest_without_room_is_asked_once_and_not_again_until_it_had_some() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.credit.insert(ports, (1000, 0));
    guest.send(ports, Op::CreditUpdate);
    stream.write_all(&pattern(5000)).unwrap();
    assert_eq!(guest.operations(), [Op::Data, Op::CreditRequest]);
    guest.send(ports, Op::CreditUpdate);
    stream.write_all(&pattern(5000)).unwrap();
    assert!(guest.receive().is_empty());
    guest.credit.insert(ports, (1000, 1000));
    guest.send(ports, Op::CreditUpdate);
    assert_eq!(guest.operations(), [Op::Data, Op::CreditRequest]);
}

#[test]
fn a_credit_request_of_the_guest_is_answered() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.send_data(ports, &pattern(1234));
    assert_eq!(Guest::read_all(&mut stream).len(), 1234);
    assert!(guest.receive().is_empty());
    guest.send(ports, Op::CreditRequest);
    let update = guest.one(Op::CreditUpdate);
    assert_eq!((update.buf_alloc, update.fwd_cnt), (FIRST_WINDOW, 1234));
}

#[test]
fn a_guest_that_sends_within_its_credit_gets_everything_through_to_a_slow_owner() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    let bytes = pattern(3 << 20);
    let (mut sent, mut taken, mut window) = (0, 0, FIRST_WINDOW as usize);
    let mut got = Vec::new();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut part = vec![0; 50_000];
    while got.len() < bytes.len() {
        // Linux sends no more ahead than it has set aside itself.
        let ahead = |window: usize| window.min(GUEST_WINDOW as usize);
        while sent < bytes.len() && sent - taken < ahead(window) {
            let count = (ahead(window) - (sent - taken)).min(65_536).min(bytes.len() - sent);
            guest.send_data(ports, &bytes[sent..sent + count]);
            sent += count;
            for packet in guest.receive() {
                assert_eq!(packet.header.op, Op::CreditUpdate);
                (window, taken) = (packet.header.buf_alloc as usize, packet.header.fwd_cnt as usize);
                assert!(window <= LARGEST_WINDOW as usize && taken <= sent);
            }
        }
        let count = std::io::Read::read(&mut stream, &mut part).unwrap();
        got.extend_from_slice(&part[..count]);
        for packet in guest.receive() {
            (window, taken) = (packet.header.buf_alloc as usize, packet.header.fwd_cnt as usize);
        }
    }
    assert_eq!(got, bytes);
    assert!(window > FIRST_WINDOW as usize, "the window grew with use");
}

#[test]
fn windows_are_given_back_at_the_end() {
    let mut guest = Guest::new();
    for port in 0..3 {
        let (ports, mut stream) = guest.connected(port);
        for _ in 0..20 {
            guest.send_data(ports, &pattern(30_000));
            Guest::read_all(&mut stream);
            guest.receive();
        }
        assert!(guest.board.device.trunk.spare_window < SHARED_WINDOW);
        guest.send_shutdown(ports, SHUTDOWN_BOTH);
        guest.one(Op::Reset);
        assert_eq!(guest.board.device.trunk.spare_window, SHARED_WINDOW);
    }
}

#[test]
fn bytes_wait_for_receive_buffers_and_go_when_there_are_some() {
    let mut guest = Guest::with_buffers(2);
    let (ports, mut stream) = guest.connected(7);
    guest.refills = false;
    stream.write_all(&pattern(20_000)).unwrap();
    let mut got = data_of(&guest.receive());
    assert_eq!(guest.board.rings[RX].free(), 256);
    assert!(!got.is_empty() && got.len() < 20_000);
    while got.len() < 20_000 {
        guest.add_buffers(1);
        let more = data_of(&guest.receive());
        assert!(!more.is_empty());
        got.extend(more);
    }
    assert_eq!(got, pattern(20_000));
    guest.add_buffers(1);
    guest.send_shutdown(ports, SHUTDOWN_BOTH);
    guest.one(Op::Reset);
}

#[test]
fn buffers_that_were_not_needed_stay_available_for_the_next() {
    let mut guest = Guest::with_buffers(30);
    guest.refills = false;
    let stream = guest.gate.connect(7).unwrap();
    let request = guest.one(Op::Request);
    guest.send(Ports { host: request.src_port, guest: 7 }, Op::Response);
    // 29 buffers: 29 packets of a byte each, one by one, though each read was offered all that were left.
    for byte in 0..29 {
        (&stream).write_all(&[byte]).unwrap();
        let packets = guest.receive();
        assert_eq!(data_of(&packets), [byte]);
    }
    (&stream).write_all(b"x").unwrap();
    assert!(guest.receive().is_empty());
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::with_buffers(4);
    let mut streams: Vec<_> = (0..4).map(|port| guest.connected(port).1).collect();
    guest.refills = false;
    for stream in &mut streams {
        assert!(Guest::write_some(stream, &[7; 200_000]) > 150_000);
    }
    let mut got = HashMap::<u32, usize>::new();
    for _ in 0..60 {
        for packet in guest.receive() {
            *got.entry(packet.header.dst_port).or_default() += packet.data.len();
        }
        guest.add_buffers(4);
    }
    let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
    assert_eq!(got.len(), streams.len());
    assert!(most - least <= 2 * (64 << 10), "{got:?}");
}

#[test]
fn a_stream_that_no_one_reads_stops_no_other() {
    let mut guest = Guest::new();
    let (stuck, _kept) = guest.connected(1);
    let (free, mut stream) = guest.connected(2);
    let mut room = FIRST_WINDOW as usize;
    let mut sent = 0;
    while room > 0 {
        let count = room.min(30_000);
        guest.send_data(stuck, &pattern(count));
        sent += count;
        room -= count;
        for packet in guest.receive() {
            room = packet.header.buf_alloc as usize - (sent - packet.header.fwd_cnt as usize);
        }
    }
    for _ in 0..20 {
        guest.send_data(free, &pattern(10_000));
        assert_eq!(Guest::read_all(&mut stream), pattern(10_000));
        stream.write_all(b"back").unwrap();
        assert_eq!(data_of(&guest.receive()), b"back");
    }
}

#[test]
fn large_receive_buffers_are_filled_with_packets_of_64_kib() {
    let mut guest = Guest::with_buffers(1);
    guest.refills = false;
    let stream = guest.gate.connect(7).unwrap();
    let request = guest.one(Op::Request);
    guest.send(Ports { host: request.src_port, guest: 7 }, Op::Response);
    // Room for 128 KiB in three pieces, the header split.
    let at = guest.board.free_memory();
    let pieces = [Piece::writable(at, 10), Piece::writable(at + 4096, 1034), Piece::writable(at + 8192, 128 << 10)];
    guest.board.rings[RX].offer(&pieces);
    guest.board.kick(RX).unwrap();
    (&stream).write_all(&pattern(100_000)).unwrap();
    guest.board.run().unwrap();
    let (_, written) = guest.board.rings[RX].take_used().unwrap();
    assert_eq!(written, HEADER_SIZE + (64 << 10));
    let header = [guest.board.read(at, 10), guest.board.read(at + 4096, 34)].concat();
    assert_eq!(Header::decode(header[..].try_into().unwrap()).len, 64 << 10);
    let data = [guest.board.read(at + 4096 + 34, 1000), guest.board.read(at + 8192, (64 << 10) - 1000)].concat();
    assert_eq!(data, pattern(64 << 10));
}
