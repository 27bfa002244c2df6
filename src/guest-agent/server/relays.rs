//! Unix sockets in binds whose server is on the host: every connection is passed on to a port there.
//!
//! Each direction ends by itself (half-close), and each side that is slow slows the other down: at most one chunk of bytes
//! is on its way in each direction.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::PollFlags;

use super::streams::CHUNK;
use crate::furnish::ForwardedSocket;
use crate::wire::{Socket, Wire};

/// Connections that are passed on at the same time; more wait to be accepted.
const RELAY_LIMIT: usize = 4096;

/// Listening sockets and the connections through them.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    sockets: BTreeMap<String, (u64, ForwardedSocket)>,
    relays: BTreeMap<u64, Relay>,
    counter: u64,
}

/// What a descriptor of these is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RelayToken {
    Listener(u64),
    Near(u64),
    Far(u64),
}

impl Relays {
    /// Passes connections of a socket on from now; one at the same path was replaced.
    pub(crate) fn add(&mut self, socket: ForwardedSocket) {
        self.counter += 1;
        self.sockets.insert(socket.path.clone(), (self.counter, socket));
    }

    /// Lets go of the sockets below a directory; connections through them go on.
    pub(crate) fn remove_below(&mut self, directory: &str) {
        let below = |path: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        self.sockets.retain(|path, _| !below(path));
    }

    /// Tells `add` every descriptor and what is waited for on it.
    pub(crate) fn interests<'a>(&'a self, mut add: impl FnMut(RelayToken, BorrowedFd<'a>, PollFlags)) {
        if self.relays.len() < RELAY_LIMIT {
            for (id, socket) in self.sockets.values() {
                add(RelayToken::Listener(*id), socket.listener.as_fd(), PollFlags::POLLIN);
            }
        }
        for (id, relay) in &self.relays {
            let (near, far) = relay.interests();
            // A side of which nothing is wanted would only tell of its end, again and again.
            if !near.is_empty() {
                add(RelayToken::Near(*id), relay.near.as_fd(), near);
            }
            if !far.is_empty() {
                add(RelayToken::Far(*id), relay.far.as_fd(), far);
            }
        }
    }

    pub(crate) fn handle(&mut self, token: RelayToken, flags: PollFlags, wire: &dyn Wire, buffer: &mut [u8]) {
        match token {
            RelayToken::Listener(id) => self.accept(id, wire),
            RelayToken::Near(id) | RelayToken::Far(id) => {
                let lives = self.relays.get_mut(&id).is_none_or(|relay| relay.step(token, flags, buffer));
                if !lives {
                    self.relays.remove(&id);
                }
            }
        }
    }

    fn accept(&mut self, id: u64, wire: &dyn Wire) {
        let Some((_, socket)) = self.sockets.values().find(|(key, _)| *key == id) else { return };
        while self.relays.len() < RELAY_LIMIT {
            let Ok(Some(near)) = Socket::accept(socket.listener.as_fd()) else { return };
            // A host that does not answer is a server that does not: the connection ends.
            if let Ok(far) = wire.dial(socket.port) {
                self.counter += 1;
                self.relays.insert(self.counter, Relay::new(near, far));
            }
        }
    }
}

/// One connection: the program's side is near, the host's is far.
#[derive(Debug)]
struct Relay {
    near: Socket,
    far: Socket,
    /// The far side has answered.
    connected: bool,
    outward: Direction,
    inward: Direction,
}

/// Bytes on their way from one side to the other.
#[derive(Debug, Default)]
struct Direction {
    bytes: Vec<u8>,
    /// The source has ended.
    ended: bool,
    /// The target has been told, or takes nothing more.
    closed: bool,
}

impl Direction {
    fn wants(&self) -> bool {
        self.bytes.is_empty() && !self.ended && !self.closed
    }

    /// Reads from the source and sends to the target what either allows; `false` when the target has failed.
    fn advance(&mut self, source: &Socket, target: &Socket, buffer: &mut [u8]) -> bool {
        if self.wants() {
            match source.receive(&mut buffer[..CHUNK]) {
                None => {}
                Some(0) => self.ended = true,
                Some(count) => self.bytes.extend_from_slice(&buffer[..count]),
            }
        }
        match target.send(&self.bytes) {
            Ok(sent) => drop(self.bytes.drain(..sent)),
            Err(_) => return false,
        }
        if self.ended && self.bytes.is_empty() && !self.closed {
            self.closed = true;
            target.end_sending();
        }
        true
    }
}

impl Relay {
    fn new(near: Socket, far: Socket) -> Self {
        Self { near, far, connected: false, outward: Direction::default(), inward: Direction::default() }
    }

    fn interests(&self) -> (PollFlags, PollFlags) {
        let (mut near, mut far) = (PollFlags::empty(), PollFlags::empty());
        if !self.connected {
            return (near, PollFlags::POLLOUT);
        }
        near.set(PollFlags::POLLIN, self.outward.wants());
        near.set(PollFlags::POLLOUT, !self.inward.bytes.is_empty());
        far.set(PollFlags::POLLIN, self.inward.wants());
        far.set(PollFlags::POLLOUT, !self.outward.bytes.is_empty());
        (near, far)
    }

    /// Does what can be done now; `false` when the connection is over.
    fn step(&mut self, token: RelayToken, flags: PollFlags, buffer: &mut [u8]) -> bool {
        if !self.connected {
            self.connected = self.far.error().is_none();
            return self.connected;
        }
        let failed = flags.contains(PollFlags::POLLERR) && matches!(token, RelayToken::Far(_));
        if failed && self.far.error().is_some() {
            return false;
        }
        let out = self.outward.advance(&self.near, &self.far, buffer);
        let back = self.inward.advance(&self.far, &self.near, buffer);
        out && back && !(self.outward.closed && self.inward.closed)
    }
}
