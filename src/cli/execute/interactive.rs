//! Standing at a process's streams: bytes both ways, signals and window sizes passed on, the detach keys watched for.
//!
//! Each direction is a thread of its own that copies until its end. The caller's thread waits for the process; when it has
//! ended the output threads are joined, so that nothing a process wrote is lost, and the input thread is left behind, since
//! a read from a terminal cannot be taken back.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use sbx_engine::Session;

use crate::detach::{DetachKeys, DetachMatcher};

/// Bytes copied at once.
const CHUNK: usize = 64 << 10;

/// What ends a stay.
#[derive(Debug)]
pub(crate) enum End {
    /// The user typed the detach keys.
    Detached,
    /// The wait for the process came to its end.
    Waited(T),
}

/// The result of a wait: an exit code, or why there is none.
pub(crate) type T = sbx_engine::Result<i32>;

/// The copying threads of one session.
#[derive(Debug)]
pub(crate) struct Copies {
    outputs: Vec<JoinHandle<()>>,
    events: Receiver<End>,
    sender: Sender<End>,
}

impl Copies {
    /// Begins to copy. `keys` are watched for in the input where there are some.
    pub(crate) fn begin(session: Session, keys: Option<DetachKeys>) -> io::Result<Self> {
        let (sender, events) = mpsc::channel();
        let mut outputs = Vec::new();
        if let Some(socket) = session.stdout {
            let mut stdout = own(io::stdout())?;
            outputs.push(spawn("stdout", move || copy_out(socket, &mut stdout))?);
        }
        if let Some(socket) = session.stderr {
            let mut stderr = own(io::stderr())?;
            outputs.push(spawn("stderr", move || copy_out(socket, &mut stderr))?);
        }
        if let Some(socket) = session.stdin {
            let detached = sender.clone();
            let stdin = own(io::stdin())?;
            spawn("stdin", move || copy_in(stdin, &socket, keys, &detached))?;
        }
        Ok(Self { outputs, events, sender })
    }

    /// Waits for the process by `wait`, in a thread of its own, or for the detach keys.
    pub(crate) fn wait(self, wait: impl FnOnce() -> T + Send + 'static) -> io::Result<End> {
        let waited = self.sender.clone();
        spawn("wait", move || drop(waited.send(End::Waited(wait()))))?;
        drop(self.sender);
        let end = self.events.recv().map_err(io::Error::other)?;
        if let End::Waited(_) = end {
            for output in self.outputs {
                // A thread that panicked has printed why.
                let _ = output.join();
            }
        }
        Ok(end)
    }
}

/// A stream without a buffer of its own.
fn own(stream: impl AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work)
}

/// Copies output until its end, or until nobody wants it any more.
fn copy_out(mut socket: UnixStream, output: &mut impl Write) {
    let mut buffer = vec![0u8; CHUNK];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if output.write_all(&buffer[..count]).and_then(|()| output.flush()).is_err() {
                    // Like a broken pipe between two programs: the process learns of it when it writes.
                    let _ = socket.shutdown(Shutdown::Both);
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Copies input until its end, or until the detach keys.
fn copy_in(mut input: File, mut socket: &UnixStream, keys: Option<DetachKeys>, events: &Sender<End>) {
    let mut matcher = keys.map(DetachMatcher::new);
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let sent = match &mut matcher {
            None => socket.write_all(&buffer[..count]),
            Some(matcher) => {
                let typed = matcher.push(&buffer[..count]);
                let sent = socket.write_all(&typed.forward);
                if typed.detach {
                    let _ = events.send(End::Detached);
                    return;
                }
                sent
            }
        };
        if sent.is_err() {
            return;
        }
    }
    if let Some(matcher) = matcher {
        let _ = socket.write_all(&matcher.finish());
    }
    // The process's input ends with ours.
    let _ = socket.shutdown(Shutdown::Write);
}

/// Refuses a terminal for a process when there is none here, in Docker's words.
pub(crate) fn check_terminal(tty: bool, stdin: bool) -> Result<(), String> {
    if tty && stdin && !io::stdin().is_terminal() {
        return Err("the input device is not a TTY".to_owned());
    }
    Ok(())
}
