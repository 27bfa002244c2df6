//! One proxied TCP connection: two sockets and a pump for each direction.
//!
//! ```text
//! connecting ──▶ open ──▶ one direction ended (FIN passed on, the other goes on) ──▶ done
//!      └─ refused: next address of the container, or done
//! ```
//!
//! A pump reads into the one scratch buffer of the process and writes at once. What the other side does not take is
//! kept, at most one buffer full, and nothing more is read until it has gone: so an idle connection costs no memory and
//! a slow reader slows its writer.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};

/// Buffers full moved in one direction before other connections have their turn.
const FAIR_SHARE: usize = 8;

/// Which end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Done,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Read and not yet written.
    pending: Vec<u8>,
    /// How much of `pending` has been written.
    written: usize,
    /// The source has sent its last byte, and the destination has been told.
    ended: bool,
}

pub(super) struct Connection {
    client: TcpStream,
    backend: TcpStream,
    connected: bool,
    /// Addresses to try when this one refuses.
    candidates: std::vec::IntoIter<SocketAddr>,
    upstream: Flow,
    downstream: Flow,
    /// What epoll was told; `None` when the socket is not watched at all.
    client_watch: Option<EpollFlags>,
    backend_watch: Option<EpollFlags>,
}

impl Connection {
    /// Begins to connect to the first address that does not refuse at once; `None` when all do.
    pub(super) fn begin(client: TcpStream, candidates: Vec<SocketAddr>) -> io::Result<Option<Connection>> {
        client.set_nonblocking(true)?;
        prepare(&client)?;
        let mut candidates = candidates.into_iter();
        let Some(backend) = dial(&mut candidates)? else {
            return Ok(None);
        };
        Ok(Some(Connection {
            client,
            backend,
            connected: false,
            candidates,
            upstream: Flow::default(),
            downstream: Flow::default(),
            client_watch: None,
            backend_watch: None,
        }))
    }

    /// Does what an event makes possible.
    pub(super) fn advance(&mut self, side: Side, events: EpollFlags, scratch: &mut [u8]) -> Outcome {
        if !self.connected {
            if side == Side::Backend {
                return self.finish_connecting(scratch);
            }
            return Outcome::Open;
        }
        // An error, or both directions closed by the peer, leaves nothing to wait for on that side; the pumps find out
        // what is still to be read.
        let broken = events.contains(EpollFlags::EPOLLERR);
        let moved = pump(&self.client, &self.backend, &mut self.upstream, scratch)
            .and_then(|()| pump(&self.backend, &self.client, &mut self.downstream, scratch));
        if moved.is_err() || broken || (self.upstream.ended && self.downstream.ended) {
            return Outcome::Done;
        }
        Outcome::Open
    }

    fn finish_connecting(&mut self, scratch: &mut [u8]) -> Outcome {
        match self.backend.take_error() {
            // A wake-up before the handshake is over has no peer yet.
            Ok(None) if self.backend.peer_addr().is_err() => Outcome::Open,
            Ok(None) => {
                self.connected = true;
                self.advance(Side::Client, EpollFlags::empty(), scratch)
            }
            _ => match dial(&mut self.candidates) {
                Ok(Some(backend)) => {
                    // Closing the old socket takes it out of epoll.
                    self.backend = backend;
                    self.backend_watch = None;
                    Outcome::Open
                }
                _ => Outcome::Done,
            },
        }
    }

    /// Tells epoll what each side waits for. A side that waits for nothing is taken out: epoll reports hang-ups of
    /// everything it watches, over and over.
    pub(super) fn watch(&mut self, epoll: &Epoll, client: u64, backend: u64) -> io::Result<()> {
        let (client_wants, backend_wants) = if self.connected {
            (interest(&self.upstream, &self.downstream), interest(&self.downstream, &self.upstream))
        } else {
            (EpollFlags::empty(), EpollFlags::EPOLLOUT)
        };
        watch(epoll, &self.client, &mut self.client_watch, client_wants, client)?;
        watch(epoll, &self.backend, &mut self.backend_watch, backend_wants, backend)
    }
}

