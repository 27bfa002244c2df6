//! The proxy against real sockets on loopback of a network namespace of their own.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::{MOST_SESSIONS, PAUSE, Proxy, SWEEP, Targets, UDP_IDLE, run};
use crate::ports::{PortRequest, Protocol, reserve};
use crate::tests::lab::{in_new_netns, in_own_process};

const PATIENCE: Duration = Duration::from_secs(90);

fn request(protocol: Protocol, host: &str, host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        protocol,
        container_port,
        host_address: Some(host.parse().unwrap()),
        host_ports: (host_port > 0).then_some(host_port..=host_port),
    }
}

fn targets(addresses: &[&str]) -> Targets {
    Targets { addresses: addresses.iter().map(|address| address.parse().unwrap()).collect() }
}

/// Starts a proxy in a thread of the same namespace; it lives as long as the test process. Says which host port.
fn serve(request: PortRequest, targets: Targets) -> u16 {
    let reserved = reserve(&[request]).unwrap();
    let port = reserved[0].published.host_port;
    thread::spawn(move || run(reserved, &targets));
    port
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn each_direction_ends_by_itself() {
    in_new_netns(|| {
        let backend = TcpListener::bind("127.0.0.2:80").unwrap();
        let port = serve(request(Protocol::Tcp, "127.0.0.1", 0, 80), targets(&["127.0.0.2"]));
        let mut client = connect(port);
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut server, _) = backend.accept().unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        server.write_all(b"answer").unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn a_slow_reader_slows_its_writer_and_loses_nothing() {
    in_new_netns(|| {
        const SIZE: usize = 24 << 20;
        let backend = TcpListener::bind("127.0.0.2:80").unwrap();
        let port = serve(request(Protocol::Tcp, "127.0.0.1", 0, 80), targets(&["127.0.0.2"]));
        let mut client = connect(port);
        let (mut server, _) = backend.accept().unwrap();
        let writer = thread::spawn(move || {
            let block: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
            let mut sent = 0;
            while sent < SIZE {
                server.write_all(&block).unwrap();
                sent += block.len();
            }
        });
        // Nobody reads: the writer must come to a stand long before it is through.
        thread::sleep(Duration::from_millis(300));
        assert!(!writer.is_finished(), "{SIZE} bytes went into buffers");
        let (mut buffer, mut received) = (vec![0; 1 << 16], 0_usize);
        loop {
            let length = client.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            assert!(buffer[..length].iter().zip(received..).all(|(byte, at)| *byte == (at % 256) as u8));
            received += length;
        }
        assert_eq!(received, SIZE);
        writer.join().unwrap();
    });
}

#[test]
fn a_thousand_connections_at_once() {
    in_new_netns(|| {
        let backend = TcpListener::bind("127.0.0.2:80").unwrap();
        let port = serve(request(Protocol::Tcp, "127.0.0.1", 0, 80), targets(&["127.0.0.2"]));
        let server = thread::spawn(move || {
            let mut streams: Vec<TcpStream> = (0..1000).map(|_| backend.accept().unwrap().0).collect();
            for stream in &mut streams {
                let mut byte = [0; 4];
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(&byte).unwrap();
            }
        });
        let mut clients: Vec<TcpStream> = (0..1000).map(|_| connect(port)).collect();
        for (client, number) in clients.iter_mut().zip(0_u32..) {
            client.write_all(&number.to_be_bytes()).unwrap();
        }
        for (client, number) in clients.iter_mut().zip(0_u32..) {
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_be_bytes(answer), number);
        }
        server.join().unwrap();
    });
}

#[test]
fn a_refusal_leads_to_the_other_family_and_then_to_the_end() {
    in_new_netns(|| {
        let backend = TcpListener::bind("127.0.0.1:80").unwrap();
        let both = targets(&["127.0.0.1", "::1"]);
        let port = serve(request(Protocol::Tcp, "::1", 0, 80), both.clone());
        let mut client = TcpStream::connect(("::1", port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut server, _) = backend.accept().unwrap();
        server.write_all(b"v4").unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"v4");
        // Nobody on either address: the connection ends, the proxy does not.
        drop((backend, server));
        for _ in 0..2 {
            let mut refused = TcpStream::connect(("::1", port)).unwrap();
            refused.set_read_timeout(Some(PATIENCE)).unwrap();
            assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
        }
    });
}

#[test]
fn running_out_of_descriptors_ends_nothing() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    in_own_process("proxy::tests::running_out_of_descriptors_ends_nothing", || {
        let backend = TcpListener::bind("127.0.0.2:80").unwrap();
        let reserved = reserve(&[request(Protocol::Tcp, "127.0.0.1", 8080, 80)]).unwrap();
        let mut proxy = Proxy::new(reserved, &targets(&["127.0.0.2"])).unwrap();
        // Everything is one process here: clients, proxy and server share the few descriptors.
        let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, used + 8, hard).unwrap();
        let mut clients: Vec<TcpStream> = Vec::new();
        while let Ok(client) = TcpStream::connect("127.0.0.1:8080") {
            clients.push(client);
        }
        assert!(clients.len() >= 5);
        let begin = Instant::now();
        while begin.elapsed() < PAUSE * 3 {
            proxy.turn().unwrap();
            if proxy.paused_until.is_none() && begin.elapsed() > PAUSE {
                break;
            }
        }
        assert!(proxy.connections.is_empty(), "no descriptor was left for a connection");
        // Room again: a waiting client or a new one is served.
        drop(clients);
        setrlimit(Resource::RLIMIT_NOFILE, used + 64, hard).unwrap();
        let mut client = connect(8080);
        backend.set_nonblocking(true).unwrap();
        client.write_all(b"x").unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut served = false;
        while !served && Instant::now() < deadline {
            proxy.paused_until.get_or_insert(Instant::now());
            proxy.turn().unwrap();
            while let Ok((mut server, _)) = backend.accept() {
                server.set_nonblocking(false).unwrap();
                server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                proxy.paused_until.get_or_insert(Instant::now());
                proxy.turn().unwrap();
                let mut byte = [0; 1];
                served |= server.read(&mut byte).is_ok_and(|length| length == 1 && byte == *b"x");
            }
        }
        assert!(served);
    });
}

