//! The conversation with the agent in the guest: control connections over vsock, one request and one answer at a time.
//!
//! The agent is not trusted: what it says is bounded by the protocol, and it is waited for a limited time.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sbx_protocol::guest::AGENT_PORT;
use sbx_protocol::{
    ContainerEvent, Decoder, ExitStatus, FrameError, Hello, Purpose, Reply, Request, SessionId, StreamKind, VERSION,
    read_frame, write_frame,
};
use sbx_vmm::virtio::vsock::{Gate, InnerGate};

use crate::error::Error;

/// Longest wait for an answer. A machine that is busy to the last cycle answers within it; one that does not is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections to one machine's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    gate: Gate,
    control: UnixStream,
}

impl Agent {
    /// The way to the machine's ports.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Connects; the machine may still be booting.
    pub(crate) fn connect(gate: Gate) -> Result<Self, Error> {
        let control = open(&gate, Purpose::Control)?;
        control.set_read_timeout(Some(PATIENCE)).map_err(Error::io("limit the wait for the agent"))?;
        control.set_write_timeout(Some(PATIENCE)).map_err(Error::io("limit the wait for the agent"))?;
        Ok(Self { gate, control })
    }

    /// Lets another party connect to the guest, and take the connections that it opens to these ports of the host.
    pub(crate) fn admit(&self, ports: Range<u32>, gate: InnerGate) -> Result<(), Error> {
        self.gate.admit(ports, gate).map_err(Error::io("let somebody into the virtual machine"))
    }

    /// Asks for the machine's end.
    pub(crate) fn power_off(&self) -> Result<(), Error> {
        self.say("end", &Request::PowerOff)
    }

    /// Sends a request without waiting for its answer; answers come in the order of the requests.
    pub(crate) fn say(&self, step: &'static str, request: &Request) -> Result<(), Error> {
        write_frame(&mut &self.control, request).map_err(|error| broken(step, error))
    }

    /// The answer to the request that was not answered yet.
    pub(crate) fn answer(&self, step: &'static str) -> Result<Reply, Error> {
        match read_frame(&mut &self.control).map_err(|error| broken(step, error))? {
            Some(Reply::Failed(failure)) => Err(failure.into()),
            Some(reply) => Ok(reply),
            None => Err(Error::Conversation { step, problem: "the connection has ended".into() }),
        }
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&self, step: &'static str, request: &Request) -> Result<Reply, Error> {
        self.say(step, request)?;
        self.answer(step)
    }

    /// Asks for something whose only answer is that it has been done.
    pub(crate) fn tell(&self, step: &'static str, request: &Request) -> Result<(), Error> {
        self.say(step, request)?;
        self.done(step)
    }

    /// The answer to a request of that kind.
    pub(crate) fn done(&self, step: &'static str) -> Result<(), Error> {
        match self.answer(step)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(step, &other)),
        }
    }

    /// The session that a request opens.
    pub(crate) fn session(&self, step: &'static str, request: &Request) -> Result<SessionId, Error> {
        match self.ask(step, request)? {
            Reply::Session(session) => Ok(session),
            other => Err(unexpected(step, &other)),
        }
    }

    /// One standard stream of a session.
    pub(crate) fn stream(&self, session: SessionId, kind: StreamKind) -> Result<OwnedFd, Error> {
        Ok(open(&self.gate, Purpose::Stream { session, kind })?.into())
    }

    /// A connection that waits for an end.
    pub(crate) fn watch(&self, request: &Request) -> Result<Watch, Error> {
        let mut connection = open(&self.gate, Purpose::Control)?;
        write_frame(&mut connection, request).map_err(|error| broken("watch a process", error))?;
        connection.set_nonblocking(true).map_err(Error::io("watch a process"))?;
        Ok(Watch { connection, decoder: Decoder::default() })
    }
}

fn open(gate: &Gate, purpose: Purpose) -> Result<UnixStream, Error> {
    let mut stream = gate.connect(AGENT_PORT).map_err(Error::io("connect to the virtual machine"))?;
    let hello = Hello { version: VERSION, purpose };
    write_frame(&mut stream, &hello).map_err(|error| broken("take a connection", error))?;
    Ok(stream)
}

fn broken(step: &'static str, error: FrameError) -> Error {
    Error::Conversation { step, problem: error.to_string() }
}

pub(crate) fn unexpected(step: &'static str, reply: &Reply) -> Error {
    Error::Conversation { step, problem: format!("an answer that does not fit: {reply:?}") }
}

/// A wait for the end of a process.
#[derive(Debug)]
pub(crate) struct Watch {
    connection: UnixStream,
    decoder: Decoder,
}

impl Watch {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// How the process has ended: `None` while it runs, `Some(None)` where the machine has gone with it.
    pub(crate) fn ended(&mut self) -> Option<Option<ExitStatus>> {
        let mut buffer = [0u8; 256];
        loop {
            match std::io::Read::read(&mut &self.connection, &mut buffer) {
                Ok(0) => return Some(None),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Some(None),
            }
            match self.decoder.next_message::<Reply>() {
                Ok(None) => {}
                Ok(Some(Reply::Exited(status) | Reply::Event(ContainerEvent::Exited { status, .. }))) => {
                    return Some(Some(status));
                }
                // Whatever else it says, it is no answer to wait for.
                Ok(Some(_)) | Err(_) => return Some(None),
            }
        }
    }
}
