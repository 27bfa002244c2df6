//! Taps on the bridge: frame by frame, and with a guest whose kernel is this one behind a wire of ours.
//!
//! ```text
//! bridge sbx0 ── tap sbx… ═ descriptor ═ wire (threads) ═ descriptor ═ tap eth0 (guest's namespace)
//! ```

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use super::host::{configure, container, host, id};
use super::lab::{Netns, in_new_netns, ip, nft};
use super::lan::{PATIENCE, ask_both, both, lan, publish, requests, serve};
use crate::tap::{self, DEVICE};
use crate::{Endpoint, Error, Fixed, MacAddress, Network, Offload, Reaped, VNET_HEADER_BYTES};

pub(super) const EVERYTHING: Offload = Offload { checksum: true, tso4: true, tso6: true, ecn: true, uso: false };

/// Whether there are taps here; says why a test is left out where not.
pub(super) fn no_taps(test: &str) -> bool {
    let missing = !std::path::Path::new(DEVICE).exists();
    if missing {
        println!("skipped {test}: {DEVICE} is missing");
    }
    missing
}

/// Waits until a link is gone. Other tests start programs all the time, and between `fork` and `execve` those have copies of our descriptors.
fn wait_until_gone(link: &str) {
    let deadline = Instant::now() + PATIENCE;
    while ip("-o link").contains(link) {
        assert!(Instant::now() < deadline, "{link} is still there");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A container with a tap.
fn plug(network: &Network, number: u64) -> (Endpoint, OwnedFd) {
    let endpoint = network.allocate(&id(number), Fixed::default()).unwrap();
    let tap = network.connect_tap(&endpoint, Offload::default()).unwrap();
    (endpoint, tap)
}

/// A frame that the tap has, behind its header; `None` after the deadline.
fn receive(tap: &OwnedFd, deadline: Instant) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 66_000];
    loop {
        match read(tap, &mut buffer) {
            Ok(length) => {
                assert!(length > VNET_HEADER_BYTES);
                return Some(buffer[VNET_HEADER_BYTES..length].to_vec());
            }
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                let mut wanted = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
                poll(&mut wanted, PollTimeout::from(50_u8)).unwrap();
            }
            Err(Errno::EAGAIN) => return None,
            Err(error) => panic!("read the tap: {error}"),
        }
    }
}

/// The first frame that is what is looked for; others are left out.
fn wait_for(tap: &OwnedFd, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    while let Some(frame) = receive(tap, deadline) {
        if wanted(&frame) {
            return frame;
        }
    }
    panic!("the frame never came");
}

fn send(tap: &OwnedFd, frame: &[u8]) {
    let mut bytes = vec![0; VNET_HEADER_BYTES];
    bytes.extend_from_slice(frame);
    assert_eq!(write(tap, &bytes), Ok(bytes.len()));
}

fn ethernet(to: [u8; 6], from: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from.0, &kind.to_be_bytes(), payload].concat()
}

/// ARP: 1 asks who has `wanted`, 2 answers (RFC 826).
fn arp(operation: u8, from: &Endpoint, to: [u8; 6], wanted: Ipv4Addr) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { to };
    let own = from.ipv4.addr().octets();
    let payload = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &from.mac.0, &own, &target, &wanted.octets()].concat();
    ethernet(to, from.mac, 0x0806, &payload)
}

/// The sum of RFC 1071.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An ICMP echo request (8) or answer (0) with a payload of its own.
fn echo(kind: u8, from: &Endpoint, mac: [u8; 6], to: Ipv4Addr) -> Vec<u8> {
    let mut icmp = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1][..], b"through the bridge"].concat();
    let checksum = sum(&icmp);
    icmp[2..4].copy_from_slice(&checksum);
    let length = (20 + icmp.len() as u16).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 1, 0, 0];
    header.extend(from.ipv4.addr().octets());
    header.extend(to.octets());
    let checksum = sum(&header);
    header[10..12].copy_from_slice(&checksum);
    ethernet(mac, from.mac, 0x0800, &[header, icmp].concat())
}

