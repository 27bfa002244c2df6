//! The userland proxy: serves connections that reach the reserved sockets themselves.
//!
//! Most packets to a published port never come here: nftables leads them to the container. What is left is loopback
//! (which must not be routed), a container that asks the host, a host without our rules, and a family that the
//! container has not. One thread and one epoll(7) serve every port of a container; memory is bounded per connection;
//! running out of descriptors pauses accepting and ends nothing.

mod tcp;
mod udp;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::tcp::{Connection, Outcome, Side};
use self::udp::Session;
use crate::{Endpoint, Protocol, Published, Reserved};

/// How long accepting pauses when descriptors or memory run out, unless a connection ends before.
const PAUSE: Duration = Duration::from_millis(100);
/// How often idle UDP sessions are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How long a UDP session lives without a datagram in either direction (Docker's).
const UDP_IDLE: Duration = Duration::from_secs(90);
/// Sessions of all UDP ports together; the oldest ends for a new one.
const MOST_SESSIONS: usize = 4096;
/// New connections or datagrams taken from one socket before the others have their turn.
const FAIR_SHARE: usize = 64;
const EVENTS: usize = 256;
/// Holds the largest datagram.
const SCRATCH: usize = 64 * 1024;

/// Where a container is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
}

impl Targets {
    /// Those of an endpoint.
    pub fn of(endpoint: &Endpoint) -> Targets {
        Targets { addresses: endpoint.ips() }
    }

    /// The addresses to try for a published port: the family that the client used first.
    fn candidates(&self, published: &Published) -> Vec<SocketAddr> {
        let same = |address: &&IpAddr| address.is_ipv4() == published.host_address.is_ipv4();
        let (first, second): (Vec<&IpAddr>, Vec<&IpAddr>) = self.addresses.iter().partition(same);
        first.into_iter().chain(second).map(|address| SocketAddr::new(*address, published.container_port)).collect()
    }
}

/// Serves the reserved ports until the process is killed. Meant for a child process that has one thread and nothing
/// else to do; the caller sets its parent-death signal.
///
/// # Errors
/// Only when epoll(7) itself cannot be had.
pub fn run(reserved: Vec<Reserved>, targets: &Targets) -> io::Result<Infallible> {
    // A descriptor for each side of each connection: take as many as are allowed.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused, there are fewer connections at once, nothing else.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut proxy = Proxy::new(reserved, targets)?;
    loop {
        proxy.turn()?;
    }
}

/// What an event belongs to, in the 64 bits that epoll keeps for us. Numbers are never used twice, so an event that
/// was already fetched for something closed meanwhile finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Listener(u64),
    Client(u64),
    Backend(u64),
    Session(u64),
}

impl Token {
    fn pack(self) -> u64 {
        match self {
            Token::Listener(number) => number << 2,
            Token::Client(number) => number << 2 | 1,
            Token::Backend(number) => number << 2 | 2,
            Token::Session(number) => number << 2 | 3,
        }
    }

    fn unpack(packed: u64) -> Token {
        let number = packed >> 2;
        match packed & 3 {
            0 => Token::Listener(number),
            1 => Token::Client(number),
            2 => Token::Backend(number),
            _ => Token::Session(number),
        }
    }
}

/// One reserved port.
struct Port {
    socket: Socket,
    candidates: Vec<SocketAddr>,
}

enum Socket {
    Tcp(std::net::TcpListener),
    Udp(udp::Listener),
}

struct Proxy {
    epoll: Epoll,
    ports: Vec<Port>,
    connections: HashMap<u64, Connection>,
    sessions: BTreeMap<u64, Session>,
    next: u64,
    paused_until: Option<Instant>,
    next_sweep: Instant,
    scratch: Box<[u8]>,
}

