//! Several parties at the host's side: each with a gate and ports of its own.

use std::io::Write;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::guest::{ALLOWED, Guest, data_of};
use crate::virtio::vsock::gates::MOST_ADMITTED;
use crate::virtio::vsock::packet::{Op, Ports};
use crate::virtio::vsock::{Gate, InnerGate};

/// Lets another party in.
fn admit(guest: &mut Guest, ports: Range<u32>) -> Gate {
    let (gate, inner) = Gate::pair().unwrap();
    guest.gate.admit(ports, inner).unwrap();
    guest.board.run().unwrap();
    gate
}

/// Whether the machine has let go of its end of a gate.
fn is_shut(gate: &Gate) -> bool {
    gate.connect(1).is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The guest opens a connection to a port of the host.
fn call(guest: &mut Guest, host: u32, from: u32) -> Op {
    guest.send(Ports { host, guest: from }, Op::Request);
    let packets = guest.receive();
    let answer = packets.iter().find(|packet| (packet.header.src_port, packet.header.dst_port) == (host, from));
    answer.unwrap_or_else(|| panic!("no answer: {packets:?}")).header.op
}

#[test]
fn each_party_gets_the_connections_to_its_ports_and_opens_its_own() {
    let mut guest = Guest::new();
    let (one, two) = (admit(&mut guest, 2000..2010), admit(&mut guest, 2010..2020));
    for (host, gate) in [(2009, &one), (2010, &two)] {
        assert_eq!(call(&mut guest, host, 5), Op::Response);
        let (port, mut stream) = gate.accept().unwrap();
        assert_eq!(port, host);
        stream.write_all(b"hello").unwrap();
        assert_eq!(data_of(&guest.receive()), b"hello");
    }
    assert_eq!(call(&mut guest, ALLOWED, 6), Op::Response);
    assert_eq!(guest.gate.accept().unwrap().0, ALLOWED);
    for nobodys in [1999, 2020] {
        assert_eq!(call(&mut guest, nobodys, 7), Op::Reset);
    }
    let _stream = two.connect(77).unwrap();
    let calls = guest.receive();
    assert!(calls.iter().any(|packet| packet.header.op == Op::Request && packet.header.dst_port == 77), "{calls:?}");
}

#[test]
fn nobody_is_let_in_with_ports_that_another_has() {
    let mut guest = Guest::new();
    let one = admit(&mut guest, 2000..2010);
    for ports in [ALLOWED..ALLOWED + 1, 2009..2011, 1990..2001, 0..u32::MAX] {
        assert!(is_shut(&admit(&mut guest, ports)));
    }
    assert_eq!(call(&mut guest, 2009, 5), Op::Response);
    assert_eq!(one.accept().unwrap().0, 2009);
}

#[test]
fn who_goes_gives_ports_back_and_keeps_connections() {
    let mut guest = Guest::new();
    let one = admit(&mut guest, 2000..2010);
    let stream = one.connect(9).unwrap();
    let request = guest.one(Op::Request);
    let ports = Ports { host: request.src_port, guest: 9 };
    guest.send(ports, Op::Response);
    stream.set_nonblocking(true).unwrap();
    drop(one);
    guest.board.run().unwrap();
    assert_eq!(call(&mut guest, 2005, 5), Op::Reset);
    let mut stream = stream;
    guest.send_data(ports, b"still here");
    assert_eq!(Guest::read_all(&mut stream), b"still here");
    let two = admit(&mut guest, 2000..2010);
    assert_eq!(call(&mut guest, 2005, 6), Op::Response);
    assert_eq!(two.accept().unwrap().0, 2005);
}

#[test]
fn ports_are_free_at_once_when_their_party_has_gone_before_the_next_one_comes() {
    let mut guest = Guest::new();
    let one = admit(&mut guest, 2000..2010);
    // The device finds all of this at the same time, the owner's gate first.
    for port in 0..100 {
        drop(one.connect(port).unwrap());
    }
    drop(one);
    let two = admit(&mut guest, 2005..2015);
    assert!(!is_shut(&two));
    guest.receive();
    assert_eq!(call(&mut guest, 2007, 500), Op::Response);
    assert_eq!(two.accept().unwrap().0, 2007);
}

#[test]
fn the_number_of_parties_is_bounded() {
    let mut guest = Guest::new();
    let ports = |number: usize| 2000 + number as u32..2001 + number as u32;
    let mut all: Vec<Gate> = (0..MOST_ADMITTED).map(|number| admit(&mut guest, ports(number))).collect();
    assert!(is_shut(&admit(&mut guest, ports(MOST_ADMITTED))));
    assert_eq!(call(&mut guest, 2015, 5), Op::Response);
    drop(all.pop());
    guest.board.run().unwrap();
    assert!(!is_shut(&admit(&mut guest, ports(MOST_ADMITTED))));
}

#[test]
fn only_the_owner_lets_others_in_and_what_is_no_gate_is_let_go() {
    let mut guest = Guest::new();
    let one = admit(&mut guest, 2000..2010);
    let (another, inner) = Gate::pair().unwrap();
    one.admit(3000..3001, inner).unwrap();
    guest.board.run().unwrap();
    assert!(is_shut(&another));
    let (end, pipe) = std::io::pipe().unwrap();
    for nonsense in [OwnedFd::from(tempfile::tempfile().unwrap()), end.into(), pipe.into()] {
        guest.gate.admit(4000..4001, InnerGate::from(nonsense)).unwrap();
        guest.board.run().unwrap();
    }
    let two = admit(&mut guest, 4000..4001);
    assert_eq!(call(&mut guest, 4000, 5), Op::Response);
    assert_eq!(two.accept().unwrap().0, 4000);
    assert!(!is_shut(&one));
}

#[test]
fn parties_go_on_when_the_driver_begins_anew_and_when_the_owner_has_closed_its_gate() {
    let mut guest = Guest::new();
    let one = admit(&mut guest, 2000..2010);
    guest.board = guest.board.reset();
    guest.fill();
    assert_eq!(call(&mut guest, 2001, 5), Op::Response);
    assert_eq!(one.accept().unwrap().0, 2001);
    let (gate, _) = Gate::pair().unwrap();
    drop(std::mem::replace(&mut guest.gate, gate));
    guest.board.run().unwrap();
    assert_eq!(call(&mut guest, ALLOWED, 6), Op::Reset);
    assert_eq!(call(&mut guest, 2002, 6), Op::Response);
    assert_eq!(one.accept().unwrap().0, 2002);
}
