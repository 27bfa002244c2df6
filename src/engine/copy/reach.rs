//! A container's files, whether it runs or not.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use sbx_container::files::{PathStat, Task};
use sbx_container::plan::User;
use sbx_protocol::{FilesRequest, Reply, Request, StreamKind};
use sbx_sandbox::id::Id;

use super::paths::{Target, followed};
use super::{Copied, Links};
use crate::client::{Client, ClientError, Session};
use crate::reap::{self, KILLED};
use crate::standby::{Duty, Standby};
use crate::{Engine, Error, ErrorKind, Result, spawn};

/// Longest wait for a container that is starting or ending.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at one.
const PAUSE: Duration = Duration::from_millis(5);
/// Most that is kept of what the other end has to say, in bytes.
const WORDS: u64 = 64 << 10;

/// A way to the files of one container. Without it a container that does not run goes down again.
#[derive(Debug)]
pub struct ContainerFiles {
    client: Client,
    id: Id,
    reference: String,
}

impl Engine {
    /// The way to the files of the container that the user calls `reference`.
    pub fn files(&self, reference: &str) -> Result<ContainerFiles> {
        let id = self.find(reference)?;
        let deadline = Instant::now() + PATIENCE;
        let client = loop {
            if let Some(client) = self.running_or_kept(&id)? {
                break client;
            }
            if !self.state(&id)?.status.is_active() && !reap::is_alive(&self.paths, id.as_str()) {
                match self.keep(&id) {
                    Ok(client) => break client,
                    // Somebody else was faster.
                    Err(_) if reap::is_alive(&self.paths, id.as_str()) => {}
                    Err(error) => return Err(error),
                }
            }
            if Instant::now() > deadline {
                let message = format!("container {reference} is still starting or ending; try again");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            std::thread::sleep(PAUSE);
        };
        Ok(ContainerFiles { client, id, reference: reference.to_owned() })
    }

    /// Whose copied files become with `--archive`: the container's user's; `None` where it has none of its own.
    pub fn user_of(&self, reference: &str) -> Result<Option<User>> {
        let spec = self.spec(&self.find(reference)?)?.config.user;
        Ok((!spec.is_empty()).then(|| User::Named { spec, group_add: Vec::new() }))
    }

    /// A connection to a container that is up.
    fn running_or_kept(&self, id: &Id) -> Result<Option<Client>> {
        let Some(mut client) = Client::connect(&self.paths, id.as_str())? else { return Ok(None) };
        let task = Task::Stat { path: "/".into() };
        let request = FilesRequest { container: id.to_string(), task, streams: Vec::new() };
        // A session that is never made ready ends with its connection.
        match client.ask(&Request::Files(Box::new(request))) {
            Ok(Reply::Session(_)) => Ok(Some(client)),
            Ok(_) | Err(ClientError::Refused(_) | ClientError::Gone) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a container up that does not run, without its program.
    fn keep(&self, id: &Id) -> Result<Client> {
        let mut client = spawn::spawn(&self.paths, Standby::execute(&self.paths, id, Duty::Files)?)?;
        client.start(id.as_str())?;
        Ok(client)
    }
}

impl ContainerFiles {
    /// The container as the user calls it.
    pub(super) fn reference(&self) -> &str {
        &self.reference
    }

    pub(super) fn not_found(&self, path: &str) -> Error {
        let message = format!("Could not find the file {path} in container {}", self.reference);
        Error::new(ErrorKind::NotFound, message)
    }

    /// What there is at `path`.
    pub fn stat(&mut self, path: &str) -> Result<Option<PathStat>> {
        let mut session = match self.begin(Task::Stat { path: path.to_owned() }, StreamKind::Stdout) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            session => session?,
        };
        let mut bytes = Vec::new();
        if let Some(output) = session.stdout.take() {
            output.take(WORDS).read_to_end(&mut bytes)?;
        }
        let (_, words) = self.finish(session)?;
        let unknown = || Error::new(ErrorKind::Other, words.join("; "));
        PathStat::decode(&bytes).map(Some).ok_or_else(unknown)
    }

    /// A path to copy from, and the name of the copy where it is not the path's own.
    pub(super) fn resolve(&mut self, path: &str, links: Links) -> Result<(String, Option<String>)> {
        not_empty(path)?;
        if links == Links::Follow
            && let Some(found) = self.stat(path)?.filter(PathStat::is_link)
        {
            return Ok(followed(path, &found.link_target));
        }
        Ok((path.to_owned(), None))
    }

    /// A path to copy to: links are followed.
    pub(super) fn target(&mut self, path: &str) -> Result<Target> {
        not_empty(path)?;
        let mut path = path.to_owned();
        // What is there and cannot be looked at is found by the copy itself.
        let mut found = self.stat(&path).unwrap_or_default();
        if let Some(link) = found.as_ref().filter(|found| found.is_link()) {
            path = followed(&path, &link.link_target).0;
            found = self.stat(&path).unwrap_or_default();
        }
        let is_directory = found.as_ref().is_some_and(PathStat::is_directory);
        let is_file = found.as_ref().is_some_and(|found| found.mode & libc::S_IFMT == libc::S_IFREG);
        if found.is_some() && !is_directory && !is_file {
            let reference = &self.reference;
            let message = format!("destination \"{reference}:{path}\" must be a directory or a regular file");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Target { path, exists: found.is_some(), is_directory })
    }

    /// Hands the archive of a task that makes one to `take`.
    pub(super) fn read(&mut self, task: Task, take: impl FnOnce(&mut dyn Read) -> Result<Copied>) -> Result<Copied> {
        let mut session = self.begin(task, StreamKind::Stdout)?;
        let Some(mut output) = session.stdout.take() else { return Err(no_stream()) };
        let taken = take(&mut output);
        drop(output);
        self.conclude(session, taken)
    }

    /// Unpacks what `give` writes into `directory`.
    pub(super) fn write(
        &mut self,
        directory: &str,
        owner: Option<User>,
        give: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Copied> {
        let task = Task::Write { directory: directory.to_owned(), owner };
        let mut session = self.begin(task, StreamKind::Stdin)?;
        let Some(input) = session.stdin.take() else { return Err(no_stream()) };
        let mut counted = Counted { stream: input, bytes: 0, is_closed: false };
        let given = match give(&mut counted) {
            // Why it does not listen any more is better told by itself.
            Err(_) if counted.is_closed => Err(ended(KILLED)),
            given => given.map(|()| Copied { bytes: counted.bytes, warnings: Vec::new() }),
        };
        if given.is_ok() {
            // One that has ended already says why.
            let _ = counted.stream.shutdown(Shutdown::Write);
        }
        self.conclude(session, given)
    }

    fn begin(&mut self, task: Task, archive: StreamKind) -> Result<Session> {
        let path = match &task {
            Task::Stat { path } | Task::Read { path, .. } => path.clone(),
            Task::Write { directory, .. } => directory.clone(),
            Task::Export => String::from("/"),
        };
        let request = FilesRequest { container: self.id.to_string(), task, streams: vec![archive, StreamKind::Stderr] };
        self.client.files(request).map_err(|error| match Error::from(error) {
            error if error.kind == ErrorKind::ProgramNotFound => self.not_found(&path),
            error => error,
        })
    }

    /// Waits for the other end. Its reason is the better one where both have failed: mostly this one's follows from it.
    fn conclude(&mut self, session: Session, here: Result<Copied>) -> Result<Copied> {
        if here.is_err() {
            let kill = Request::SignalProcess { session: session.id, signal: libc::SIGKILL };
            // It has ended, most likely.
            let _ = self.client.tell(&kill);
        }
        let (code, words) = self.finish(session)?;
        match (here, code, words.last()) {
            (Ok(copied), 0, _) => Ok(Copied { warnings: [copied.warnings, words].concat(), ..copied }),
            (_, 1.., Some(reason)) => Err(Error::new(ErrorKind::Other, reason.clone())),
            (Err(here), ..) => Err(here),
            (Ok(_), code, _) => Err(ended(code)),
        }
    }

    /// How the other end has come to its end, and what it had to say.
    fn finish(&mut self, mut session: Session) -> Result<(i32, Vec<String>)> {
        let mut words = String::new();
        if let Some(stream) = session.stderr.take() {
            let mut bytes = Vec::new();
            stream.take(WORDS).read_to_end(&mut bytes)?;
            words = String::from_utf8_lossy(&bytes).into_owned();
        }
        let status = self.client.wait_process(session.id)?;
        Ok((status.code, words.lines().map(str::to_owned).collect()))
    }
}

fn not_empty(path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "the path in the container cannot be empty"));
    }
    Ok(())
}

fn no_stream() -> Error {
    Error::new(ErrorKind::Other, "the container's end has no stream for the archive")
}

fn ended(code: i32) -> Error {
    let message = match code {
        KILLED => "the container has ended meanwhile; what has been copied is not whole".to_owned(),
        code => format!("the process at the container's files has ended with status {code}"),
    };
    Error::new(ErrorKind::Other, message)
}

/// Counts what goes through.
struct Counted {
    stream: UnixStream,
    bytes: u64,
    /// The other end takes no more.
    is_closed: bool,
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(buffer);
        match &written {
            Ok(count) => self.bytes += *count as u64,
            Err(error) => self.is_closed |= error.kind() == io::ErrorKind::BrokenPipe,
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
