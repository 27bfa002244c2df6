//! Three machines: a host with containers, and a neighbour on its LAN who is not to be trusted.
//!
//! ```text
//! container eth0 ── sbx… ┐
//!                        ├ sbx0 (host) lan 192.0.2.1, 2001:db8::1 ── lan (neighbour) 192.0.2.7, 2001:db8::7
//! container eth0 ── sbx… ┘
//! ```

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::host::{Host, container, host, id, published};
use super::lab::{Netns, in_new_netns, ip, nft};
use crate::proxy::{Targets, run};
use crate::{Endpoint, PortRequest, Protocol, ports};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a packet to cross two links.
const NEVER: Duration = Duration::from_millis(400);

pub(super) struct Lan {
    pub(super) host: Host,
    pub(super) neighbour: Netns,
}

pub(super) fn lan() -> Lan {
    let neighbour = Netns::new();
    ip("link add lan type veth peer name far");
    ip("addr add 192.0.2.1/24 dev lan");
    ip("addr add 2001:db8::1/64 dev lan nodad");
    ip("link set lan up");
    let host = host();
    // `ip` moves by process; the thread that holds the namespace is as good.
    neighbour.take("far");
    neighbour.enter(|| {
        ip("addr add 192.0.2.7/24 dev far");
        ip("addr add 2001:db8::7/64 dev far nodad");
        ip("link set far up");
    });
    Lan { host, neighbour }
}

