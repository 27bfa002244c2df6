//! A guest that breaks the rules. Whatever it sends, the device answers by RST, stays within its bounds, and serves the
//! connections that behave; or it says that the driver is broken, where a queue is.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::guest::{ALLOWED, CID, Guest, data_of, pattern};
use crate::virtio::device::DeviceError;
use crate::virtio::driver::board::{Piece, is_readable};
use crate::virtio::driver::{Hostile, attack};
use crate::virtio::vsock::credit::{FIRST_WINDOW, SHARED_WINDOW};
use crate::virtio::vsock::device::{RX, TX};
use crate::virtio::vsock::from_guest::MOST_REPLIES;
use crate::virtio::vsock::packet::{HEADER_SIZE, HOST_CID, Header, Op, Ports, SHUTDOWN_BOTH, SHUTDOWN_SEND};
use crate::virtio::vsock::table::{MOST, MOST_OF_GUEST};
use crate::virtio::vsock::{Config, Gate, Vsock};

const PORTS: Ports = Ports { host: ALLOWED, guest: 5 };

#[test]
fn a_packet_in_anothers_name_is_dropped() {
    let mut guest = Guest::new();
    for src_cid in [0, 1, HOST_CID, CID + 1, CID | 1 << 32, u64::MAX] {
        let header = Header { src_cid, ..guest.header(PORTS, Op::Request) };
        guest.send_raw(&header, &[]).unwrap();
        assert!(guest.receive().is_empty());
    }
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_packet_to_anyone_but_the_host_is_refused() {
    let mut guest = Guest::new();
    for dst_cid in [0, 1, CID, 4, u64::MAX] {
        let header = Header { dst_cid, ..guest.header(PORTS, Op::Request) };
        guest.queue_raw(&header, &[]);
        guest.board.kick(TX).unwrap();
        guest.board.run().unwrap();
        let (_, written) = guest.board.rings[RX].take_used().unwrap();
        assert_eq!(written, HEADER_SIZE);
        assert_eq!(guest.held(), 0);
    }
}

#[test]
fn sockets_that_are_no_streams_and_unknown_operations_are_refused() {
    let mut guest = Guest::new();
    for kind in [0, 2, 3, u16::MAX] {
        let header = Header { kind, ..guest.header(PORTS, Op::Request) };
        guest.send_raw(&header, &[]).unwrap();
        assert_eq!(guest.one(Op::Reset).kind, kind);
    }
    for op in [0, 8, 9, 1000, u16::MAX] {
        guest.send(PORTS, Op::Unknown(op));
        guest.one(Op::Reset);
        let (ports, mut stream) = guest.connected(6);
        guest.send(ports, Op::Unknown(op));
        guest.one(Op::Reset);
        assert!(Guest::is_at_end(&mut stream));
    }
    assert_eq!(guest.held(), 0);
}

#[test]
fn packets_of_no_connection_are_refused_whatever_they_are() {
    let mut guest = Guest::new();
    for op in [Op::Response, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest] {
        guest.send(PORTS, op);
        guest.one(Op::Reset);
    }
    guest.send(PORTS, Op::Reset);
    assert!(guest.receive().is_empty());
}

#[test]
fn an_answer_that_was_not_asked_for_ends_the_connection() {
    for (op, answered) in [
        (Op::Response, true),
        (Op::Data, false),
        (Op::Shutdown, false),
        (Op::CreditUpdate, false),
        (Op::CreditRequest, false),
        (Op::Unknown(99), false),
    ] {
        let mut guest = Guest::new();
        let mut stream = guest.gate.connect(7).unwrap();
        let request = guest.one(Op::Request);
        let ports = Ports { host: request.src_port, guest: 7 };
        if answered {
            guest.send(ports, Op::Response);
        }
        guest.send(ports, op);
        guest.one(Op::Reset);
        assert!(Guest::is_at_end(&mut stream), "{op:?}");
        assert_eq!(guest.held(), 0);
    }
}

#[test]
fn a_length_beyond_the_buffer_ends_the_connection_and_nothing_is_read_beyond() {
    for claimed in [11, 65_536, u32::MAX] {
        let mut guest = Guest::new();
        let (ports, mut stream) = guest.connected(7);
        let header = Header { len: claimed, ..guest.header(ports, Op::Data) };
        guest.send_raw(&header, b"0123456789").unwrap();
        guest.one(Op::Reset);
        assert_eq!(Guest::read_all(&mut stream), b"");
        assert!(Guest::is_at_end(&mut stream));
    }
}

#[test]
fn a_length_within_the_buffer_is_all_that_counts() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    let header = Header { len: 4, ..guest.header(ports, Op::Data) };
    guest.send_raw(&header, b"0123456789").unwrap();
    // The payload of a packet that has none is passed over.
    let header = Header { len: 10, ..guest.header(ports, Op::CreditUpdate) };
    guest.send_raw(&header, b"0123456789").unwrap();
    guest.send_data(ports, b"");
    assert_eq!(Guest::read_all(&mut stream), b"0123");
    assert!(guest.receive().is_empty());
}

