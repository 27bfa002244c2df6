//! A client of a sandbox's supervisor.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sbx_protocol::{
    AttachRequest, ContainerEvent, ExecRequest, ExitStatus, Failure, FilesRequest, FrameError, Hello, Purpose, Reply,
    Request, SessionId, StreamKind, TerminalSize, VERSION, read_frame, write_frame,
};

use sbx_vm_mode::Admitted;

use crate::failure;
use crate::paths::{Paths, short};

/// Why a request to a supervisor had no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The supervisor said no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The supervisor went away.
    #[error("the container's supervisor has ended")]
    Gone,
    /// It did not answer in time.
    #[error("the container did not do it within {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The connection failed.
    #[error("talk to the container's supervisor: {0}")]
    Broken(FrameError),
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::Gone
            }
            other => Self::Broken(other),
        }
    }
}

/// A control connection.
#[derive(Debug)]
pub struct Client {
    control: UnixStream,
    place: Place,
}

/// Where a supervisor listens.
#[derive(Debug)]
struct Place {
    directory: File,
    socket: String,
}

impl Client {
    /// A connection to the supervisor of the container `id`; `None` where none listens.
    pub fn connect(paths: &Paths, id: &str) -> io::Result<Option<Self>> {
        let directory = File::open(paths.sandboxes())?;
        match Self::connect_in(&directory, id) {
            Ok(client) => Ok(Some(client)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn connect_in(directory: &File, id: &str) -> io::Result<Self> {
        let place = Place { directory: directory.try_clone()?, socket: format!("{id}.sock") };
        let control = place.greet(Purpose::Control)?;
        Ok(Self { control, place })
    }

    /// A further connection to the same supervisor, for requests at the same time.
    pub fn another(&self) -> io::Result<Self> {
        let place = Place { directory: self.place.directory.try_clone()?, socket: self.place.socket.clone() };
        let control = place.greet(Purpose::Control)?;
        Ok(Self { control, place })
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        write_frame(&mut self.control, request)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Reply, ClientError> {
        match read_frame(&mut self.control)? {
            Some(Reply::Failed(failure)) => Err(ClientError::Refused(failure)),
            Some(reply) => Ok(reply),
            None => Err(ClientError::Gone),
        }
    }

    /// Asks for something whose only answer is that it has been done.
    pub fn tell(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The same, with an end to the patience.
    pub fn tell_within(&mut self, request: &Request, patience: Duration) -> Result<(), ClientError> {
        let limit =
            |limit| self.control.set_read_timeout(limit).map_err(|error| ClientError::from(FrameError::Io(error)));
        limit(Some(patience))?;
        match self.tell(request) {
            Err(ClientError::Broken(FrameError::Io(error))) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::Silent(patience))
            }
            told => told,
        }
    }

    /// Starts the container; its process id.
    pub fn start(&mut self, container: &str) -> Result<i32, ClientError> {
        match self.ask(&Request::Start { container: container.to_owned() })? {
            Reply::Started { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a session at the container's own streams.
    pub fn attach(&mut self, container: &str, streams: &[StreamKind]) -> Result<Session, ClientError> {
        let request = AttachRequest { container: container.to_owned(), streams: streams.to_vec(), stdin_once: false };
        let reply = self.ask(&Request::Attach(request))?;
        self.open_streams(reply, streams)
    }

    /// Starts a further process with a session at its streams.
    pub fn exec(&mut self, request: ExecRequest) -> Result<Session, ClientError> {
        let streams = request.streams.clone();
        let reply = self.ask(&Request::Exec(Box::new(request)))?;
        self.open_streams(reply, &streams)
    }

    /// Starts something with the container's files, with a session at its streams.
    pub fn files(&mut self, request: FilesRequest) -> Result<Session, ClientError> {
        let streams = request.streams.clone();
        let reply = self.ask(&Request::Files(Box::new(request)))?;
        self.open_streams(reply, &streams)
    }

    fn open_streams(&mut self, reply: Reply, streams: &[StreamKind]) -> Result<Session, ClientError> {
        let Reply::Session(id) = reply else { return Err(unexpected(&reply)) };
        let mut session = Session { id, stdin: None, stdout: None, stderr: None };
        for kind in streams {
            let purpose = Purpose::Stream { session: id, kind: *kind };
            let socket = self.place.greet(purpose).map_err(|error| ClientError::from(FrameError::Io(error)))?;
            match kind {
                StreamKind::Stdin => session.stdin = Some(socket),
                StreamKind::Stdout => session.stdout = Some(socket),
                StreamKind::Stderr => session.stderr = Some(socket),
            }
        }
        self.tell(&Request::Ready { session: id })?;
        Ok(session)
    }

    /// Waits for the end of a session's process.
    pub fn wait_process(&mut self, session: SessionId) -> Result<ExitStatus, ClientError> {
        match self.ask(&Request::WaitProcess { session })? {
            Reply::Exited(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the next event of the container. The end of the supervisor is [`ContainerEvent::Gone`] too.
    pub fn wait_container(&mut self, container: &str) -> Result<ContainerEvent, ClientError> {
        match self.ask(&Request::WaitContainer { container: container.to_owned() }) {
            Ok(Reply::Event(event)) => Ok(event),
            Err(ClientError::Gone) => Ok(ContainerEvent::Gone { last: None }),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        }
    }

    /// Asks for a place in the container's machine for another: the machine's ends of a control socket and of a gate go with it.
    pub fn admit(&mut self, container: &str, ends: [OwnedFd; 2]) -> Result<Admitted, ClientError> {
        let request = Request::Admit { container: container.to_owned() };
        let mut frame = Vec::new();
        write_frame(&mut frame, &request)?;
        let files = ends.each_ref().map(AsRawFd::as_raw_fd);
        let rights = [ControlMessage::ScmRights(&files)];
        let sent =
            sendmsg::<()>(self.control.as_raw_fd(), &[IoSlice::new(&frame)], &rights, MsgFlags::MSG_NOSIGNAL, None);
        let sent = sent.map_err(|error| ClientError::from(FrameError::Io(error.into())))?;
        self.control.write_all(&frame[sent..]).map_err(|error| ClientError::from(FrameError::Io(error)))?;
        match self.answer()? {
            Reply::Admitted { pid, first_port } => Ok(Admitted { pid, first_port }),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets the size of a session's terminal.
    pub fn resize(&mut self, session: SessionId, size: TerminalSize) -> Result<(), ClientError> {
        self.tell(&Request::Resize { session, size })
    }
}

/// A stay at a process's streams: one socket for each, raw bytes, half-closed at their ends.
#[derive(Debug)]
pub struct Session {
    /// Names it in requests.
    pub id: SessionId,
    /// To the process.
    pub stdin: Option<UnixStream>,
    /// From the process; of a terminal, everything.
    pub stdout: Option<UnixStream>,
    /// From the process.
    pub stderr: Option<UnixStream>,
}

impl Place {
    fn greet(&self, purpose: Purpose) -> io::Result<UnixStream> {
        let mut socket = UnixStream::connect(short(&self.directory, &self.socket))?;
        match write_frame(&mut socket, &Hello { version: VERSION, purpose }) {
            Ok(()) => Ok(socket),
            Err(FrameError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    ClientError::Refused(failure::other(format!("an answer that does not fit the question: {reply:?}")))
}
