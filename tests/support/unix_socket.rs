//! A server at a unix socket of the machine, and its client in a container: busybox has none, and the static program of a test
//! is one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::Machine;

/// Names the socket to [`client`].
const SOCKET: &str = "SBX_TEST_SOCKET";

/// A server that answers one client, in capitals.
pub struct Server {
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens at a path of the machine.
    pub fn start(m: &Machine, name: &str) -> Self {
        let path = m.path(name);
        let listener = UnixListener::bind(&path).expect("a socket");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("what the container said");
            stream.write_all(text.to_uppercase().as_bytes()).expect("an answer");
        });
        Self { path, thread }
    }

    /// What it answers to a container with the socket in a bind. The test program has a test of this name, which is [`client`].
    pub fn asked_by(self, m: &Machine, flags: &[&str], test: &str) -> String {
        let bind = format!("{}:/sock", self.path.display());
        let program = format!("{}:/client:ro", std::env::current_exe().expect("this program").display());
        let own = ["-v", &bind, "-v", &program, "-e", &format!("{SOCKET}=/sock")];
        let said = m.in_busybox(&[flags, &own].concat(), &format!("/client --exact {test} --nocapture"));
        self.thread.join().expect("the server");
        said.lines().find_map(|line| line.strip_prefix("answer: ")).unwrap_or(&said).to_owned()
    }
}

/// Says hello to the server and prints its answer, in a container of [`Server::asked_by`]; elsewhere it does nothing.
pub fn client() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream.write_all(b"hello").expect("somebody who listens");
    // The input ends before the answer comes: each direction ends for itself.
    stream.shutdown(Shutdown::Write).expect("a half-closed connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    println!("\nanswer: {answer}");
}