#[test]
fn a_guest_that_sends_more_than_it_may_loses_the_connection() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.send_data(ports, &pattern(FIRST_WINDOW as usize + 1));
    guest.one(Op::Reset);
    assert!(Guest::is_at_end(&mut stream));
    // And one whose owner does not read, in small steps.
    let (ports, _stream) = guest.connected(8);
    let mut sent = 0;
    while guest.receive().iter().all(|packet| packet.header.op != Op::Reset) {
        guest.send_data(ports, &pattern(30_000));
        sent += 30_000;
        assert!(sent < 4 << 20, "there must be an end");
    }
    let held: usize = guest.board.device.table.iter().map(|(_, connection)| connection.held()).sum();
    assert!(held <= 1 << 20);
}

#[test]
fn data_after_the_end_of_data_ends_the_connection() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    guest.send_data(ports, b"x");
    guest.one(Op::Reset);
    assert_eq!(Guest::read_all(&mut stream), b"");
    assert_eq!(guest.held(), 0);
}

#[test]
fn lies_about_credit_hurt_only_the_liar() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    let (other, mut calm) = guest.connected(8);
    for (buf_alloc, fwd_cnt) in
        [(u32::MAX, u32::MAX), (0, u32::MAX), (0, 0), (u32::MAX, 0), (1, 0x8000_0000), (u32::MAX, 0x7fff_ffff)]
    {
        guest.credit.insert(ports, (buf_alloc, fwd_cnt));
        guest.send(ports, Op::CreditUpdate);
        Guest::write_some(&mut stream, &pattern(10_000));
        guest.receive();
        guest.send_data(other, b"calm");
        assert_eq!(Guest::read_all(&mut calm), b"calm");
    }
}

