//! The standard streams of the processes, and who stands at them.
//!
//! Each stream of a session is a connection of its own. Output of a process goes to every session that wants it, and is read
//! only while all of them have room ([`Stream::is_full`]): whoever is slow slows the process down, and nothing is buffered
//! without a bound. What nobody wants is read and dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use sbx_container::ProcessIo;
use sbx_container::files::Task;
use sbx_container::plan::ProcessPlan;
use sbx_protocol::{SessionId, StreamKind};

use crate::wire::Socket;

/// Bytes moved at once.
pub(crate) const CHUNK: usize = 64 << 10;
/// Bytes that a slow reader may be behind before the process has to wait.
const QUEUE_LIMIT: usize = 256 << 10;

/// Somebody's stay at a process's streams.
#[derive(Debug)]
pub(crate) struct Session {
    /// The process.
    pub(crate) process: u64,
    /// Streams that are connected.
    pub(crate) streams: BTreeMap<StreamKind, Stream>,
    /// Streams that will be connected before output flows.
    pub(crate) awaited: BTreeSet<StreamKind>,
    /// Output flows.
    pub(crate) ready: bool,
    /// The process's input ends with the session's.
    pub(crate) ends_input: bool,
    /// A process that starts when the session is ready.
    pub(crate) pending: Option<Pending>,
    /// The control connection that opened it.
    pub(crate) owner: u64,
}

/// A further process of a container, not yet started.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) container: String,
    pub(crate) work: Work,
}

/// What a further process does.
#[derive(Debug)]
pub(crate) enum Work {
    /// Runs a program of the container.
    Program(Box<ProcessPlan>),
    /// Something with the container's files.
    Files(Box<Task>),
}

/// One connected stream of a session.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    /// Bytes that came right behind the greeting.
    early: Vec<u8>,
    queue: Vec<u8>,
    /// Nothing more will be sent once the queue is empty.
    ending: bool,
    /// The other side's direction has ended.
    pub(crate) read_ended: bool,
}

impl Stream {
    pub(crate) fn new(socket: Socket, early: Vec<u8>) -> Self {
        Self { socket, early, queue: Vec::new(), ending: false, read_ended: false }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_LIMIT
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes wait that no poll(2) will tell of.
    pub(crate) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Sends output; `false` when nobody takes it any more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        if self.queue.is_empty() {
            match self.socket.send(bytes) {
                Ok(sent) => rest = &bytes[sent..],
                Err(_) => return false,
            }
        }
        self.queue.extend_from_slice(rest);
        true
    }

    /// Sends what fits; `false` when nobody takes it any more or everything has been said.
    pub(crate) fn flush(&mut self) -> bool {
        match self.socket.send(&self.queue) {
            Ok(sent) => drop(self.queue.drain(..sent)),
            Err(_) => return false,
        }
        if self.ending && self.queue.is_empty() {
            self.socket.end_sending();
            return false;
        }
        true
    }

    /// No more output follows. `false` when everything has been said already.
    pub(crate) fn end(&mut self) -> bool {
        self.ending = true;
        self.flush()
    }

    /// Input: bytes, `Some(0)` bytes at its end, `None` when there is none now.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.early.is_empty() {
            return self.socket.receive(buffer);
        }
        let count = self.early.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.early[..count]);
        self.early.drain(..count);
        Some(count)
    }
}

/// The agent's ends of a process's streams.
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
    pub(crate) fn new(io: ProcessIo) -> io::Result<Self> {
        let (stdin, outputs, terminal) = match io {
            ProcessIo::Pipes { stdin, stdout, stderr } => {
                let outputs = BTreeMap::from([(StreamKind::Stdout, stdout), (StreamKind::Stderr, stderr)]);
                (stdin, outputs, false)
            }
            ProcessIo::Terminal(master) => {
                let output = master.try_clone()?;
                (Some(master), BTreeMap::from([(StreamKind::Stdout, output)]), true)
            }
        };
        for fd in stdin.iter().chain(outputs.values()) {
            let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | (flags & OFlag::O_ACCMODE)))?;
        }
        Ok(Self { stdin, outputs, terminal, input: Vec::new(), input_ending: false })
    }

    /// Outputs that have not ended.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (StreamKind, BorrowedFd<'_>)> {
        self.outputs.iter().map(|(kind, fd)| (*kind, fd.as_fd()))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Input that the process has not taken yet has a place to go.
    pub(crate) fn input_waiting(&self) -> Option<BorrowedFd<'_>> {
        if self.input.is_empty() { None } else { self.stdin.as_ref().map(AsFd::as_fd) }
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.stdin.is_some() && self.input.len() < CHUNK && !self.input_ending
    }

    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        if self.terminal { self.stdin.as_ref().map(AsFd::as_fd) } else { None }
    }

    /// Reads output: bytes, `Some(0)` at its end (which is remembered), `None` when there is none now.
    pub(crate) fn read(&mut self, kind: StreamKind, buffer: &mut [u8]) -> Option<usize> {
        let fd = self.outputs.get(&kind)?;
        match nix::unistd::read(fd, buffer) {
            Ok(0) => {}
            Ok(count) => return Some(count),
            Err(Errno::EAGAIN | Errno::EINTR) => return None,
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

    /// The session's input has ended. That of a terminal never does: its user says so by a character.
    pub(crate) fn end_input(&mut self) {
        if !self.terminal {
            self.input_ending = true;
            self.flush_input();
        }
    }

    pub(crate) fn flush_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let mut taken = 0;
        while taken < self.input.len() {
            match nix::unistd::write(stdin, &self.input[taken..]) {
                Ok(count) => taken += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
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
