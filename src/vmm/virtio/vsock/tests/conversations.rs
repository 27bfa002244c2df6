//! Connections that go as they should.

use std::io::{Read, Write};

use super::guest::{ALLOWED, CID, GUEST_WINDOW, Guest, data_of, pattern};
use crate::virtio::device::Device;
use crate::virtio::vsock::packet::{HOST_CID, Op, Ports, SHUTDOWN_BOTH};
use crate::virtio::vsock::table::{MOST_OF_GUEST, MOST_OF_OWNER};

#[test]
fn the_owner_connects_and_bytes_flow_both_ways() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(1024);
    stream.write_all(b"question").unwrap();
    let packets = guest.receive();
    assert_eq!(data_of(&packets), b"question");
    assert_eq!((packets[0].header.src_port, packets[0].header.dst_port), (ports.host, ports.guest));
    guest.send_data(ports, b"answer");
    assert_eq!(Guest::read_all(&mut stream), b"answer");
}

#[test]
fn the_guest_connects_to_an_allowed_port_and_bytes_flow_both_ways() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.accepted(50_000);
    guest.send_data(ports, b"question");
    assert_eq!(Guest::read_all(&mut stream), b"question");
    stream.write_all(b"answer").unwrap();
    assert_eq!(data_of(&guest.receive()), b"answer");
}

#[test]
fn bytes_that_the_owner_writes_before_the_guest_has_answered_arrive_after_it_has() {
    let mut guest = Guest::new();
    let mut stream = guest.gate.connect(7).unwrap();
    stream.write_all(b"early").unwrap();
    let request = guest.one(Op::Request);
    guest.send(Ports { host: request.src_port, guest: 7 }, Op::Response);
    assert_eq!(data_of(&guest.receive()), b"early");
}