impl Proxy {
    fn new(reserved: Vec<Reserved>, targets: &Targets) -> io::Result<Proxy> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut ports = Vec::with_capacity(reserved.len());
        for (Reserved { published, socket }, number) in reserved.into_iter().zip(0..) {
            let candidates = targets.candidates(&published);
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener(number).pack()))?;
            let socket = match published.protocol {
                Protocol::Tcp => Socket::Tcp(socket.into()),
                Protocol::Udp => Socket::Udp(udp::Listener::new(socket.into())),
            };
            ports.push(Port { socket, candidates });
        }
        Ok(Proxy {
            epoll,
            ports,
            connections: HashMap::new(),
            sessions: BTreeMap::new(),
            next: 0,
            paused_until: None,
            next_sweep: Instant::now() + SWEEP,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        })
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, self.timeout()) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            match Token::unpack(event.data()) {
                Token::Listener(number) => self.listener_is_ready(number),
                Token::Client(number) => self.connection_is_ready(number, Side::Client, event.events()),
                Token::Backend(number) => self.connection_is_ready(number, Side::Backend, event.events()),
                Token::Session(number) => self.session_is_ready(number),
            }
        }
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.resume();
        }
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            self.end_sessions(|session| session.idle(now) >= UDP_IDLE);
        }
        Ok(())
    }

    fn timeout(&self) -> EpollTimeout {
        let sweep = (!self.sessions.is_empty()).then_some(self.next_sweep);
        match [self.paused_until, sweep].into_iter().flatten().min() {
            None => EpollTimeout::NONE,
            // A millisecond more, so that the deadline has passed when the wait ends.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn listener_is_ready(&mut self, number: u64) {
        for _ in 0..FAIR_SHARE {
            let more = match self.ports.get(number as usize).map(|port| &port.socket) {
                Some(Socket::Tcp(listener)) => match listener.accept() {
                    Ok((client, _)) => self.connect(client, number),
                    Err(error) => self.accept_failed(&error),
                },
                Some(Socket::Udp(_)) => self.datagram(number),
                None => false,
            };
            if !more {
                break;
            }
        }
    }

    /// Whether to go on accepting.
    fn accept_failed(&mut self, error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => false,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                self.pause();
                false
            }
            // The client gave up before it was accepted, or the network lost it (accept(2)).
            _ => true,
        }
    }

    fn connect(&mut self, client: std::net::TcpStream, port: u64) -> bool {
        let number = self.number();
        let candidates = self.ports[port as usize].candidates.clone();
        let connection = match Connection::begin(client, candidates) {
            Ok(Some(connection)) => connection,
            Ok(None) => return true, // nobody listens in the container
            Err(_) => {
                // No descriptor for the container's side: the client sees its connection end.
                self.pause();
                return false;
            }
        };
        self.connections.insert(number, connection);
        self.update(number);
        true
    }

    fn connection_is_ready(&mut self, number: u64, side: Side, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        match connection.advance(side, events, &mut self.scratch) {
            Outcome::Open => self.update(number),
            Outcome::Done => {
                self.connections.remove(&number);
                self.resume();
            }
        }
    }

    /// Tells epoll what the connection waits for now.
    fn update(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if connection.watch(&self.epoll, Token::Client(number).pack(), Token::Backend(number).pack()).is_err() {
            // ENOMEM or the limit of watches (epoll_ctl(2)): a connection that cannot be watched cannot be served.
            self.connections.remove(&number);
        }
    }

    /// Takes one datagram; whether there may be more.
    fn datagram(&mut self, port: u64) -> bool {
        let entry = &mut self.ports[port as usize];
        let Socket::Udp(listener) = &mut entry.socket else {
            return false;
        };
        let (length, peer) = match listener.receive(&mut self.scratch) {
            Ok(Some(received)) => received,
            Ok(None) => return false,
            Err(_) => return true, // an earlier answer could not be delivered; not ours to say
        };
        let datagram = &self.scratch[..length];
        let number = match listener.sessions.get(&peer) {
            Some(number) => *number,
            None => self.next + 1,
        };
        let mut fresh = None;
        let session = match self.sessions.get_mut(&number) {
            Some(session) => {
                session.forward(datagram);
                session
            }
            None => match Session::begin(port, peer, entry.candidates.clone(), datagram) {
                Ok(session) => fresh.insert(session),
                Err(_) => return self.make_room(),
            },
        };
        if session.watch(&self.epoll, Token::Session(number).pack()).is_err() {
            return self.make_room();
        }
        if let Some(session) = fresh {
            listener.sessions.insert(peer, number);
            self.next = number;
            self.sessions.insert(number, session);
            if self.sessions.len() > MOST_SESSIONS {
                self.make_room();
            }
        }
        true
    }

    /// Ends the oldest session. The datagram that found no room is lost, as datagrams may be.
    fn make_room(&mut self) -> bool {
        if let Some(oldest) = self.sessions.keys().next().copied() {
            self.end_session(oldest);
        }
        true
    }

    fn session_is_ready(&mut self, number: u64) {
        for _ in 0..FAIR_SHARE {
            let Some(session) = self.sessions.get_mut(&number) else {
                return;
            };
            let Some(Port { socket: Socket::Udp(listener), .. }) = self.ports.get(session.port as usize) else {
                return;
            };
            let more = session.answer(listener, &mut self.scratch);
            if session.watch(&self.epoll, Token::Session(number).pack()).is_err() {
                return self.end_session(number);
            }
            if !more {
                return;
            }
        }
    }

    fn end_sessions(&mut self, ended: impl Fn(&Session) -> bool) {
        let ended: Vec<u64> =
            self.sessions.iter().filter(|(_, session)| ended(session)).map(|(number, _)| *number).collect();
        ended.into_iter().for_each(|number| self.end_session(number));
    }

    fn end_session(&mut self, number: u64) {
        if let Some(session) = self.sessions.remove(&number)
            && let Some(Port { socket: Socket::Udp(listener), .. }) = self.ports.get_mut(session.port as usize)
        {
            listener.sessions.remove(&session.peer);
        }
    }

    /// Stops looking at the TCP listeners: with level-triggered events, connections that cannot be accepted would keep
    /// the loop spinning.
    fn pause(&mut self) {
        if self.paused_until.replace(Instant::now() + PAUSE).is_none() {
            self.watch_listeners(EpollFlags::empty());
        }
    }

    fn resume(&mut self) {
        if self.paused_until.take().is_some() {
            self.watch_listeners(EpollFlags::EPOLLIN);
        }
    }

    fn watch_listeners(&mut self, flags: EpollFlags) {
        for (port, number) in self.ports.iter().zip(0..) {
            if let Socket::Tcp(listener) = &port.socket {
                let mut event = EpollEvent::new(flags, Token::Listener(number).pack());
                // The listener was added and is never removed, so there is nothing to fail (epoll_ctl(2)).
                let _ = self.epoll.modify(listener.as_fd(), &mut event);
            }
        }
    }
}

#[cfg(test)]
mod tests;
