//! How connections end: one direction after the other, both at once, by RST, from either side, in every state.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use super::guest::{ALLOWED, Guest, data_of, pattern};
use crate::virtio::vsock::packet::{Op, Ports, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

#[test]
fn the_guest_can_go_on_sending_when_the_owner_has_stopped() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let packets = guest.receive();
    assert_eq!(data_of(&packets), b"last words");
    assert_eq!((packets[1].header.op, packets[1].header.flags), (Op::Shutdown, SHUTDOWN_SEND));
    let bytes = pattern(300_000);
    let mut got = Vec::new();
    for part in bytes.chunks(20_000) {
        guest.send_data(ports, part);
        got.extend(Guest::read_all(&mut stream));
        assert!(guest.operations().iter().all(|op| *op == Op::CreditUpdate));
    }
    assert_eq!(got, bytes);
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    assert!(Guest::is_at_end(&mut stream));
    // Both directions are done, one from each side: nothing can follow.
    assert_eq!(guest.one(Op::Shutdown).flags, SHUTDOWN_BOTH);
    guest.send(ports, Op::Reset);
    assert_eq!(guest.held(), 0);
}

#[test]
fn the_owner_can_go_on_sending_when_the_guest_has_stopped() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.accepted(7);
    guest.send_data(ports, b"last words");
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    assert_eq!(Guest::read_all(&mut stream), b"last words");
    assert!(Guest::is_at_end(&mut stream));
    let bytes = pattern(200_000);
    assert_eq!(Guest::write_some(&mut stream, &bytes[..100_000]), 100_000);
    let mut got = data_of(&guest.receive());
    assert_eq!(Guest::write_some(&mut stream, &bytes[100_000..]), 100_000);
    got.extend(data_of(&guest.receive()));
    assert_eq!(got, bytes);
    drop(stream);
    assert_eq!(guest.one(Op::Shutdown).flags, SHUTDOWN_BOTH);
    guest.send(ports, Op::Reset);
    assert_eq!(guest.held(), 0);
}

#[test]
fn an_owner_that_reads_no_more_is_told_of_to_the_guest() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    stream.shutdown(Shutdown::Read).unwrap();
    guest.send_data(ports, b"in vain");
    assert_eq!(guest.one(Op::Shutdown).flags, SHUTDOWN_RECEIVE);
    // What is under way is let go.
    guest.send_data(ports, b"in vain too");
    stream.write_all(b"still heard").unwrap();
    assert_eq!(data_of(&guest.receive()), b"still heard");
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    stream.write_all(b"still").unwrap();
    assert_eq!(data_of(&guest.receive()), b"still");
}

#[test]
fn a_guest_that_receives_no_more_makes_the_owners_writes_fail() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.send_shutdown(ports, SHUTDOWN_RECEIVE);
    assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.send_data(ports, b"still heard");
    assert_eq!(Guest::read_all(&mut stream), b"still heard");
    assert!(guest.receive().is_empty());
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    guest.one(Op::Reset);
    assert_eq!(Guest::read_all(&mut stream), b"");
    assert!(Guest::is_at_end(&mut stream));
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_guest_that_closes_is_answered_by_rst_and_the_owner_sees_the_end() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.accepted(7);
    guest.send_data(ports, b"bye");
    guest.send_shutdown(ports, SHUTDOWN_BOTH);
    guest.one(Op::Reset);
    assert_eq!(Guest::read_all(&mut stream), b"bye");
    assert!(Guest::is_at_end(&mut stream));
    assert_eq!(guest.held(), 0);
    // The ports are free at once.
    guest.accepted(7);
}

#[test]
fn what_a_guest_sent_before_it_closed_reaches_an_owner_that_reads_late() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.accepted(7);
    // Fills the stream, and then what the device holds.
    let sent = fill(&mut guest, ports);
    guest.send_shutdown(ports, SHUTDOWN_BOTH);
    guest.one(Op::Reset);
    guest.send(ports, Op::Reset);
    assert_eq!(guest.held(), 1, "bytes wait for the owner");
    // The guest can use the ports again meanwhile.
    let (_, _other) = guest.accepted(7);
    assert_eq!(guest.held(), 2);
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(Guest::read_all(&mut stream));
        guest.board.run().unwrap();
    }
    assert_eq!(got, pattern(sent));
    assert!(Guest::is_at_end(&mut stream));
    assert_eq!(guest.held(), 1);
}

#[test]
fn what_waits_for_an_owner_that_goes_is_forgotten() {
    let mut guest = Guest::new();
    let (ports, stream) = guest.accepted(7);
    fill(&mut guest, ports);
    guest.send_shutdown(ports, SHUTDOWN_BOTH);
    assert_eq!(guest.held(), 1);
    drop(stream);
    guest.board.run().unwrap();
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_half_closed_guest_is_heard_to_the_end_by_an_owner_that_reads_late() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.accepted(7);
    let sent = fill(&mut guest, ports);
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(Guest::read_all(&mut stream));
        guest.board.run().unwrap();
    }
    assert_eq!(got, pattern(sent));
    assert!(Guest::is_at_end(&mut stream));
    assert_eq!(guest.held(), 1);
}

