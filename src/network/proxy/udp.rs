//! Proxied UDP: a session for each client, with a socket of its own towards the container, so that answers find back.
//!
//! A socket that is bound to every address of the host does not say which one a client wrote to, yet the answer must
//! come from there; so the address is read with every datagram and given with every answer (ip(7), IP_PKTINFO).

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};

/// First datagrams up to this length are kept until the container answers, in case it listens on its other address.
const LONGEST_KEPT: usize = 2048;

/// A client, and the address of the host that it wrote to.
pub(super) type Peer = (SocketAddr, IpAddr);

/// The socket that clients write to.
pub(super) struct Listener {
    socket: UdpSocket,
    pub(super) sessions: HashMap<Peer, u64>,
}

impl Listener {
    /// Takes a socket that [`crate::ports::reserve`] has told to note where datagrams were sent to.
    pub(super) fn new(socket: UdpSocket) -> Listener {
        Listener { socket, sessions: HashMap::new() }
    }

    /// One datagram; `None` when there is none.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Peer)>> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = match recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        ) {
            Err(Errno::EAGAIN) => return Ok(None),
            other => other?,
        };
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
            _ => None,
        });
        let client = message.address.and_then(socket_address);
        match (client, local) {
            (Some(client), Some(local)) => Ok(Some((message.bytes, (client, local)))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends an answer from the address that the client wrote to. One that cannot be sent is lost.
    fn send(&self, bytes: &[u8], (client, local): Peer) {
        let parts = [IoSlice::new(bytes)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let to = SockaddrStorage::from(client);
        let _ = match local {
            IpAddr::V4(local) => {
                let address = libc::in_addr { s_addr: u32::from(local).to_be() };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
            }
            IpAddr::V6(local) => {
                let address = libc::in6_addr { s6_addr: local.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
            }
        };
    }
}

fn socket_address(address: SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*address).into()));
    }
    address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into()))
}

/// One client's datagrams.
pub(super) struct Session {
    /// Number of the port.
    pub(super) port: u64,
    pub(super) peer: Peer,
    backend: UdpSocket,
    /// Addresses of the container, the one in use first.
    candidates: Vec<SocketAddr>,
    /// The first datagram, until it is answered.
    first: Option<Vec<u8>>,
    last: Instant,
    /// Whether epoll knows the socket.
    watched: bool,
}

impl Session {
    /// Begins with a client's first datagram.
    pub(super) fn begin(port: u64, peer: Peer, candidates: Vec<SocketAddr>, datagram: &[u8]) -> io::Result<Session> {
        let target = *candidates.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let backend = dial(target)?;
        let first = (candidates.len() > 1 && datagram.len() <= LONGEST_KEPT).then(|| datagram.to_vec());
        let mut session = Session { port, peer, backend, candidates, first, last: Instant::now(), watched: false };
        session.forward(datagram);
        Ok(session)
    }

    /// How long nothing was sent in either direction.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }

    /// Sends a client's datagram on. One that cannot be sent is lost.
    pub(super) fn forward(&mut self, datagram: &[u8]) {
        self.last = Instant::now();
        // The refusal of an earlier datagram is reported by the next call, which then sends nothing.
        if self.backend.send(datagram).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.turn_elsewhere();
            let _ = self.backend.send(datagram);
        }
    }

    /// Passes one answer on; whether there may be more.
    pub(super) fn answer(&mut self, listener: &Listener, buffer: &mut [u8]) -> bool {
        match self.backend.recv(buffer) {
            Ok(length) => {
                self.last = Instant::now();
                self.first = None;
                listener.send(&buffer[..length], self.peer);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.turn_elsewhere();
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// The container does not listen there: tries its next address, with the first datagram if that is unanswered.
    fn turn_elsewhere(&mut self) {
        if self.candidates.len() < 2 {
            return;
        }
        self.candidates.rotate_left(1);
        let Ok(backend) = dial(self.candidates[0]) else {
            return;
        };
        if let Some(first) = self.first.take() {
            let _ = backend.send(&first); // lost, as datagrams may be
        }
        // Closing the old socket takes it out of epoll.
        self.backend = backend;
        self.watched = false;
    }

    /// Has epoll report answers, unless it does already.
    pub(super) fn watch(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        if !self.watched {
            epoll.add(&self.backend, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            self.watched = true;
        }
        Ok(())
    }
}

/// A socket that sends to one address and hears of refusals.
fn dial(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    Ok(socket)
}
