//! The standard streams of the processes, and who stands at them.
//!
//! Output of a process goes to every session that wants it and, for the first process, to the log. A process's output is
//! read only while every session has room ([`QUEUE_LIMIT`]): whoever is slow slows the process down, and nothing is
//! buffered without a bound. When the process has ended, its last bytes wait for whoever is slow ([`LAST_LIMIT`]).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use sbx_container::files::Task;
use sbx_container::plan::ProcessPlan;
use sbx_protocol::{SessionId, StreamKind};

/// Bytes moved at once.
pub(crate) const CHUNK: usize = 64 << 10;
/// Bytes that a slow client may be behind before the process has to wait.
pub(crate) const QUEUE_LIMIT: usize = 256 << 10;
/// The same when the process has ended: more than all pipes and sockets on the way hold.
pub(crate) const LAST_LIMIT: usize = 8 << 20;

/// A client's stay at a process's streams.
#[derive(Debug)]
pub(crate) struct Session {
    /// The process.
    pub(crate) process: u64,
    /// Streams that have been connected.
    pub(crate) streams: BTreeMap<StreamKind, Stream>,
    /// Output flows.
    pub(crate) ready: bool,
    /// What starts when the session is ready.
    pub(crate) pending: Option<Pending>,
    /// The control connection that opened it.
    pub(crate) owner: u64,
}

impl Session {
    pub(crate) fn new(process: u64, owner: u64) -> Self {
        Self { process, streams: BTreeMap::new(), ready: false, pending: None, owner }
    }
}

/// A process that has been asked for.
#[derive(Debug)]
pub(crate) enum Pending {
    /// One of the container.
    Exec(Box<ProcessPlan>),
    /// One at the container's files.
    Files(Box<Task>),
}

/// One connected stream of a session.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    queue: Vec<u8>,
    /// Nothing more will be sent once the queue is empty.
    ending: bool,
    /// The client's direction has ended.
    pub(crate) read_ended: bool,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, queue: Vec::new(), ending: false, read_ended: false }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Bytes that the client has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends output to the client; `false` when it has gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.queue.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what fits; `false` when the client has gone or everything has been said.
    pub(crate) fn flush(&mut self) -> bool {
        let mut sent = 0;
        let alive = loop {
            if sent == self.queue.len() {
                break true;
            }
            match (&self.socket).write(&self.queue[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.queue.drain(..sent);
        if self.ending && self.queue.is_empty() {
            // A client that is gone already cannot be told.
            let _ = self.socket.shutdown(Shutdown::Write);
            return false;
        }
        alive
    }

    /// No more output follows. `false` when everything has been said already.
    pub(crate) fn end(&mut self) -> bool {
        self.ending = true;
        self.flush()
    }

    /// Input from the client: bytes, `Some(0)` bytes at its end, `None` when there is none now.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match (&self.socket).read(buffer) {
            Ok(count) => Some(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            Err(_) => Some(0),
        }
    }
}

/// The supervisor's ends of a process's streams.
#[derive(Debug)]
pub(crate) struct Ends {
    stdin: Option<OwnedFd>,
    outputs: BTreeMap<StreamKind, OwnedFd>,
    terminal: bool,
    /// Input on its way to the process.
    input: Vec<u8>,
    /// The process's input ends when `input` is empty.
    input_ending: bool,
}

impl Ends {
    pub(crate) fn new(stdin: Option<OwnedFd>, outputs: BTreeMap<StreamKind, OwnedFd>, terminal: bool) -> Self {
        Self { stdin, outputs, terminal, input: Vec::new(), input_ending: false }
    }

    /// Outputs that have not ended.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (StreamKind, BorrowedFd<'_>)> {
        self.outputs.iter().map(|(kind, fd)| (*kind, fd.as_fd()))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Gives up on what has not ended.
    pub(crate) fn abandon(&mut self) {
        self.outputs.clear();
        self.stdin = None;
    }

    /// Input that the process has not taken yet has a place to go.
    pub(crate) fn input_waiting(&self) -> Option<BorrowedFd<'_>> {
        if self.input.is_empty() { None } else { self.stdin.as_ref().map(AsFd::as_fd) }
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.stdin.is_some() && self.input.len() < CHUNK && !self.input_ending
    }

    /// Reads output: bytes, `Some(0)` at its end (which is remembered), `None` when there is none now.
    pub(crate) fn read(&mut self, kind: StreamKind, buffer: &mut [u8]) -> Option<usize> {
        let fd = self.outputs.get(&kind)?;
        match nix::unistd::read(fd, buffer) {
            Ok(0) => {}
            Ok(count) => return Some(count),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return None,
            // A terminal whose other end has been closed by everybody says EIO.
            Err(_) => {}
        }
        self.outputs.remove(&kind);
        Some(0)
    }

    /// Passes input on.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() {
            self.input.extend_from_slice(bytes);
            self.flush_input();
        }
    }

    /// The client's input has ended.
    pub(crate) fn end_input(&mut self) {
        if self.terminal {
            return;
        }
        self.input_ending = true;
        self.flush_input();
    }

    pub(crate) fn flush_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let mut taken = 0;
        while taken < self.input.len() {
            match nix::unistd::write(stdin, &self.input[taken..]) {
                Ok(count) => taken += count,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => break,
                Err(_) => {
                    // The process has closed its input.
                    taken = self.input.len();
                    self.input_ending = !self.terminal;
                }
            }
        }
        self.input.drain(..taken);
        if self.input_ending && self.input.is_empty() {
            self.stdin = None;
        }
    }
}

/// The next session id.
pub(crate) fn session_id(counter: &mut u64) -> SessionId {
    *counter += 1;
    SessionId(*counter)
}
