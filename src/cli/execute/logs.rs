//! `logs`: entries of a container's log on the streams that they came from.

use std::io::{self, BufWriter, Write};

use sbx_engine::logs::{Entry, Query};
use sbx_engine::{Engine, StreamKind};
use sbx_sandbox::timestamp::Timestamp;

use super::{Fault, Outcome};
use crate::command::Logs;
use crate::units::{Moment, rfc3339};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// `logs`.
pub(super) fn logs(engine: &Engine, command: &Logs) -> Outcome {
    let id = engine.find(&command.container)?;
    let time = |moment: Moment| Timestamp::from_unix(moment.seconds, moment.nanoseconds);
    let query = Query {
        follow: command.follow,
        tail: command.tail.map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        since: command.since.map(time),
        until: command.until.map(time),
    };
    let mut out = Output {
        stdout: Stream::new(io::stdout().lock()),
        stderr: Stream::new(io::stderr().lock()),
        command,
        fault: None,
    };
    engine.logs(&id, query, &mut |entry| out.take(&entry))?;
    out.end()
}

/// Both streams, in the order in which they were written.
struct Output<'a, O: Write, E: Write> {
    stdout: Stream<O>,
    stderr: Stream<E>,
    command: &'a Logs,
    fault: Option<io::Error>,
}

impl<O: Write, E: Write> Output<'_, O, E> {
    /// Writes an entry; `false` when nothing more can be written.
    fn take(&mut self, entry: &Entry) -> bool {
        // What was written to the one stream goes out before what comes after it on the other.
        let written = if entry.kind == StreamKind::Stderr {
            self.stdout.flush().and_then(|()| self.stderr.write(entry, self.command))
        } else {
            self.stderr.flush().and_then(|()| self.stdout.write(entry, self.command))
        };
        match written.and_then(|()| if self.command.follow { self.flush() } else { Ok(()) }) {
            Ok(()) => true,
            Err(error) => {
                self.fault = Some(error);
                false
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stderr.flush()
    }

    fn end(mut self) -> Outcome {
        match self.fault.take() {
            Some(error) => Err(Fault::from(error)),
            None => Ok(self.flush().map(|()| 0)?),
        }
    }
}

struct Stream<W: Write> {
    out: BufWriter<W>,
    /// The last entry ended with its line: a long line comes in several entries, of which the first alone is marked.
    at_line_start: bool,
    unwritten: bool,
}

impl<W: Write> Stream<W> {
    fn new(out: W) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER, out), at_line_start: true, unwritten: false }
    }

    fn write(&mut self, entry: &Entry, command: &Logs) -> io::Result<()> {
        self.unwritten = true;
        if self.at_line_start {
            if command.timestamps {
                write!(self.out, "{} ", precise(entry.time))?;
            }
            if command.details {
                write!(self.out, "{} ", entry.details)?;
            }
        }
        self.at_line_start = entry.text.ends_with('\n');
        self.out.write_all(entry.text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unwritten) { self.out.flush() } else { Ok(()) }
    }
}

/// With all nine digits, so that lines stand under one another.
fn precise(time: Timestamp) -> String {
    let second = rfc3339(time.unix_seconds());
    format!("{}.{:09}Z", second.trim_end_matches('Z'), time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: StreamKind, text: &str) -> Entry {
        Entry { kind, time: Timestamp::from_unix(1, 50), text: text.to_owned(), details: "a=b".to_owned() }
    }

    #[test]
    fn a_long_line_is_marked_once() {
        let command = Logs {
            container: String::new(),
            follow: false,
            since: None,
            until: None,
            tail: None,
            timestamps: true,
            details: true,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut out = Output {
            stdout: Stream::new(&mut stdout),
            stderr: Stream::new(&mut stderr),
            command: &command,
            fault: None,
        };
        for (kind, text) in [
            (StreamKind::Stdout, "begin"),
            (StreamKind::Stderr, "err\n"),
            (StreamKind::Stdout, " end\n"),
            (StreamKind::Stdout, "next"),
        ] {
            assert!(out.take(&entry(kind, text)));
        }
        assert!(out.end().is_ok());
        let mark = "1970-01-01T00:00:01.000000050Z a=b ";
        assert_eq!(String::from_utf8(stdout).unwrap(), format!("{mark}begin end\n{mark}next"));
        assert_eq!(String::from_utf8(stderr).unwrap(), format!("{mark}err\n"));
    }
}
