//! A connection: first a stranger, then either a control connection or somebody's stream.
//!
//! Nothing here waits: bytes are taken as they come and sent as they fit. What a connection says is a whole message or
//! nothing, so one that stops making sense can be closed at any point: no request is left half done.

use std::os::fd::{AsFd, BorrowedFd};

use sbx_protocol::{Decoder, FrameError, Hello, MAX_FRAME, Reply, Request, VERSION, write_frame};

use super::streams::CHUNK;
use crate::containers::other;
use crate::wire::Socket;

/// Replies that nobody reads are kept up to this many bytes; then the connection is dropped.
const BACKLOG_LIMIT: usize = 4 << 20;
/// A stranger may say no more than this: its greeting and the first bytes of a stream.
const STRANGER_LIMIT: usize = 2 * CHUNK;

/// One connection that is not a stream (yet).
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    decoder: Decoder,
    unsent: Vec<u8>,
    is_control: bool,
    /// A request is being worked on; further ones wait.
    pub(crate) busy: bool,
    /// Only what is unsent is still of interest.
    closing: bool,
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
    /// Something that makes no sense; why.
    Nonsense(String),
}

impl Connection {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, decoder: Decoder::default(), unsent: Vec::new(), is_control: false, busy: false, closing: false }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// There is room for what it has to say. While it waits for an answer no more than one further request is taken.
    pub(crate) fn wants_input(&self) -> bool {
        let limit = if self.is_control { MAX_FRAME } else { STRANGER_LIMIT };
        !self.closing && self.decoder.pending() < limit
    }

    /// It is known what the connection is for, and that is requests.
    pub(crate) fn become_control(&mut self) {
        self.is_control = true;
    }

    /// Takes what has arrived; `false` at the end.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> bool {
        match self.socket.receive(buffer) {
            None => true,
            Some(0) => false,
            Some(count) => {
                self.decoder.push(&buffer[..count]);
                true
            }
        }
    }

    /// The next message that has arrived whole.
    pub(crate) fn hear(&mut self) -> Heard {
        if self.busy || self.closing {
            return Heard::Nothing;
        }
        let heard = if self.is_control {
            self.decoder.next_message().map(|message| message.map(|request| Heard::Request(Box::new(request))))
        } else {
            self.decoder.next_message().map(|message| message.map(Heard::Hello))
        };
        match heard {
            Ok(Some(Heard::Hello(hello))) if hello.version != VERSION => Heard::Nonsense(format!(
                "the agent speaks version {VERSION} of the protocol, not {}; both must come from one build of sbx",
                hello.version
            )),
            Ok(Some(heard)) => heard,
            Ok(None) if !self.is_control && self.decoder.pending() >= STRANGER_LIMIT => {
                Heard::Nonsense("a greeting that does not end".to_owned())
            }
            Ok(None) => Heard::Nothing,
            Err(error) => Heard::Nonsense(error.to_string()),
        }
    }

    /// Answers the request at hand; `false` when the connection is of no use any more.
    pub(crate) fn answer(&mut self, reply: &Reply) -> bool {
        self.busy = false;
        let queued: Result<(), FrameError> = write_frame(&mut self.unsent, reply);
        queued.is_ok() && self.unsent.len() <= BACKLOG_LIMIT && self.flush()
    }

    /// Says why nothing more is heard here; `false` when that has been said and the connection can be dropped.
    pub(crate) fn refuse(&mut self, reason: String) -> bool {
        self.closing = true;
        self.answer(&Reply::Failed(other(reason))) && self.has_unsent()
    }

    /// Sends what fits; `false` when nobody takes it any more, or when that was the last.
    pub(crate) fn flush(&mut self) -> bool {
        match self.socket.send(&self.unsent) {
            Ok(sent) => {
                self.unsent.drain(..sent);
                !(self.closing && self.unsent.is_empty())
            }
            Err(_) => false,
        }
    }

    /// Becomes a stream: the socket, and bytes that came behind the greeting.
    pub(crate) fn into_stream(self) -> (Socket, Vec<u8>) {
        (self.socket, self.decoder.into_rest())
    }
}