/// What a socket waits for, being the source of one flow and the destination of another.
fn interest(source: &Flow, destination: &Flow) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, source.pending.is_empty() && !source.ended);
    flags.set(EpollFlags::EPOLLOUT, !destination.pending.is_empty());
    flags
}

fn watch(
    epoll: &Epoll,
    socket: &TcpStream,
    current: &mut Option<EpollFlags>,
    wanted: EpollFlags,
    token: u64,
) -> io::Result<()> {
    let mut event = EpollEvent::new(wanted, token);
    match *current {
        Some(flags) if flags == wanted => return Ok(()),
        None if wanted.is_empty() => return Ok(()),
        Some(_) if wanted.is_empty() => epoll.delete(socket.as_fd())?,
        Some(_) => epoll.modify(socket.as_fd(), &mut event)?,
        None => epoll.add(socket.as_fd(), event)?,
    }
    *current = (!wanted.is_empty()).then_some(wanted);
    Ok(())
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // The proxy sends what it gets when it gets it; waiting for more would add a delay nobody asked for.
    socket.set_nodelay(true)?;
    // A peer that vanished must not hold two descriptors for ever.
    Ok(setsockopt(&socket, sockopt::KeepAlive, &true)?)
}

/// Begins to connect to the next address; an error is one of this process (no descriptors), not of the address.
fn dial(candidates: &mut std::vec::IntoIter<SocketAddr>) -> io::Result<Option<TcpStream>> {
    for address in candidates {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = match socket::socket(family, SockType::Stream, flags, None) {
            Err(Errno::EAFNOSUPPORT) => continue,
            other => other?,
        };
        match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {
                let socket = TcpStream::from(socket);
                prepare(&socket)?;
                return Ok(Some(socket));
            }
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Moves what can be moved. An error means that the connection is beyond use.
fn pump(mut from: &TcpStream, mut to: &TcpStream, flow: &mut Flow, scratch: &mut [u8]) -> io::Result<()> {
    for _ in 0..FAIR_SHARE {
        if !flow.pending.is_empty() {
            flow.written += write(&mut to, &flow.pending[flow.written..])?;
            if flow.written < flow.pending.len() {
                return Ok(());
            }
            // Given back, not kept: most connections never need it again.
            flow.pending = Vec::new();
            flow.written = 0;
        }
        if flow.ended {
            return Ok(());
        }
        match from.read(scratch) {
            // At once, in whichever turn it comes: a flow that has ended waits for nothing that would bring us back.
            Ok(0) => {
                flow.ended = true;
                return to.shutdown(Shutdown::Write);
            }
            Ok(length) => {
                let sent = write(&mut to, &scratch[..length])?;
                flow.pending.extend_from_slice(&scratch[sent..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes as much as the socket takes.
fn write(to: &mut &TcpStream, mut bytes: &[u8]) -> io::Result<usize> {
    let whole = bytes.len();
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole - bytes.len())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::tests::lab::in_new_netns;

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn the_end_is_passed_on_in_whichever_turn_it_comes() {
        in_new_netns(|| {
            for buffers in 0..=2 * FAIR_SHARE {
                let (mut sender, from) = connected();
                let (to, mut receiver) = connected();
                let mut scratch = [0; 512];
                sender.write_all(&vec![7; buffers * scratch.len()]).unwrap();
                drop(sender);
                let mut flow = Flow::default();
                while interest(&flow, &Flow::default()).contains(EpollFlags::EPOLLIN) {
                    pump(&from, &to, &mut flow, &mut scratch).unwrap();
                }
                receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
                let mut received = Vec::new();
                receiver.read_to_end(&mut received).unwrap();
                assert_eq!(received.len(), buffers * scratch.len());
            }
        });
    }
}