#[test]
fn floods_of_shutdowns_and_credit_requests_are_answered_once() {
    let mut guest = Guest::with_buffers(4);
    let (ports, _stream) = guest.connected(7);
    guest.refills = false;
    for _ in 0..1000 {
        guest.send(ports, Op::CreditRequest);
        guest.send_shutdown(ports, 0);
        guest.send_shutdown(ports, SHUTDOWN_SEND);
        guest.send_shutdown(ports, u32::MAX << 2);
    }
    let operations = guest.operations();
    assert!(operations.len() <= 4 && operations.iter().all(|op| *op == Op::CreditUpdate), "{operations:?}");
    guest.add_buffers(100);
    assert!(guest.receive().len() <= 1);
    guest.send_shutdown(ports, SHUTDOWN_BOTH);
    for _ in 0..100 {
        guest.send_shutdown(ports, SHUTDOWN_BOTH);
    }
    assert!(guest.receive().len() <= 100);
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to_beyond_a_bound() {
    let mut guest = Guest::with_buffers(1);
    guest.refills = false;
    let mut unserved = 0;
    for number in 0..10 * MOST_REPLIES as u32 {
        let before = guest.board.rings[TX].free();
        if before < 2 {
            unserved += 1;
            continue;
        }
        guest.send(Ports { host: 1, guest: number }, Op::Request);
        assert!(guest.board.device.replies.len() <= MOST_REPLIES);
    }
    assert!(unserved > 0, "the queue fills up");
    // With buffers, everything that was sent is answered.
    guest.refills = true;
    guest.add_buffers(100);
    let answers = guest.receive();
    assert!(answers.len() >= MOST_REPLIES, "{}", answers.len());
    guest.send(PORTS, Op::Request);
    assert!(guest.operations().contains(&Op::Response));
}

#[test]
fn a_flood_of_requests_ends_at_the_number_of_places() {
    let mut guest = Guest::with_buffers(2);
    guest.refills = false;
    for number in 0..3 * MOST as u32 {
        guest.queue_raw(&guest.header(Ports { host: ALLOWED, guest: number }, Op::Request), &[]);
        guest.board.kick(TX).unwrap();
        guest.board.run().unwrap();
        if guest.board.rings[TX].free() < 4 {
            break;
        }
        // The owner is quick, and closes what it takes.
        if is_readable(&guest.gate) {
            guest.gate.accept().map(drop).unwrap();
        }
        assert!(guest.held() <= MOST_OF_GUEST);
    }
    assert_eq!(guest.held(), MOST_OF_GUEST);
}

#[test]
fn a_guest_that_opens_and_resets_without_taking_answers_leaves_nothing_behind() {
    let mut guest = Guest::with_buffers(1);
    guest.refills = false;
    for number in 0..10 * MOST as u32 {
        let ports = Ports { host: ALLOWED, guest: number };
        guest.send(ports, Op::Request);
        guest.send(ports, Op::Reset);
        guest.gate.accept().map(drop).unwrap();
    }
    assert_eq!(guest.held(), 0);
    let device = &guest.board.device;
    assert!(device.line.len() <= 2 * MOST + 1);
    assert_eq!(device.trunk.spare_window, SHARED_WINDOW);
}

#[test]
fn chains_that_are_no_packets_are_the_drivers_fault() {
    let too_short = Piece::readable(0x4000, HEADER_SIZE - 1);
    let nothing_to_read = Piece::writable(0x4000, 100);
    let outside = Piece::readable(1 << 40, HEADER_SIZE);
    for number in 0..6 {
        let mut guest = Guest::new();
        let ring = &mut guest.board.rings[TX];
        match number {
            0..3 => _ = ring.offer(&[[too_short, nothing_to_read, outside][number]]),
            3 => {
                // A loop.
                ring.write_descriptor(3, 0x4000, 8, (1, 3));
                ring.offer_head(3);
            }
            // A head beyond the table.
            4 => ring.offer_head(60_000),
            // More chains than the queue holds.
            _ => ring.write_index(5000),
        }
        let result = crate::virtio::Device::queue_ready(&mut guest.board.device, TX, &mut guest.board.io);
        let result = result.and_then(|()| guest.board.run());
        assert!(
            matches!(result, Err(DeviceError::Driver(_) | DeviceError::Queue(_) | DeviceError::Memory(_))),
            "{number}"
        );
    }
}

#[test]
fn receive_buffers_that_can_hold_nothing_are_the_drivers_fault() {
    for piece in [Piece::writable(0x4000, HEADER_SIZE), Piece::writable(0x4000, 10), Piece::readable(0x4000, 4096)] {
        let mut guest = Guest::with_buffers(1);
        guest.refills = false;
        let stream = guest.gate.connect(7).unwrap();
        let request = guest.one(Op::Request);
        guest.send(Ports { host: request.src_port, guest: 7 }, Op::Response);
        guest.board.rings[RX].offer(&[piece]);
        (&stream).write_all(b"x").unwrap();
        assert!(matches!(guest.board.run(), Err(DeviceError::Driver(_))), "{piece:?}");
    }
}

#[test]
fn packets_in_many_small_pieces_are_packets() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    let data = pattern(50);
    let header = Header { len: 50, ..guest.header(ports, Op::Data) };
    let bytes = [header.encode().as_slice(), &data].concat();
    let at = guest.board.free_memory() + 256 * 4096;
    guest.board.write(&bytes, at);
    let pieces: Vec<_> = (0..bytes.len() as u64).map(|place| Piece::readable(at + place, 1)).collect();
    guest.board.rings[TX].offer(&pieces);
    guest.board.kick(TX).unwrap();
    guest.board.run().unwrap();
    assert_eq!(Guest::read_all(&mut stream), data);
}

#[test]
fn a_hostile_driver_does_no_harm() {
    let owner: RefCell<Option<(Gate, Vec<UnixStream>)>> = RefCell::new(None);
    let guest = Guest::new();
    let of_owner = Ports { host: 1 << 30, guest: 7 };
    let shutdown = Header { flags: SHUTDOWN_SEND, ..guest.header(PORTS, Op::Shutdown) };
    let mut packets = vec![shutdown.encode().to_vec()];
    for ports in [PORTS, of_owner] {
        for op in [Op::Request, Op::Response, Op::Reset, Op::CreditUpdate, Op::CreditRequest] {
            packets.push(guest.header(ports, op).encode().to_vec());
        }
        let data = Header { len: 1000, ..guest.header(ports, Op::Data) };
        packets.push([data.encode().as_slice(), &pattern(1000)].concat());
    }
    let requests: Vec<_> = packets.iter().map(|packet| (TX, packet.as_slice())).collect();
    let hostile = Hostile {
        requests: &requests,
        host: &|number| {
            let mut guard = owner.borrow_mut();
            let Some((gate, streams)) = guard.as_mut() else { return };
            if is_readable(&*gate)
                && let Ok((_, stream)) = gate.accept()
            {
                streams.push(stream);
            }
            match number % 4 {
                0 => streams.extend(gate.connect(7)),
                1 if streams.len() > 20 => drop(streams.swap_remove((number >> 8) as usize % 20)),
                _ => {}
            }
            for stream in streams {
                stream.set_nonblocking(true).unwrap();
                // The guest may have closed any of them.
                let _ = stream.write(&pattern((number >> 16) as usize % 5000));
                let _ = stream.read(&mut [0; 5000]);
            }
        },
        ..Hostile::default()
    };
    attack(&hostile, || {
        let (gate, inner) = Gate::pair().unwrap();
        *owner.borrow_mut() = Some((gate, Vec::new()));
        Box::new(Vsock::new(Config { guest_cid: CID, allowed_ports: vec![ALLOWED] }, inner).unwrap())
    });
}

