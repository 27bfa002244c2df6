//! What can go wrong with a cgroup, in words for whoever set the limit.
//!
//! An error about a limit starts with the name of the option that asked for it (Docker's spelling), because that is
//! the one thing the reader can change; an error about the machinery names the step and the path.

use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this folder.
pub type Result<T> = std::result::Result<T, Error>;

/// A cgroup could not be made, limited, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup file system is mounted at all.
    #[error("no cgroup file system is mounted; mount cgroup2 on /sys/fs/cgroup")]
    NotMounted,
    /// A path that could leave its place in the hierarchy.
    #[error("cgroup path {path:?} is not usable: {reason}")]
    BadPath {
        /// As it was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cgroup to be made is already somebody's.
    #[error("cgroup {} already holds {processes} process(es); use another name or stop them first", path.display())]
    InUse {
        /// Its directory.
        path: PathBuf,
        /// How many are inside.
        processes: usize,
    },
    /// The kernel has no way to enforce a setting.
    #[error("{setting}: {reason}")]
    Unsupported {
        /// The option that asked for it.
        setting: String,
        /// Why not, with the missing file or feature.
        reason: String,
    },
    /// A value that has no meaning.
    #[error("{setting}: {value:?} is not usable: {reason}")]
    BadValue {
        /// The option that asked for it.
        setting: String,
        /// As it was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A controller that a limit needs cannot be passed down to the cgroup.
    #[error("{setting}: the {controller} controller cannot be enabled for the children of {}: {source}{}", directory.display(), hint(source))]
    Delegation {
        /// The option that asked for it.
        setting: String,
        /// The controller.
        controller: String,
        /// The cgroup that does not pass it on.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the value of a setting.
    #[error("{setting}: the kernel refused {value:?} for {}: {source}", file.display())]
    Refused {
        /// The option that asked for it.
        setting: String,
        /// As it was written.
        value: String,
        /// The file it was written to.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step failed that no option asked for.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// `create cgroup`, `read`, ...
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A cgroup file says something that this version does not understand.
    #[error("cannot understand {}: {content:?}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says.
        content: String,
    },
    /// The kernel did not get there in time.
    #[error("cannot {step} {}: not done after {seconds} s{detail}", path.display())]
    Timeout {
        /// `freeze`, `kill`, `remove`, ...
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
        /// What was left, starting with a separator, or empty.
        detail: String,
    },
}

impl Error {
    /// For `map_err` on an operation that no option asked for.
    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { step, path: path.to_path_buf(), source }
    }

    /// A setting that this kernel or this kind of hierarchy does not have.
    pub(crate) fn unsupported(setting: &str, reason: impl Into<String>) -> Error {
        Error::Unsupported { setting: setting.to_owned(), reason: reason.into() }
    }
}

/// What to do about a refused delegation.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => {
            " (it holds processes of its own, and a v2 cgroup passes controllers on only when it is empty: choose another --cgroup-parent)"
        }
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => " (it was not delegated to this user)",
        _ => "",
    }
}