#[test]
fn datagrams_find_their_way_back() {
    in_new_netns(|| {
        let backend = UdpSocket::bind("127.0.0.2:53").unwrap();
        let mut wildcard = request(Protocol::Udp, "0.0.0.0", 5353, 53);
        wildcard.host_address = Some("0.0.0.0".parse().unwrap());
        let port = serve(wildcard, targets(&["127.0.0.2"]));
        let clients: Vec<UdpSocket> = (0..10)
            .map(|_| {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                // An address of the host that is not the first: the answer must come from it.
                client.connect(("127.0.0.3", port)).unwrap();
                client
            })
            .collect();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        for round in 0..3_u8 {
            for (client, number) in clients.iter().zip(0_u8..) {
                client.send(&[round, number]).unwrap();
            }
            for _ in &clients {
                let mut datagram = [0; 2];
                let (_, from) = backend.recv_from(&mut datagram).unwrap();
                backend.send_to(&[datagram[0], datagram[1], 7], from).unwrap();
            }
            for (client, number) in clients.iter().zip(0_u8..) {
                let mut answer = [0; 3];
                assert_eq!(client.recv(&mut answer).unwrap(), 3);
                assert_eq!(answer, [round, number, 7]);
            }
        }
    });
}

#[test]
fn a_datagram_refused_on_one_family_arrives_on_the_other() {
    in_new_netns(|| {
        let backend = UdpSocket::bind("127.0.0.1:53").unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = serve(request(Protocol::Udp, "::1", 5353, 53), targets(&["127.0.0.1", "::1"]));
        let client = UdpSocket::bind("[::1]:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(("::1", port)).unwrap();
        client.send(b"only once").unwrap();
        let mut datagram = [0; 16];
        let (length, from) = backend.recv_from(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"only once");
        backend.send_to(b"got it", from).unwrap();
        let length = client.recv(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"got it");
    });
}

#[test]
fn sessions_are_bounded_and_end_when_idle() {
    in_new_netns(|| {
        let _backend = UdpSocket::bind("127.0.0.2:53").unwrap();
        let reserved = reserve(&[request(Protocol::Udp, "127.0.0.1", 5353, 53)]).unwrap();
        let mut proxy = Proxy::new(reserved, &targets(&["127.0.0.2"])).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", "127.0.0.1:5353").unwrap();
        proxy.turn().unwrap();
        assert_eq!(proxy.sessions.len(), 1);
        // Not idle for long enough.
        proxy.next_sweep = Instant::now();
        proxy.turn().unwrap();
        assert_eq!(proxy.sessions.len(), 1);
        assert!(proxy.next_sweep > Instant::now() + SWEEP / 2);
        let later = Instant::now() + UDP_IDLE;
        proxy.end_sessions(|session| session.idle(later) >= UDP_IDLE);
        assert!(proxy.sessions.is_empty());
        let super::Socket::Udp(listener) = &proxy.ports[0].socket else { panic!("a UDP port") };
        assert!(listener.sessions.is_empty());
        // The same client begins anew.
        client.send_to(b"x", "127.0.0.1:5353").unwrap();
        proxy.turn().unwrap();
        assert_eq!(proxy.sessions.len(), 1);
        assert!(proxy.sessions.len() <= MOST_SESSIONS);
    });
}
