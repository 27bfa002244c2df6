//! What a command left: exit code, standard output, standard error; and running one with a deadline.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::wait::within;

/// What a command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 and the signal that ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Fails unless the command succeeded.
    #[track_caller]
    pub fn expect_ok(self) -> Self {
        self.expect_status(0)
    }

    /// Fails unless the command ended with `status`.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> Self {
        assert!(self.status == status, "expected exit code {status}\n{self}");
        self
    }

    /// Fails unless the standard output contains `text`.
    #[track_caller]
    pub fn expect_stdout(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "expected `{text}` on standard output\n{self}");
        self
    }

    /// Fails unless the standard error contains `text`, in any case.
    #[track_caller]
    pub fn expect_stderr(self, text: &str) -> Self {
        let found = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(found, "expected `{text}` on standard error\n{self}");
        self
    }

    /// The standard output without white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "$ {command}\nexit code {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

/// Exit code in the shell's convention.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(127))
}

/// The command line that runs inside the machine.
pub fn shown(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    // `env -C FOLDER` is how a command gets its working directory; the two folders of sbx say nothing to a reader.
    let inner = if words.first().is_some_and(|word| word == "env") { &words[3..] } else { &words[..] };
    let sbx = inner.get(1).is_some_and(|word| word == "--root");
    let inner = if sbx { [&["sbx".into()], &inner[5..]].concat() } else { inner.to_vec() };
    inner.join(" ")
}

/// A command that runs, with its output being collected.
pub struct Running {
    command: String,
    child: Child,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

impl Running {
    /// Starts a command with `input` as its standard input; `None` leaves a pipe open to write to.
    pub fn start(mut command: Command, input: Option<&[u8]>) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = shown(&command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        let stdout = collect(child.stdout.take().expect("a pipe"));
        let stderr = collect(child.stderr.take().expect("a pipe"));
        if let Some(input) = input {
            let (mut pipe, input) = (child.stdin.take().expect("a pipe"), input.to_vec());
            // The command may end without reading it all; that is not this thread's business.
            std::thread::spawn(move || drop(pipe.write_all(&input)));
        }
        Self { command: shown, child, stdout, stderr }
    }

    /// Process id of the outermost process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to the standard input.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        let pipe = self.child.stdin.as_mut().expect("an open standard input");
        pipe.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("cannot write to {}: {error}", self.command));
        pipe.flush().expect("a pipe flushes");
    }

    /// Closes the standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for the end. Fails when the command does not end in time, or when something that outlives it still
    /// holds its standard output or error: a script that waits for the end of the pipe would hang for ever.
    #[track_caller]
    pub fn finish(mut self, deadline: Duration) -> Output {
        let what = format!("the end of: {}", self.command);
        let status = within(deadline, &what, || self.child.try_wait().expect("a child can be waited for"));
        self.close_stdin();
        let text = |stream: &mpsc::Receiver<Vec<u8>>, name: &str| {
            let bytes = stream.recv_timeout(Duration::from_secs(10));
            let bytes = bytes.unwrap_or_else(|_| panic!("{name} is held open after the end of: {}", self.command));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(&self.stdout, "stdout"), text(&self.stderr, "stderr"));
        Output { command: self.command.clone(), status: code(status), stdout, stderr }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if pipe.read_to_end(&mut bytes).is_ok() {
            // Nobody waits any more when the test has failed already.
            drop(sender.send(bytes));
        }
    });
    receiver
}
