//! The container's output on disk: Docker's `json-file` log, one JSON object a line, rotated by size.
//!
//! A line of output is one entry; a longer one than [`LINE_LIMIT`] is cut into several, of which only the last ends with
//! a newline, as Docker does. Entries are written with one write(2) each, so that a reader never sees half of one
//! followed by another's beginning, and that a kill loses at most the entry being written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sbx_protocol::StreamKind;
use sbx_sandbox::timestamp::Timestamp;

/// Longest entry in bytes of output.
const LINE_LIMIT: usize = 16 << 10;

/// What `--log-opt` said of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Bytes after which a new file is begun; `None` never.
    pub(crate) max_size: Option<u64>,
    /// Files in all.
    pub(crate) max_file: u32,
    /// Extra attributes of every entry (`labels`, `env`, `tag`), as a JSON object; empty is none.
    pub(crate) attributes: String,
}

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    options: LogOptions,
    file: File,
    size: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl LogFile {
    /// Opens the log at `path` to go on at its end.
    pub(crate) fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let file = open_end(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), options, file, size, stdout: Vec::new(), stderr: Vec::new() })
    }

    /// Takes output as it came.
    pub(crate) fn write(&mut self, kind: StreamKind, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let pending = self.pending(kind);
            let room = LINE_LIMIT - pending.len();
            let newline = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let take = newline.map_or(room.min(bytes.len()), |at| at + 1);
            pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if newline.is_some() || self.pending(kind).len() >= LINE_LIMIT {
                self.flush(kind)?;
            }
        }
        Ok(())
    }

    /// Writes out what has no newline yet.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.flush(StreamKind::Stdout)?;
        self.flush(StreamKind::Stderr)
    }

    fn pending(&mut self, kind: StreamKind) -> &mut Vec<u8> {
        if kind == StreamKind::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    fn flush(&mut self, kind: StreamKind) -> io::Result<()> {
        let mut line = std::mem::take(self.pending(kind));
        if line.is_empty() {
            return Ok(());
        }
        let entry = self.entry(kind, &line)?;
        line.clear();
        *self.pending(kind) = line;
        if self.options.max_size.is_some_and(|limit| self.size + entry.len() as u64 > limit && self.size > 0) {
            self.rotate()?;
        }
        self.file.write_all(&entry)?;
        self.size += entry.len() as u64;
        Ok(())
    }

    fn entry(&self, kind: StreamKind, line: &[u8]) -> io::Result<Vec<u8>> {
        let stream = if kind == StreamKind::Stderr { "stderr" } else { "stdout" };
        let mut entry = Vec::with_capacity(line.len() + 96);
        entry.extend_from_slice(b"{\"log\":");
        serde_json::to_writer(&mut entry, &String::from_utf8_lossy(line))?;
        write!(entry, ",\"stream\":\"{stream}\"")?;
        if !self.options.attributes.is_empty() {
            write!(entry, ",\"attrs\":{}", self.options.attributes)?;
        }
        writeln!(entry, ",\"time\":\"{}\"}}", Timestamp::now())?;
        Ok(entry)
    }

    /// `log` → `log.1` → `log.2` …; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        if self.options.max_file <= 1 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.options.max_file).rev() {
                let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
                match std::fs::rename(from, numbered(&self.path, number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = open_end(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }
}

fn open_end(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// The file of one rotation, 1 being the newest.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(options: LogOptions, test: impl FnOnce(&mut LogFile, &Path)) {
        let directory =
            std::env::temp_dir().join(format!("sbx-log-{}-{:?}", std::process::id(), std::thread::current().id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("x-json.log");
        test(&mut LogFile::open(&path, options).unwrap(), &path);
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn logs(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let entry = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|line| entry(line)["log"].as_str().unwrap().to_owned()).collect()
    }

    const PLAIN: LogOptions = LogOptions { max_size: None, max_file: 1, attributes: String::new() };

    #[test]
    fn a_line_is_an_entry_however_it_arrives() {
        in_file(PLAIN, |log, path| {
            log.write(StreamKind::Stdout, b"one\ntw").unwrap();
            log.write(StreamKind::Stderr, b"err").unwrap();
            log.write(StreamKind::Stdout, b"o\n\"\\\x00").unwrap();
            log.finish().unwrap();
            assert_eq!(logs(path), ["one\n", "two\n", "\"\\\u{0}", "err"]);
        });
    }

    #[test]
    fn long_lines_are_cut() {
        in_file(PLAIN, |log, path| {
            log.write(StreamKind::Stdout, &vec![b'x'; 2 * LINE_LIMIT + 5]).unwrap();
            log.finish().unwrap();
            let lengths: Vec<usize> = logs(path).iter().map(String::len).collect();
            assert_eq!(lengths, [LINE_LIMIT, LINE_LIMIT, 5]);
        });
    }

    #[test]
    fn files_rotate_and_the_oldest_goes() {
        let options = LogOptions { max_size: Some(200), max_file: 3, ..PLAIN };
        in_file(options, |log, path| {
            for number in 0..20 {
                log.write(StreamKind::Stdout, format!("line {number}\n").as_bytes()).unwrap();
            }
            let all = [numbered(path, 2), numbered(path, 1), path.to_owned()];
            let kept: Vec<String> = all.iter().flat_map(|path| logs(path)).collect();
            assert_eq!(kept.last().unwrap(), "line 19\n");
            assert!(kept.len() < 10 && !numbered(path, 3).exists());
            for path in all {
                assert!(std::fs::metadata(path).unwrap().len() <= 200);
            }
        });
    }
}