#[test]
fn two_taps_and_the_host_exchange_frames() {
    if no_taps("two_taps_and_the_host_exchange_frames") {
        return;
    }
    in_new_netns(|| {
        let host = host();
        let ((one, first), (two, second)) = (plug(&host.network, 1), plug(&host.network, 2));
        let everyone = [0xFF; 6];
        let question = arp(1, &one, everyone, two.ipv4.addr());
        send(&first, &question);
        wait_for(&second, |frame| frame == question);
        let answer = arp(2, &two, one.mac.0, one.ipv4.addr());
        send(&second, &answer);
        wait_for(&first, |frame| frame == answer);
        let ping = echo(8, &one, two.mac.0, two.ipv4.addr());
        send(&first, &ping);
        wait_for(&second, |frame| frame == ping);
        // The host answers for its own address, as a router does.
        send(&first, &arp(1, &one, everyone, one.gateway));
        let bridge = wait_for(&first, |frame| {
            frame[12..14] == [8, 6] && frame[21] == 2 && frame[28..32] == one.gateway.octets()
        });
        let router: [u8; 6] = bridge[6..12].try_into().unwrap();
        send(&first, &echo(8, &one, router, one.gateway));
        let pong = wait_for(&first, |frame| frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 0);
        assert!(pong.ends_with(b"through the bridge"));
        // The counters are those of the container: two pings and two questions went out.
        let stats = host.network.stats(&id(1)).unwrap().unwrap();
        let sent = 2 * (ping.len() + question.len()) as u64;
        assert_eq!((stats.tx_packets, stats.tx_bytes), (4, sent), "{stats:?}");
        assert!(stats.rx_packets >= 3 && stats.rx_bytes >= (answer.len() + pong.len()) as u64, "{stats:?}");
    });
}

#[test]
fn a_tap_is_like_the_hosts_end_of_a_veth_and_goes_with_its_descriptor() {
    if no_taps("a_tap_is_like_the_hosts_end_of_a_veth_and_goes_with_its_descriptor") {
        return;
    }
    in_new_netns(|| {
        let host = host();
        let (veth, _netns) = container(&host.network, 1);
        let (endpoint, tap) = plug(&host.network, 2);
        assert_eq!(endpoint.link, "sbx000000000002");
        let shown = |endpoint: &Endpoint| ip(&format!("-d link show {}", endpoint.link));
        let outside = shown(&endpoint);
        for fact in ["master sbx0", ",UP", "mtu 1500", "tun type tap pi off vnet_hdr on persist off"] {
            assert!(outside.contains(fact), "{fact}: {outside}");
        }
        // What the kernel says of a port of the bridge, whatever is behind it.
        let port = |text: &str| -> Vec<String> {
            let settings = text.split("bridge_slave ").nth(1).unwrap().split_whitespace();
            let pairs: Vec<&str> = settings.collect();
            let own = [
                "state",
                "cost",
                "port_id",
                "port_no",
                "designated_port",
                "forward_delay_timer",
                "hold_timer",
                "message_age_timer",
            ];
            pairs
                .chunks(2)
                .filter(|pair| pair.len() == 2 && !own.contains(&pair[0]))
                .map(|pair| pair.join(" "))
                .collect()
        };
        let settings = ["hairpin", "isolated", "neigh_suppress", "learning", "flood", "guard"];
        let kept = |text: &str| -> Vec<String> {
            port(text).into_iter().filter(|pair| settings.iter().any(|name| pair.starts_with(name))).collect()
        };
        assert_eq!(kept(&outside), kept(&shown(&veth)));
        assert!(kept(&outside).len() >= 5, "{outside}");
        let copy = tap.try_clone().unwrap();
        drop(tap);
        assert!(ip("-o link").contains(&endpoint.link));
        drop(copy);
        wait_until_gone(&endpoint.link);
        assert_eq!(host.network.stats(&endpoint.container).unwrap(), None);
        host.network.remove(&endpoint).unwrap();
        host.network.remove(&veth).unwrap();
        assert_eq!(ip("-o link").lines().count(), 2, "only lo and sbx0 are left: {}", ip("-o link"));
        assert!(host.network.leases().unwrap().is_empty());
    });
}

