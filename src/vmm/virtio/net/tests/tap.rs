//! A real tap, in a network namespace of its own: the owner's settings are those that the device needs.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recv, send};

use super::station::{Station, config, pattern, wire};
use super::sys;
use crate::virtio::Device;
use crate::virtio::net::Net;
use crate::virtio::net::header::Header;

/// An Ethernet frame of a protocol that nothing speaks, of the guest to anyone.
fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 7, 0x88, 0xb5]);
    frame.extend(pattern(length - frame.len()));
    frame
}

/// A TCP segment over IPv4 that is to be cut into pieces of 1448 bytes.
fn segment(length: usize) -> (Header, Vec<u8>) {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 0];
    let total = (length - 14) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    // Ports, sequence, acknowledgement, offset and flags, window, checksum, urgent.
    frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(pattern(length - frame.len()));
    let header =
        Header { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16, num_buffers: 0 };
    (header, frame)
}

fn receive(socket: &OwnedFd, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 17];
    for _ in 0..1000 {
        if let Ok(count) = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())
            && count == length
        {
            bytes.truncate(count);
            return bytes;
        }
    }
    panic!("the frame of {length} bytes does not arrive");
}

#[test]
fn frames_pass_between_the_guest_and_a_real_interface() {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: a network namespace of its own needs privilege: {error}");
        return;
    }
    let tap = match sys::open_tap("tap-test") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: this machine has no /dev/net/tun");
            return;
        }
        tap => tap.unwrap(),
    };
    let host = sys::open_network("tap-test").unwrap();
    let device = Net::new(config(), tap.into()).unwrap();
    let features = device.features();
    let mut station = Station::with_device(device, wire().1, features);
    station.offer(60, 1536);
    for length in [60, 1514] {
        station.send(&Header::default(), &frame(length));
        assert_eq!(receive(&host, length), frame(length));
    }
    // Larger than the link's packets: it stays whole on the way, since no one has to cut it yet.
    let (header, large) = segment(20_014);
    station.send(&header, &large);
    assert_eq!(receive(&host, large.len())[54..], large[54..]);
    // What the kernel says of itself on a new interface may come too.
    send(host.as_raw_fd(), &frame(1000), MsgFlags::empty()).unwrap();
    let frames = station.frames();
    assert!(frames.iter().any(|got| got.bytes == frame(1000)), "{}", frames.len());
}
