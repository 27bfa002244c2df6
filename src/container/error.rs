//! The one error of this crate: which step failed, on what, and why; it crosses the pipe from the child as it is.

use std::io;

pub(crate) use sbx_archive::describe;
use serde::{Deserialize, Serialize};

/// Why a container or a process could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is, for exit codes.
    pub kind: ErrorKind,
    /// The step, the subject and the cause in one line.
    pub message: String,
}

/// What a failure means to the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The program does not exist (exit code 127).
    NotFound,
    /// The program exists and cannot be executed (exit code 126).
    NotExecutable,
    /// Anything else (exit code 125, or 126 where runc's callers expect it of exec).
    Other,
}

impl Error {
    /// A failure of one step: `step subject: cause`.
    pub fn new(step: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self { kind: ErrorKind::Other, message: format!("{step}: {cause}") }
    }

    /// A failure with a message of its own.
    pub fn of_kind(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Names the step of an I/O error.
pub(crate) trait Step<T> {
    /// `step` is formatted only when there is an error.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error::new(step(), describe(&cause)))
    }
}

impl<T> Step<T> for nix::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error::new(step(), describe(&cause.into())))
    }
}