#[test]
fn an_old_link_of_the_container_is_no_obstacle() {
    if no_taps("an_old_link_of_the_container_is_no_obstacle") {
        return;
    }
    in_new_netns(|| {
        let host = host();
        // In its last life it was in process mode; then its virtual machine's process had a child that keeps the tap.
        let (endpoint, netns) = container(&host.network, 1);
        let old = host.network.connect_tap(&endpoint, Offload::default()).unwrap();
        assert!(!netns.enter(|| ip("-o link")).contains("eth0"));
        let new = host.network.connect_tap(&endpoint, EVERYTHING).unwrap();
        assert_eq!(write(&old, &[0; 60]), Err(Errno::EBADFD));
        send(&new, &arp(1, &endpoint, [0xFF; 6], endpoint.gateway));
        // And back again.
        host.network.connect(&endpoint, netns.fd()).unwrap();
        assert!(netns.enter(|| ip("-o link")).contains("eth0"));
        assert_eq!(write(&new, &[0; 60]), Err(Errno::EBADFD));
    });
}

#[test]
fn a_tap_that_a_dead_container_left_to_another_process_is_reaped() {
    if no_taps("a_tap_that_a_dead_container_left_to_another_process_is_reaped") {
        return;
    }
    in_new_netns(|| {
        let host = host();
        let (living, _tap) = plug(&host.network, 1);
        let (_, _leaked) = plug(&host.network, 2);
        let (_, _netns) = container(&host.network, 3);
        // Neither is anybody else's tap ours.
        let _other = tap::create("tap7", Offload::default()).unwrap();
        let live = |name: &str| id(1).starts_with(name);
        assert_eq!(host.network.reap(&live).unwrap(), Reaped { links: 2, leases: 4, ports: 0 });
        assert_eq!(host.network.reap(&live).unwrap(), Reaped::default());
        let left = ip("-o link");
        assert!(left.contains(&living.link) && left.contains("tap7") && !left.contains("sbx000000000002"), "{left}");
    });
}

#[test]
fn what_is_in_the_way_of_a_tap_is_named() {
    if no_taps("what_is_in_the_way_of_a_tap_is_named") {
        return;
    }
    in_new_netns(|| {
        let host = host();
        let endpoint = host.network.allocate(&id(1), Fixed::default()).unwrap();
        // The kernel takes no segments without checksums.
        let error = host.network.connect_tap(&endpoint, Offload { tso4: true, ..Offload::default() }).unwrap_err();
        assert!(error.to_string().contains("offloads of the tap sbx000000000001"), "{error}");
        wait_until_gone("sbx000000000001");
        ip("link del sbx0");
        let error = host.network.connect_tap(&endpoint, EVERYTHING).unwrap_err();
        assert!(error.to_string().contains("find the bridge sbx0"), "{error}");
        ip("link add sbx0 type veth peer name other");
        let error = host.network.connect_tap(&endpoint, EVERYTHING).unwrap_err();
        assert!(matches!(error, Error::NotABridge { .. }), "{error}");
        wait_until_gone("sbx000000000001");
    });
}

/// Carries frames with their headers from one tap to the other until one of them is gone.
fn carry(from: &OwnedFd, to: &OwnedFd) {
    let mut buffer = vec![0; 70_000];
    loop {
        let mut wanted = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::NONE).unwrap();
        match read(from, &mut buffer) {
            // What a down or full interface does not take is lost, as on every wire.
            Ok(length) => drop(write(to, &buffer[..length])),
            Err(Errno::EAGAIN) => {}
            Err(_) => return,
        }
    }
}

/// A guest with a kernel of its own, as far as the bridge can see: another namespace with its end of a wire, configured as an agent would.
fn guest(network: &Network, number: u64) -> (Endpoint, Netns) {
    let endpoint = network.allocate(&id(number), Fixed::default()).unwrap();
    let netns = wire(&endpoint, network.connect_tap(&endpoint, EVERYTHING).unwrap());
    configure(&endpoint, &netns);
    (endpoint, netns)
}

