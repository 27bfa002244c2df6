//! The host's side: requests, their answers, and stays at streams.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use sbx_protocol::guest::CreateRequest;
use sbx_protocol::{
    AttachRequest, ContainerEvent, ExecRequest, ExitStatus, Failure, Reply, Request, SessionId, StreamKind, read_frame,
    write_frame,
};

use super::{Agent, id};

/// A control connection.
pub(crate) struct Control {
    socket: UnixStream,
}

/// A stay at a process's streams.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) stdin: Option<UnixStream>,
    pub(crate) stdout: Option<UnixStream>,
    pub(crate) stderr: Option<UnixStream>,
}

impl Control {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    pub(crate) fn send(&mut self, request: &Request) {
        write_frame(&mut self.socket, request).expect("send the request");
    }

    pub(crate) fn receive(&mut self) -> Option<Reply> {
        read_frame(&mut self.socket).expect("receive the reply")
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        self.send(request);
        match self.receive().expect("a reply") {
            Reply::Failed(failure) => Err(failure),
            reply => Ok(reply),
        }
    }

    pub(crate) fn tell(&mut self, request: &Request) {
        assert_eq!(self.ask(request), Ok(Reply::Done), "{request:?}");
    }

    pub(crate) fn refused(&mut self, request: &Request) -> Failure {
        self.ask(request).expect_err("it is refused")
    }

    pub(crate) fn create(&mut self, request: CreateRequest) {
        self.tell(&Request::Create(Box::new(request)));
    }

    pub(crate) fn start(&mut self, letter: char) -> Result<i32, Failure> {
        self.ask(&Request::Start { container: id(letter) }).map(|reply| match reply {
            Reply::Started { pid } => pid,
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn wait(&mut self, letter: char) -> ExitStatus {
        match self.ask(&Request::WaitContainer { container: id(letter) }) {
            Ok(Reply::Event(ContainerEvent::Exited { status, restarting: false })) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn attach(&mut self, agent: &Agent, letter: char, streams: &[StreamKind]) -> Session {
        let request = AttachRequest { container: id(letter), streams: streams.to_vec(), stdin_once: true };
        let session = session_of(self.ask(&Request::Attach(request)));
        self.open(agent, session, streams)
    }

    /// Opens the session of a further process, which runs when this returns.
    pub(crate) fn exec(&mut self, agent: &Agent, request: ExecRequest) -> Session {
        let streams = request.streams.clone();
        let session = session_of(self.ask(&Request::Exec(Box::new(request))));
        self.open(agent, session, &streams)
    }

    fn open(&mut self, agent: &Agent, id: SessionId, streams: &[StreamKind]) -> Session {
        let mut session = Session { id, stdin: None, stdout: None, stderr: None };
        for kind in streams {
            let stream = Some(agent.stream(id, *kind));
            match kind {
                StreamKind::Stdin => session.stdin = stream,
                StreamKind::Stdout => session.stdout = stream,
                StreamKind::Stderr => session.stderr = stream,
            }
        }
        self.tell(&Request::Ready { session: id });
        session
    }

    pub(crate) fn wait_process(&mut self, session: SessionId) -> ExitStatus {
        match self.ask(&Request::WaitProcess { session }) {
            Ok(Reply::Exited(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a further process to its end: its exit code and what it said.
    pub(crate) fn run(&mut self, agent: &Agent, request: ExecRequest) -> (i32, String) {
        let session = self.exec(agent, request);
        let id = session.id;
        let said = session.output();
        (self.wait_process(id).code, said)
    }
}

fn session_of(reply: Result<Reply, Failure>) -> SessionId {
    match reply {
        Ok(Reply::Session(id)) => id,
        other => panic!("{other:?}"),
    }
}

impl Session {
    /// Everything that it says, standard output first.
    pub(crate) fn output(self) -> String {
        let stderr = self.stderr.map(|mut stream| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).map(|_| bytes)
            })
        });
        let mut bytes = Vec::new();
        if let Some(mut stream) = self.stdout {
            stream.read_to_end(&mut bytes).expect("its output");
        }
        if let Some(stderr) = stderr {
            bytes.extend(stderr.join().expect("the reader").expect("its error output"));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Gives it all of its input.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut stdin = self.stdin.take().expect("an input");
        stdin.write_all(bytes).expect("its input");
        stdin.shutdown(Shutdown::Write).expect("the end of its input");
    }
}
