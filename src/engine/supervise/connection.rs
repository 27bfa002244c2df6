//! A connection to the supervisor's socket: first a stranger, then either a control connection or somebody's stream.
//!
//! Nothing here waits: bytes are taken as they come and sent as they fit.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use sbx_protocol::{ContainerEvent, Decoder, FrameError, Hello, Reply, Request, VERSION, write_frame};

use crate::sys;

/// Replies that nobody reads are kept up to this many bytes; then the connection is dropped.
const BACKLOG_LIMIT: usize = 4 << 20;

/// One connection that is not a stream (yet).
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    /// Descriptors that have come with what was said, for the request at hand.
    files: Vec<OwnedFd>,
    unsent: Vec<u8>,
    /// Greeted, and not for a stream.
    pub(crate) is_control: bool,
    /// A request is being worked on; further ones wait.
    pub(crate) busy: bool,
    /// It started the container or stands at streams: it will ask how that ends.
    pub(crate) is_interested: bool,
    /// It has been told that everything is gone, or how the container ended.
    pub(crate) was_told: bool,
}

/// What a connection has to say.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Nothing (more) for now.
    Nothing,
    /// Its greeting.
    Hello(Hello),
    /// A request.
    Request(Box<Request>),
    /// It has gone or talks nonsense.
    End,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            decoder: Decoder::default(),
            files: Vec::new(),
            unsent: Vec::new(),
            is_control: false,
            busy: false,
            is_interested: false,
            was_told: false,
        })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes what has arrived; `false` at the end.
    pub(crate) fn fill(&mut self) -> bool {
        let mut buffer = [0u8; 16 << 10];
        match sys::receive_with(self.socket.as_fd(), &mut buffer, &mut self.files) {
            Ok(0) => false,
            Ok(count) => {
                self.decoder.push(&buffer[..count]);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// The next message that has arrived whole.
    pub(crate) fn hear(&mut self) -> Heard {
        if self.busy {
            return Heard::Nothing;
        }
        let heard = if self.is_control {
            self.decoder.next_message().map(|message| message.map(|request| Heard::Request(Box::new(request))))
        } else {
            self.decoder.next_message().map(|message| message.map(Heard::Hello))
        };
        match heard {
            Ok(Some(Heard::Hello(hello))) if hello.version != VERSION => Heard::End,
            Ok(message) => message.unwrap_or(Heard::Nothing),
            Err(_) => Heard::End,
        }
    }

    /// The descriptors that came with the request at hand.
    pub(crate) fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.files)
    }

    /// Answers the request at hand; `false` when the connection is of no use any more.
    pub(crate) fn answer(&mut self, reply: &Reply) -> bool {
        self.busy = false;
        // Those that no request has asked for.
        self.files.clear();
        self.was_told |= matches!(reply, Reply::Event(ContainerEvent::Gone { .. }));
        let queued: Result<(), FrameError> = write_frame(&mut self.unsent, reply);
        queued.is_ok() && self.unsent.len() <= BACKLOG_LIMIT && self.flush()
    }

    /// Sends what fits; `false` when nobody takes it any more.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match (&self.socket).write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Becomes a stream: the socket, and bytes that came behind the greeting.
    pub(crate) fn into_stream(self) -> (UnixStream, Vec<u8>) {
        (self.socket, self.decoder.into_rest())
    }

    /// Sends what is left, waiting at most a moment; for the end of the supervisor.
    pub(crate) fn send_last(mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let moment = Some(std::time::Duration::from_millis(500));
        if self.socket.set_nonblocking(false).is_ok() && self.socket.set_write_timeout(moment).is_ok() {
            // A client that does not listen any more misses only a farewell.
            let _ = self.socket.write_all(&self.unsent);
            self.unsent.clear();
        }
    }
}