/// Sends until the owner's stream is full and the guest may send no more; says how many bytes of the pattern that were.
fn fill(guest: &mut Guest, ports: Ports) -> usize {
    let bytes = pattern(4 << 20);
    let (mut sent, mut room) = (0, 32 << 10);
    while room > 0 {
        let count = room.min(30_000);
        guest.send_data(ports, &bytes[sent..sent + count]);
        sent += count;
        room -= count;
        for packet in guest.receive() {
            let taken = packet.header.fwd_cnt as usize;
            room = packet.header.buf_alloc as usize - (sent - taken);
        }
    }
    assert!(sent > 240_000, "{sent} bytes fill a stream and a window");
    sent
}

#[test]
fn rst_ends_a_connection_in_every_state() {
    let mut guest = Guest::new();
    // Asked for.
    let mut asked = guest.gate.connect(1).unwrap();
    let request = guest.one(Op::Request);
    guest.send(Ports { host: request.src_port, guest: 1 }, Op::Reset);
    assert!(Guest::is_at_end(&mut asked));
    // Open, opened by either side.
    for open in [Guest::connected, Guest::accepted] {
        let (ports, mut stream) = open(&mut guest, 2);
        guest.send(ports, Op::Reset);
        assert!(Guest::is_at_end(&mut stream));
    }
    // One direction is done, by either side.
    let (ports, mut stream) = guest.connected(3);
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    guest.send(ports, Op::Reset);
    assert!(Guest::is_at_end(&mut stream));
    let (ports, mut stream) = guest.connected(4);
    stream.shutdown(Shutdown::Write).unwrap();
    guest.one(Op::Shutdown);
    guest.send(ports, Op::Reset);
    assert!(Guest::is_at_end(&mut stream));
    // Closing.
    let (ports, stream) = guest.connected(5);
    drop(stream);
    guest.one(Op::Shutdown);
    guest.send(ports, Op::Reset);
    // Gone.
    guest.send(ports, Op::Reset);
    assert!(guest.receive().is_empty(), "RST is not answered");
    assert_eq!(guest.held(), 0);
}

#[test]
fn packets_under_way_when_the_owner_closes_are_passed_over() {
    let mut guest = Guest::new();
    let (ports, stream) = guest.connected(5);
    drop(stream);
    assert_eq!(guest.one(Op::Shutdown).flags, SHUTDOWN_BOTH);
    guest.send_data(ports, b"late");
    guest.send(ports, Op::CreditRequest);
    guest.send(ports, Op::CreditUpdate);
    guest.send_shutdown(ports, SHUTDOWN_SEND);
    assert!(guest.receive().is_empty());
    guest.send_shutdown(ports, SHUTDOWN_RECEIVE);
    guest.one(Op::Reset);
    assert_eq!(guest.held(), 0);
}

#[test]
fn both_sides_closing_at_once_is_one_end() {
    let mut guest = Guest::new();
    let (ports, stream) = guest.connected(5);
    guest.refills = false;
    drop(stream);
    guest.send_shutdown(ports, SHUTDOWN_BOTH);
    let operations = guest.operations();
    assert_eq!(operations.last(), Some(&Op::Reset), "{operations:?}");
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_connection_that_the_owner_gave_up_makes_place_where_the_guest_does_not_answer() {
    let mut guest = Guest::new();
    let most = crate::virtio::vsock::table::MOST_OF_OWNER as u32;
    for port in 0..most {
        // Never answered, and given up.
        drop(guest.gate.connect(port).unwrap());
        guest.one(Op::Request);
    }
    assert_eq!(guest.held(), most as usize);
    let _stream = guest.gate.connect(77).unwrap();
    assert_eq!(guest.operations(), [Op::Reset, Op::Request]);
    assert_eq!(guest.held(), most as usize);
}

#[test]
fn a_guest_that_forgot_a_connection_can_use_its_ports_when_the_owner_has_closed_it() {
    let mut guest = Guest::new();
    let (ports, stream) = guest.accepted(5);
    drop(stream);
    guest.one(Op::Shutdown);
    // No RST: the socket was gone when SHUTDOWN came.
    guest.send(ports, Op::Request);
    guest.one(Op::Response);
    assert_eq!((guest.held(), guest.gate.accept().unwrap().0), (1, ALLOWED));
}

#[test]
fn a_second_request_for_an_open_connection_ends_it() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.accepted(5);
    guest.send(ports, Op::Request);
    guest.one(Op::Reset);
    assert!(Guest::is_at_end(&mut stream));
    assert_eq!(guest.held(), 0);
}