#[test]
fn an_owner_that_writes_and_closes_at_once_is_heard_to_the_end() {
    let mut guest = Guest::new();
    let mut stream = guest.gate.connect(7).unwrap();
    stream.write_all(b"all of it").unwrap();
    drop(stream);
    let request = guest.one(Op::Request);
    let ports = Ports { host: request.src_port, guest: 7 };
    guest.send(ports, Op::Response);
    let packets = guest.receive();
    assert_eq!(data_of(&packets), b"all of it");
    let last = packets.last().unwrap().header;
    assert_eq!((last.op, last.flags), (Op::Shutdown, SHUTDOWN_BOTH));
    guest.send(ports, Op::Reset);
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_connection_that_the_guest_refuses_ends_for_the_owner() {
    let mut guest = Guest::new();
    let mut stream = guest.gate.connect(9).unwrap();
    let request = guest.one(Op::Request);
    guest.send(Ports { host: request.src_port, guest: 9 }, Op::Reset);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(guest.receive().is_empty());
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_port_that_is_not_allowed_is_refused() {
    let mut guest = Guest::new();
    for port in [0, 1, ALLOWED - 1, ALLOWED + 1, u32::MAX] {
        let ports = Ports { host: port, guest: 5 };
        guest.send(ports, Op::Request);
        let answer = guest.one(Op::Reset);
        assert_eq!((answer.src_port, answer.dst_port), (port, 5));
    }
    assert_eq!(guest.held(), 0);
}

#[test]
fn a_guest_whose_owner_takes_no_connections_is_refused() {
    let mut guest = Guest::new();
    let (gate, inner) = crate::virtio::vsock::Gate::pair().unwrap();
    drop(inner);
    drop(std::mem::replace(&mut guest.gate, gate));
    guest.board.run().unwrap();
    guest.send(Ports { host: ALLOWED, guest: 5 }, Op::Request);
    guest.one(Op::Reset);
}

#[test]
fn connections_asked_for_before_the_driver_is_ready_are_made_when_it_is() {
    let mut guest = Guest::new();
    let mut early: Vec<_> = (0..20).map(|port| guest.gate.connect(port).unwrap()).collect();
    let requests = guest.receive();
    assert_eq!(requests.len(), 20);
    for (packet, stream) in requests.iter().zip(&mut early) {
        let ports = Ports { host: packet.header.src_port, guest: packet.header.dst_port };
        guest.send(ports, Op::Response);
        stream.write_all(&ports.guest.to_le_bytes()).unwrap();
    }
    for packet in guest.receive() {
        assert_eq!(packet.data, packet.header.dst_port.to_le_bytes());
    }
}

#[test]
fn every_connection_of_the_owner_has_a_port_of_its_own() {
    let mut guest = Guest::new();
    let streams: Vec<_> = (0..50).map(|_| guest.gate.connect(7).unwrap()).collect();
    let mut ports: Vec<u32> = guest.receive().iter().map(|packet| packet.header.src_port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), streams.len());
}

#[test]
fn five_hundred_connections_of_either_side_carry_their_own_bytes() {
    let mut guest = Guest::new();
    let mut all = Vec::new();
    for number in 0..500 {
        all.push(guest.connected(10_000 + number));
        all.push(guest.accepted(20_000 + number));
    }
    for (ports, stream) in &mut all {
        stream.write_all(&pattern(1000 + ports.guest as usize % 777)).unwrap();
        guest.send_data(*ports, &pattern(ports.guest as usize % 999 + 1));
    }
    let mut received = std::collections::HashMap::<u32, Vec<u8>>::new();
    for packet in guest.receive() {
        received.entry(packet.header.dst_port).or_default().extend(packet.data);
    }
    for (ports, stream) in &mut all {
        assert_eq!(received[&ports.guest], pattern(1000 + ports.guest as usize % 777));
        assert_eq!(Guest::read_all(stream), pattern(ports.guest as usize % 999 + 1));
    }
    assert_eq!(guest.held(), 1000);
    drop(all);
    for packet in guest.receive() {
        assert_eq!((packet.header.op, packet.header.flags), (Op::Shutdown, SHUTDOWN_BOTH));
        guest.send(Ports { host: packet.header.src_port, guest: packet.header.dst_port }, Op::Reset);
    }
    assert_eq!(guest.held(), 0);
}

#[test]
fn beyond_the_last_place_connections_end_and_the_others_go_on() {
    let mut guest = Guest::new();
    let mut accepted: Vec<_> = (0..MOST_OF_GUEST as u32).map(|number| guest.accepted(number)).collect();
    guest.send(Ports { host: ALLOWED, guest: 99_999 }, Op::Request);
    guest.one(Op::Reset);
    // The guest's own have not taken the owner's places.
    let mut owned: Vec<_> = (0..MOST_OF_OWNER as u32).map(|number| guest.connected(number)).collect();
    let mut one_more = guest.gate.connect(1).unwrap();
    assert!(guest.receive().is_empty());
    assert!(Guest::is_at_end(&mut one_more));
    for (ports, stream) in [accepted.last_mut().unwrap(), owned.last_mut().unwrap()] {
        guest.send_data(*ports, b"still here");
        assert_eq!(Guest::read_all(stream), b"still here");
    }
}

#[test]
fn the_configuration_space_is_the_guests_id() {
    let guest = Guest::new();
    let mut bytes = [0xff; 12];
    guest.board.device.read_config(0, &mut bytes);
    assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = [0xff; 4];
    guest.board.device.read_config(4, &mut bytes);
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn an_id_that_is_not_a_guests_is_refused() {
    use crate::virtio::vsock::{Config, Gate, Vsock};
    for guest_cid in [0, 1, 2, u64::from(u32::MAX), 1 << 32] {
        let (_gate, inner) = Gate::pair().unwrap();
        let refused = Vsock::new(Config { guest_cid, allowed_ports: Vec::new() }, inner).unwrap_err();
        assert!(refused.to_string().contains(&guest_cid.to_string()), "{refused}");
    }
}

#[test]
fn the_response_tells_the_guest_where_it_stands_and_how_much_it_may_send() {
    let mut guest = Guest::new();
    guest.send(Ports { host: ALLOWED, guest: 4 }, Op::Request);
    let response = guest.one(Op::Response);
    assert_eq!((response.src_cid, response.dst_cid), (HOST_CID, CID));
    assert_eq!((response.src_port, response.dst_port), (ALLOWED, 4));
    assert!(response.buf_alloc > 0 && response.buf_alloc <= GUEST_WINDOW);
    assert_eq!(response.fwd_cnt, 0);
}