/// One thing that a guest or its owner does.
#[derive(Clone, Debug)]
enum Step {
    Packet { op: u16, host: u32, guest: u32, flags: u32, len: u32, credit: (u32, u32) },
    Connect(u32),
    Write(usize, usize),
    Read(usize),
    Drop(usize),
    Buffers(usize),
    Receive,
}

fn step() -> impl Strategy<Value = Step> {
    let credit = prop_oneof![Just((256 << 10, 0)), any::<(u32, u32)>()];
    let host = prop_oneof![Just(ALLOWED), (1_u32 << 30)..(1 << 30) + 6, any::<u32>()];
    let len = prop_oneof![0_u32..60_000, any::<u32>()];
    prop_oneof![
        8 => (0_u16..9, host, 0_u32..6, any::<u32>(), len, credit)
            .prop_map(|(op, host, guest, flags, len, credit)| Step::Packet { op, host, guest, flags, len, credit }),
        1 => (0_u32..6).prop_map(Step::Connect),
        2 => (0_usize..8, 0_usize..100_000).prop_map(|(which, count)| Step::Write(which, count)),
        1 => (0_usize..8).prop_map(Step::Read),
        1 => (0_usize..8).prop_map(Step::Drop),
        1 => (0_usize..40).prop_map(Step::Buffers),
        2 => Just(Step::Receive),
    ]
}

fn act(guest: &mut Guest, streams: &mut Vec<UnixStream>, step: Step) {
    let count = streams.len();
    match step {
        Step::Packet { op, host, guest: port, flags, len, credit } => {
            if guest.board.rings[TX].free() < 2 {
                return;
            }
            let ports = Ports { host, guest: port };
            guest.credit.insert(ports, credit);
            let mut header = Header { flags, len, ..guest.header(ports, Op::Request) };
            let mut bytes = header.encode();
            bytes[30..32].copy_from_slice(&op.to_le_bytes());
            header = Header::decode(&bytes);
            guest.send_raw(&header, &pattern(len.min(60_000) as usize)).unwrap();
        }
        Step::Connect(port) => streams.push(guest.gate.connect(port).unwrap()),
        Step::Write(which, bytes) if which < count => {
            streams[which].set_nonblocking(true).unwrap();
            let _ = (&streams[which]).write(&pattern(bytes));
        }
        Step::Read(which) if which < count => {
            streams[which].set_nonblocking(true).unwrap();
            let _ = (&streams[which]).read(&mut vec![0; 1 << 18]);
        }
        Step::Drop(which) if which < count => drop(streams.swap_remove(which)),
        Step::Buffers(more) => {
            let most = more.min(guest.spare());
            guest.add_buffers(most);
        }
        Step::Receive => drop(guest.receive()),
        _ => {}
    }
    guest.board.run().unwrap();
    let waiting = is_readable(&guest.gate);
    if waiting {
        streams.push(guest.gate.accept().unwrap().1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever both sides do, the device comes to rest, holds no more than it may, and a connection that behaves works.
    #[test]
    fn no_order_of_packets_harms_the_device(steps in prop::collection::vec(step(), 1..200), refills in any::<bool>()) {
        let mut guest = Guest::with_buffers(8);
        guest.refills = refills;
        let mut streams = Vec::new();
        for step in steps {
            act(&mut guest, &mut streams, step);
            let device = &guest.board.device;
            let taken: u32 = device.table.iter().map(|(_, connection)| connection.shared_window()).sum();
            prop_assert_eq!(device.trunk.spare_window + taken, SHARED_WINDOW);
            prop_assert!(device.replies.len() <= MOST_REPLIES);
            for (_, connection) in device.table.iter() {
                prop_assert!(connection.held() <= (FIRST_WINDOW + connection.shared_window()) as usize);
            }
        }
        guest.refills = true;
        let missing = guest.spare().min(64);
        guest.add_buffers(missing);
        guest.receive();
        guest.credit.clear();
        let stream = guest.gate.connect(4321).unwrap();
        let packets = guest.receive();
        let request = packets.iter().find(|packet| packet.header.op == Op::Request && packet.header.dst_port == 4321);
        let ports = Ports { host: request.unwrap().header.src_port, guest: 4321 };
        guest.send(ports, Op::Response);
        (&stream).write_all(b"still serving").unwrap();
        let packets = guest.receive();
        let of_it: Vec<_> = packets.into_iter().filter(|packet| packet.header.dst_port == 4321).collect();
        prop_assert_eq!(data_of(&of_it), b"still serving");
    }
}
