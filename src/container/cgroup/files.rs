//! Reading and writing the small files of a cgroup, with errors that name the option behind a write.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// Writes a value because `setting` (an option name) asked for it. One write(2): the kernel parses each by itself.
pub(super) fn set(setting: &str, directory: &Path, file: &str, value: &str) -> Result<()> {
    match write(&directory.join(file), value) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::unsupported(setting, format!("this kernel has no {file}")))
        }
        Err(source) => Err(refused(setting, directory, file, value, source)),
    }
}

/// The error of a value that the kernel did not take.
pub(super) fn refused(setting: &str, directory: &Path, file: &str, value: &str, source: io::Error) -> Error {
    Error::Refused { setting: setting.to_owned(), value: value.to_owned(), file: directory.join(file), source }
}

/// Writes without making the file: cgroup files exist or are not supported.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io("read", path))
}

/// The text of a file; `None` when it, or its cgroup, is not there.
pub(super) fn read_existing(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(Error::Io { step: "read", path: path.to_path_buf(), source }),
    }
}

/// A number; `None` when the file is not there or says `max`, and for v1's way of saying so, the highest multiple of
/// the page size (`PAGE_COUNTER_MAX`).
pub(super) fn read_limit(path: &Path) -> Result<Option<u64>> {
    let Some(text) = read_existing(path)? else {
        return Ok(None);
    };
    Ok(match text.trim() {
        "max" => None,
        text => Some(number(path, text)?).filter(|&value| value < (i64::MAX as u64) - 0xffff),
    })
}

/// A number; `None` when the file is not there.
pub(super) fn read_number(path: &Path) -> Result<Option<u64>> {
    read_existing(path)?.map(|text| number(path, text.trim())).transpose()
}

fn number(path: &Path, text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Malformed { path: path.to_path_buf(), content: text.chars().take(80).collect() })
}

/// The value of `key` in a flat keyed file (`key value` lines).
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok())
}

/// A cgroup that was removed says ENOENT on open and ENODEV on read.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Waits for the kernel with growing naps and a deadline. Naps instead of poll(2) on `cgroup.events`: notifications
/// of that file come at most every 10 ms (`CGROUP_FILE_NOTIFY_MIN_INTV`), and what is waited for takes less.
pub(super) struct Patience {
    deadline: Instant,
    limit: Duration,
    nap: Duration,
}

impl Patience {
    /// Starts the clock.
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { deadline: Instant::now() + limit, limit, nap: Duration::from_micros(50) }
    }

    /// Naps and is true, or is false when time is up.
    pub(super) fn wait(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        thread::sleep(self.nap);
        self.nap = (self.nap * 2).min(Duration::from_millis(10));
        true
    }

    /// What to say when time is up.
    pub(super) fn over(&self, step: &'static str, path: &Path, detail: String) -> Error {
        Error::Timeout { step, path: path.to_path_buf(), seconds: self.limit.as_secs(), detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_finds_whole_names() {
        let text = "oom 3\noom_kill 2\nmax 18446744073709551615\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "oom"), Some(3));
        assert_eq!(keyed(text, "max"), Some(u64::MAX));
        assert_eq!(keyed(text, "low"), None);
    }

    #[test]
    fn limits_read_max_in_both_dialects() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("limit");
        for (text, expected) in
            [("max\n", None), ("9223372036854771712\n", None), ("9223372036854710272\n", None), ("4096\n", Some(4096))]
        {
            fs::write(&file, text).unwrap();
            assert_eq!(read_limit(&file).unwrap(), expected, "{text}");
        }
        fs::write(&file, "lots").unwrap();
        assert!(read_limit(&file).unwrap_err().to_string().contains("lots"));
        assert_eq!(read_limit(&directory.path().join("absent")).unwrap(), None);
    }

    #[test]
    fn a_missing_file_names_the_option() {
        let directory = tempfile::tempdir().unwrap();
        let error = set("--memory", directory.path(), "memory.max", "1").unwrap_err();
        assert_eq!(error.to_string(), "--memory: this kernel has no memory.max");
        assert!(!directory.path().join("memory.max").exists());
    }
}