/// The guest's namespace at the other end of a tap; its interface is still down.
pub(super) fn wire(endpoint: &Endpoint, tap: OwnedFd) -> Netns {
    let outside = Arc::new(tap);
    let netns = Netns::new();
    let inside = Arc::new(netns.enter(|| {
        let inside = tap::create(&endpoint.interface, EVERYTHING).unwrap();
        ip(&format!("link set eth0 address {} mtu {}", endpoint.mac, endpoint.mtu));
        inside
    }));
    for (from, to) in [(&outside, &inside), (&inside, &outside)] {
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        thread::spawn(move || carry(&from, &to));
    }
    netns
}

#[test]
fn a_published_port_reaches_a_guest_as_it_does_a_container() {
    if no_taps("a_published_port_reaches_a_guest_as_it_does_a_container") {
        return;
    }
    in_new_netns(|| {
        let lan = lan();
        let here = Netns::current();
        let (endpoint, web) = guest(&lan.host.network, 1);
        let (_, other) = container(&lan.host.network, 2);
        serve(&web, "0.0.0.0", 80);
        let own6 = endpoint.ipv6.unwrap().addr().to_string();
        serve(&web, &own6, 80);
        publish(&lan.host, &endpoint, &requests(None, 8080, 80));
        // By nftables, IPv4 and IPv6, TCP and UDP; the guest sees who asks.
        assert_eq!(ask_both(&lan.neighbour, "192.0.2.1", 8080), both("192.0.2.7"));
        assert_eq!(ask_both(&lan.neighbour, "2001:db8::1", 8080), both("2001:db8::7"));
        // By the proxy: loopback, a container, and the guest itself.
        assert_eq!(ask_both(&here, "127.0.0.1", 8080), both("172.17.0.1"));
        for asking in [&other, &web] {
            assert_eq!(ask_both(asking, "172.17.0.1", 8080), both("172.17.0.1"));
        }
        // Between the modes nothing is in the way, in either direction, and out to the world goes the same way.
        assert_eq!(ask_both(&other, "172.17.0.2", 80), both("172.17.0.3"));
        serve(&other, "0.0.0.0", 81);
        assert_eq!(ask_both(&web, "172.17.0.3", 81), both("172.17.0.2"));
        serve(&lan.neighbour, "192.0.2.7", 82);
        assert_eq!(ask_both(&web, "192.0.2.7", 82), both("192.0.2.1"));
        lan.host.network.remove(&endpoint).unwrap();
        assert!(!nft("list table inet sbx").contains("elements"));
        assert!(!ip("-o link").contains(&endpoint.link));
    });
}

#[test]
fn large_segments_cross_the_bridge_uncut() {
    if no_taps("large_segments_cross_the_bridge_uncut") {
        return;
    }
    in_new_netns(|| {
        const BYTES: usize = 64 << 20;
        let host = host();
        let (endpoint, netns) = guest(&host.network, 1);
        let (_, other) = container(&host.network, 2);
        let listener = netns.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
        let receiving = thread::spawn(move || {
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all
        });
        let pattern: Vec<u8> = (0..BYTES).map(|at| ((at / 3) ^ (at >> 12)) as u8).collect();
        other.enter(|| {
            let mut stream = TcpStream::connect((endpoint.ipv4.addr(), 80)).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(&pattern).unwrap();
        });
        assert!(receiving.join().unwrap() == pattern);
        let stats = host.network.stats(&endpoint.container).unwrap().unwrap();
        assert!(stats.rx_bytes >= BYTES as u64, "{stats:?}");
        // Cut to the MTU it would have been 45,000 frames and more.
        assert!(stats.rx_packets < 20_000, "{stats:?}");
    });
}

#[test]
fn the_descriptor_does_not_block_and_is_closed_on_execve() {
    if no_taps("the_descriptor_does_not_block_and_is_closed_on_execve") {
        return;
    }
    in_new_netns(|| {
        let tap = tap::create("tap0", Offload::default()).unwrap();
        let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", tap.as_raw_fd())).unwrap();
        let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
        let flags = i32::from_str_radix(&flags, 8).unwrap();
        assert_eq!(flags & (libc::O_NONBLOCK | libc::O_CLOEXEC), libc::O_NONBLOCK | libc::O_CLOEXEC);
        drop(tap);
        wait_until_gone("tap0");
    });
}