/// A server in a container (or anywhere): answers every connection and datagram on a port with the peer's address.
pub(super) fn serve(netns: &Netns, address: &str, port: u16) {
    let address: SocketAddr = SocketAddr::new(address.parse().unwrap(), port);
    let (tcp, udp) = netns.enter(|| (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// Whom the server saw; `None` when there was no way.
pub(super) fn ask_tcp(from: &Netns, address: &str, port: u16, patience: Duration) -> Option<IpAddr> {
    from.enter(|| {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.parse().ok()
    })
}

pub(super) fn ask_udp(from: &Netns, address: &str, port: u16, patience: Duration) -> Option<IpAddr> {
    from.enter(|| {
        let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        // An answer that comes from another address than was asked is no answer.
        socket.connect(SocketAddr::new(address.parse().unwrap(), port)).ok()?;
        ask_again(&socket, patience)
    })
}

/// Datagrams may be lost while neighbours are being resolved, so asks until the deadline.
fn ask_again(socket: &UdpSocket, patience: Duration) -> Option<IpAddr> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 64];
    while Instant::now() < deadline {
        let _ = socket.send(b"?");
        if let Ok(length) = socket.recv(&mut buffer) {
            return std::str::from_utf8(&buffer[..length]).unwrap().parse().ok();
        }
    }
    None
}

pub(super) fn ask_both(from: &Netns, address: &str, port: u16) -> [Option<IpAddr>; 2] {
    [ask_tcp(from, address, port, PATIENCE), ask_udp(from, address, port, PATIENCE)]
}

fn nobody(from: &Netns, address: &str, port: u16) {
    assert_eq!(ask_tcp(from, address, port, NEVER), None, "TCP to {address} port {port}");
    assert_eq!(ask_udp(from, address, port, NEVER), None, "UDP to {address} port {port}");
}

pub(super) fn requests(host_address: Option<&str>, host_port: u16, container_port: u16) -> Vec<PortRequest> {
    [Protocol::Tcp, Protocol::Udp]
        .map(|protocol| PortRequest {
            protocol,
            container_port,
            host_address: host_address.map(|address| address.parse().unwrap()),
            host_ports: Some(host_port..=host_port),
        })
        .to_vec()
}

/// Publishes with sockets and proxy, as a supervisor does.
pub(super) fn publish(host: &Host, endpoint: &Endpoint, requests: &[PortRequest]) {
    let reserved = ports::reserve(requests).unwrap();
    let published: Vec<_> = reserved.iter().map(|reserved| reserved.published).collect();
    host.network.publish(endpoint, &published).unwrap();
    let targets = Targets::of(endpoint);
    thread::spawn(move || run(reserved, &targets));
}

pub(super) fn both(address: &str) -> [Option<IpAddr>; 2] {
    [Some(address.parse().unwrap()); 2]
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    in_new_netns(|| {
        let lan = lan();
        let here = Netns::current();
        let (endpoint, web) = container(&lan.host.network, 1);
        let (_, other) = container(&lan.host.network, 2);
        serve(&web, "0.0.0.0", 80);
        let own6 = endpoint.ipv6.unwrap().addr().to_string();
        serve(&web, &own6, 80);
        publish(&lan.host, &endpoint, &requests(None, 8080, 80));
        // By nftables: the container sees who asks.
        assert_eq!(ask_both(&lan.neighbour, "192.0.2.1", 8080), both("192.0.2.7"));
        assert_eq!(ask_both(&lan.neighbour, "2001:db8::1", 8080), both("2001:db8::7"));
        assert_eq!(ask_both(&here, "192.0.2.1", 8080), both("192.0.2.1"));
        // By the proxy: loopback, a container by the host's addresses, and itself.
        let gateway6 = endpoint.gateway6.unwrap().to_string();
        assert_eq!(ask_both(&here, "127.0.0.1", 8080), both("172.17.0.1"));
        assert_eq!(ask_both(&here, "::1", 8080), both(&gateway6));
        for asking in [&other, &web] {
            assert_eq!(ask_both(asking, "172.17.0.1", 8080), both("172.17.0.1"));
            assert_eq!(ask_both(asking, "192.0.2.1", 8080), both("172.17.0.1"));
            assert_eq!(ask_both(asking, &gateway6, 8080), both(&gateway6));
        }
        // Between containers, and from the host to the container itself, nothing is in the way.
        assert_eq!(ask_both(&other, "172.17.0.2", 80), both("172.17.0.3"));
        assert_eq!(ask_both(&here, "172.17.0.2", 80), both("172.17.0.1"));
    });
}

#[test]
fn containers_reach_the_lan_as_the_host() {
    in_new_netns(|| {
        let lan = lan();
        let (_, netns) = container(&lan.host.network, 1);
        serve(&lan.neighbour, "192.0.2.7", 80);
        serve(&lan.neighbour, "2001:db8::7", 80);
        assert_eq!(ask_both(&netns, "192.0.2.7", 80), both("192.0.2.1"));
        assert_eq!(ask_both(&netns, "2001:db8::7", 80), both("2001:db8::1"));
    });
}

#[test]
fn a_neighbour_reaches_only_what_is_published_for_it() {
    in_new_netns(|| {
        let mut lan = lan();
        let here = Netns::current();
        let (endpoint, web) = container(&lan.host.network, 1);
        let own6 = endpoint.ipv6.unwrap().addr().to_string();
        serve(&web, "0.0.0.0", 80);
        serve(&web, "0.0.0.0", 81);
        serve(&web, &own6, 80);
        publish(&lan.host, &endpoint, &requests(Some("127.0.0.1"), 8080, 80));
        publish(&lan.host, &endpoint, &requests(Some("::1"), 8080, 80));
        publish(&lan.host, &endpoint, &requests(None, 8081, 81));
        // A neighbour who knows the way.
        let subnet6 = lan.host.network.definition().ipv6().unwrap().0;
        lan.neighbour.enter(|| {
            ip("route add 172.17.0.0/16 via 192.0.2.1");
            ip(&format!("route add {subnet6} via 2001:db8::1"));
            ip("route add 127.0.0.0/8 via 192.0.2.1 table 9");
            ip("rule add to 127.0.0.1 table 9 pref 0");
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        });
        let attack = || {
            // (a) ports that are not published, (b) ports published on loopback, (c) the container's own address, even
            // for a port that is published.
            nobody(&lan.neighbour, "192.0.2.1", 80);
            nobody(&lan.neighbour, "192.0.2.1", 8080);
            nobody(&lan.neighbour, "127.0.0.1", 8080);
            nobody(&lan.neighbour, "2001:db8::1", 8080);
            nobody(&lan.neighbour, "172.17.0.2", 80);
            nobody(&lan.neighbour, "172.17.0.2", 81);
            nobody(&lan.neighbour, &own6, 80);
        };
        attack();
        // The attack works but for our rules: the port that is published is open, the way to the others leads there.
        assert_eq!(ask_both(&lan.neighbour, "192.0.2.1", 8081), both("192.0.2.7"));
        nft("flush ruleset");
        assert_eq!(ask_both(&lan.neighbour, "172.17.0.2", 80), both("192.0.2.7"));
        // Made again, they hold; only flows that began in between live on.
        lan.host.network.prepare().unwrap();
        attack();
        assert_eq!(ask_both(&here, "127.0.0.1", 8080), both("172.17.0.1"));
    });
}

#[test]
fn a_port_on_one_address_is_on_that_address_only() {
    in_new_netns(|| {
        let lan = lan();
        ip("addr add 192.0.2.2/24 dev lan");
        let (endpoint, web) = container(&lan.host.network, 1);
        serve(&web, "0.0.0.0", 80);
        publish(&lan.host, &endpoint, &requests(Some("192.0.2.2"), 8080, 80));
        assert_eq!(ask_both(&lan.neighbour, "192.0.2.2", 8080), both("192.0.2.7"));
        nobody(&lan.neighbour, "192.0.2.1", 8080);
    });
}

#[test]
fn ipv6_clients_reach_a_container_that_listens_on_ipv4_through_the_proxy() {
    in_new_netns(|| {
        let lan = lan();
        let here = Netns::current();
        let (endpoint, web) = container(&lan.host.network, 1);
        serve(&web, "0.0.0.0", 80);
        publish(&lan.host, &endpoint, &requests(None, 8080, 80));
        assert_eq!(ask_both(&here, "::1", 8080), both("172.17.0.1"));
    });
}

#[test]
fn udp_clients_that_never_pause_follow_the_port() {
    in_new_netns(|| {
        let lan = lan();
        let (first, one) = container(&lan.host.network, 1);
        let (second, two) = container(&lan.host.network, 2);
        let answering = |netns: &Netns, answer: &'static str| {
            let socket = netns.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap());
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(answer.as_bytes(), peer);
                }
            });
        };
        answering(&one, "1.1.1.1");
        answering(&two, "2.2.2.2");
        let client = lan.neighbour.enter(|| UdpSocket::bind("192.0.2.7:5000").unwrap());
        client.connect("192.0.2.1:53").unwrap();
        // The kernel remembers that this flow goes to the host itself.
        assert_eq!(ask_again(&client, NEVER), None);
        let port = [published(Protocol::Udp, "0.0.0.0", 53, 53)];
        lan.host.network.publish(&first, &port).unwrap();
        assert_eq!(ask_again(&client, PATIENCE), Some("1.1.1.1".parse().unwrap()));
        lan.host.network.unpublish(&id(1)).unwrap();
        assert_eq!(ask_again(&client, NEVER), None);
        lan.host.network.publish(&second, &port).unwrap();
        assert_eq!(ask_again(&client, PATIENCE), Some("2.2.2.2".parse().unwrap()));
        lan.host.network.reap(&|_| false).unwrap();
        assert_eq!(ask_again(&client, NEVER), None);
    });
}
