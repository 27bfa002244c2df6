//! Save, restore, and a driver that begins anew.

use std::io::Write;

use super::guest::{ALLOWED, CID, Guest, data_of};
use crate::virtio::device::Device;
use crate::virtio::vsock::device::EVENT;
use crate::virtio::vsock::packet::{Op, Ports};
use crate::virtio::vsock::{Config, Gate, Vsock};

/// A device made anew from what was saved, with a new owner.
fn restored(mut guest: Guest) -> Guest {
    let state = guest.board.device.save().unwrap();
    let (gate, inner) = Gate::pair().unwrap();
    let mut device = Vsock::new(Config { guest_cid: CID, allowed_ports: vec![ALLOWED] }, inner).unwrap();
    device.restore(&state).unwrap();
    guest.gate = gate;
    guest.board = guest.board.replace(device);
    guest.board.run().unwrap();
    guest
}

/// Takes the event from the event queue.
fn take_event(guest: &mut Guest) -> Vec<u8> {
    let (_, written) = guest.board.rings[EVENT].take_used().expect("no event");
    guest.board.read(guest.board.free_memory() + 255 * 4096, written)
}

#[test]
fn the_guest_hears_of_a_restore_and_connections_wait_until_it_has() {
    let mut guest = Guest::new();
    for _ in 0..8 {
        guest.add_event_buffer();
    }
    let (ports, mut old) = guest.connected(7);
    assert!(guest.board.rings[EVENT].take_used().is_none());
    let mut guest = restored(guest);
    assert!(Guest::is_at_end(&mut old));
    assert_eq!(guest.held(), 0);
    let mut stream = guest.gate.connect(8).unwrap();
    assert_eq!(guest.operations(), []);
    // Neither side opens anything, and what is left of the old is refused.
    guest.send_data(ports, b"old");
    guest.one(Op::Reset);
    guest.send(Ports { host: ALLOWED, guest: 9 }, Op::Request);
    guest.one(Op::Reset);
    assert_eq!(take_event(&mut guest), [0; 4]);
    assert_eq!(guest.operations(), []);
    // The buffer comes back: now it is known.
    guest.add_event_buffer();
    let request = guest.one(Op::Request);
    assert_ne!(request.src_port, ports.host, "ports of the old connections are not used again");
    guest.send(Ports { host: request.src_port, guest: 8 }, Op::Response);
    stream.write_all(b"new").unwrap();
    assert_eq!(data_of(&guest.receive()), b"new");
    guest.accepted(9);
    assert!(guest.board.rings[EVENT].take_used().is_none(), "one event is enough");
}

#[test]
fn the_event_waits_for_a_buffer() {
    let mut guest = restored(Guest::new());
    let _stream = guest.gate.connect(8).unwrap();
    assert_eq!(guest.operations(), []);
    guest.add_event_buffer();
    assert_eq!(take_event(&mut guest), [0; 4]);
    assert_eq!(guest.operations(), []);
    guest.add_event_buffer();
    guest.one(Op::Request);
}

#[test]
fn saving_changes_nothing_for_a_machine_that_goes_on() {
    let mut guest = Guest::new();
    let (ports, mut stream) = guest.connected(7);
    guest.board.device.save().unwrap();
    guest.send_data(ports, b"on");
    assert_eq!(Guest::read_all(&mut stream), b"on");
    stream.write_all(b"and on").unwrap();
    assert_eq!(data_of(&guest.receive()), b"and on");
}

#[test]
fn a_state_that_is_none_or_anothers_is_refused() {
    let (_gate, inner) = Gate::pair().unwrap();
    let mut device = Vsock::new(Config { guest_cid: 4, allowed_ports: Vec::new() }, inner).unwrap();
    assert!(device.restore(&[]).is_err());
    assert!(device.restore(&[0xff; 3]).is_err());
    let other = Guest::new().board.device.save().unwrap();
    let error = device.restore(&other).unwrap_err().to_string();
    assert!(error.contains('3') && error.contains('4'), "{error}");
}

#[test]
fn a_driver_that_begins_anew_finds_no_connection_and_can_make_new_ones() {
    let mut guest = Guest::new();
    let (_, mut one) = guest.connected(7);
    let (ports, mut two) = guest.accepted(8);
    // In mid-flight: bytes towards the guest, and bytes that wait for the owner.
    one.write_all(&[1; 100_000]).unwrap();
    guest.send_data(ports, &[2; 30_000]);
    let _waiting = guest.gate.connect(9).unwrap();
    guest.board = guest.board.reset();
    guest.fill();
    assert_eq!(Guest::read_all(&mut two).len(), 30_000);
    assert!(Guest::is_at_end(&mut two));
    assert!(Guest::is_at_end(&mut one));
    assert_eq!(guest.operations(), [Op::Request], "what the owner asked for meanwhile is made");
    let (ports, mut stream) = guest.connected(10);
    guest.send_data(ports, b"anew");
    assert_eq!(Guest::read_all(&mut stream), b"anew");
}
