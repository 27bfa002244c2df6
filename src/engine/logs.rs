//! Reading a container's log: Docker's json-file, its rotations, the end of it as it grows.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sbx_protocol::StreamKind;
use sbx_sandbox::id::Id;
use sbx_sandbox::log_attributes::log_attributes;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::timestamp::Timestamp;
use serde::Deserialize;

use crate::supervise::numbered;
use crate::{Engine, Error, ErrorKind, Result, reap};

/// While nothing is written, how often a follower looks whether the container still lives.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Most files that a log has had: beyond this number none is looked for.
const MOST_FILES: u32 = 10_000;

/// Which entries are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last so many.
    pub tail: Option<usize>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which stream it came from.
    pub kind: StreamKind,
    /// When it was written.
    pub time: Timestamp,
    /// What was written, with its newline if it had one.
    pub text: String,
    /// Extra attributes (`--log-opt labels`, `env`), `key=value` joined by commas.
    pub details: String,
}

#[derive(Deserialize)]
struct Stored {
    log: String,
    stream: String,
    time: Timestamp,
    #[serde(default)]
    attrs: std::collections::BTreeMap<String, String>,
}

impl Engine {
    /// Hands the wanted entries to `take`, oldest first, until it returns `false` or there are no more.
    pub fn logs(&self, id: &Id, query: Query, take: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        let spec = self.store.spec(id)?;
        if spec.host_config.log_config.r#type == "none" {
            let message = "configured logging driver does not support reading";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let path = self.store.files(id).log();
        let watch = if query.follow { Some(Watch::new(&path)?) } else { None };
        let alive = || reap::is_alive(&self.paths, id.as_str());
        let mut reader = Reader { path, query, current: None, partial: Vec::new() };
        if !reader.read_what_is_there(take)? {
            return Ok(());
        }
        let Some(watch) = watch else { return Ok(()) };
        loop {
            // Asked before reading, so that what a container wrote last is not missed.
            let last_time = !alive();
            if !reader.read_on(take)? || last_time {
                return Ok(());
            }
            watch.wait()?;
        }
    }
}

/// Wakes a follower when something happens in the log's directory.
struct Watch {
    inotify: Inotify,
}

impl Watch {
    fn new(path: &Path) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(std::io::Error::from)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_FROM;
        inotify.add_watch(directory, flags).map_err(std::io::Error::from)?;
        Ok(Self { inotify })
    }

    fn wait(&self) -> Result<()> {
        let timeout = PollTimeout::try_from(HEARTBEAT).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        // What happened does not matter: everything new is read.
        let _ = self.inotify.read_events();
        Ok(())
    }
}

struct Reader {
    path: PathBuf,
    query: Query,
    current: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl Reader {
    /// Every entry so far; `false` when no more is wanted.
    fn read_what_is_there(&mut self, take: &mut dyn FnMut(Entry) -> bool) -> Result<bool> {
        if self.query.tail == Some(0) {
            return self.skip_to_end();
        }
        let mut last: VecDeque<Entry> = VecDeque::new();
        let tail = self.query.tail;
        let mut on = true;
        let mut collect = |entry: Entry| match tail {
            None => take(entry),
            Some(count) => {
                if last.len() == count {
                    last.pop_front();
                }
                last.push_back(entry);
                true
            }
        };
        for file in self.files() {
            on = on && self.read_file(file, &mut collect)?;
        }
        for entry in last {
            on = on && take(entry);
        }
        Ok(on)
    }

    /// Files of the log, oldest first.
    fn files(&self) -> Vec<File> {
        let rotated = (1..MOST_FILES).map_while(|number| File::open(numbered(&self.path, number)).ok());
        let mut files: Vec<File> = rotated.collect();
        files.reverse();
        files.extend(File::open(&self.path));
        files
    }

    fn skip_to_end(&mut self) -> Result<bool> {
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::End(0))?;
            self.current = Some(BufReader::new(file));
        }
        Ok(true)
    }

    fn read_file(&mut self, file: File, take: &mut dyn FnMut(Entry) -> bool) -> Result<bool> {
        self.current = Some(BufReader::new(file));
        self.partial.clear();
        self.read_current(take)
    }

    /// What has been written since, through rotations.
    fn read_on(&mut self, take: &mut dyn FnMut(Entry) -> bool) -> Result<bool> {
        loop {
            if !self.read_current(take)? {
                return Ok(false);
            }
            let Some(next) = self.next_file()? else { return Ok(true) };
            self.current = Some(BufReader::new(next));
            self.partial.clear();
        }
    }

    /// The file after the current one, where the log was rotated.
    fn next_file(&mut self) -> Result<Option<File>> {
        let Some(current) = &mut self.current else { return Ok(File::open(&self.path).ok()) };
        let own = current.get_ref().metadata()?;
        if own.len() < current.stream_position()? {
            // Cut to nothing, the way of a log that has one file only.
            current.seek(SeekFrom::Start(0))?;
            return Ok(None);
        }
        let mut newer = None;
        let candidates =
            std::iter::once(self.path.clone()).chain((1..MOST_FILES).map(|number| numbered(&self.path, number)));
        for path in candidates {
            let Ok(file) = File::open(path) else { break };
            let other = file.metadata()?;
            if (other.dev(), other.ino()) == (own.dev(), own.ino()) {
                return Ok(newer);
            }
            newer = Some(file);
        }
        // The current one has been rotated away altogether: go on with the oldest that is left.
        Ok(newer)
    }

    fn read_current(&mut self, take: &mut dyn FnMut(Entry) -> bool) -> Result<bool> {
        let Some(current) = &mut self.current else { return Ok(true) };
        loop {
            if current.read_until(b'\n', &mut self.partial)? == 0 || self.partial.last() != Some(&b'\n') {
                return Ok(true);
            }
            let line = std::mem::take(&mut self.partial);
            // A line that a full disk has cut short is no entry.
            let Ok(stored) = serde_json::from_slice::<Stored>(&line) else { continue };
            if self.query.since.is_some_and(|since| stored.time < since) {
                continue;
            }
            if self.query.until.is_some_and(|until| stored.time > until) {
                return Ok(false);
            }
            if !take(entry(stored)) {
                return Ok(false);
            }
        }
    }
}

fn entry(stored: Stored) -> Entry {
    let details: Vec<String> = stored.attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Entry {
        kind: if stored.stream == "stderr" { StreamKind::Stderr } else { StreamKind::Stdout },
        time: stored.time,
        text: stored.log,
        details: details.join(","),
    }
}

/// Extra attributes of every entry, as JSON; empty is none.
pub(crate) fn attributes(spec: &SandboxSpec) -> anyhow::Result<String> {
    let attributes = log_attributes(spec).map_err(anyhow::Error::msg)?;
    if attributes.is_empty() { Ok(String::new()) } else { Ok(serde_json::to_string(&attributes)?) }
}
