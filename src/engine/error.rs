//! Errors of the engine: what failed, and what kind of failure it is for exit codes and HTTP statuses.

use sbx_protocol::{Failure, FailureKind};
use sbx_sandbox::store::StoreError;

use crate::client::ClientError;

/// A failure that a user sees.
#[derive(Debug)]
pub struct Error {
    /// What kind.
    pub kind: ErrorKind,
    source: anyhow::Error,
}

/// Kinds that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such container, image, volume ….
    NotFound,
    /// The request contradicts itself or asks for something that cannot be had.
    Invalid,
    /// The request does not fit the state.
    Conflict,
    /// The program to be run does not exist.
    ProgramNotFound,
    /// The program to be run cannot be executed.
    ProgramNotExecutable,
    /// Anything else.
    Other,
}

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of one kind with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, source: anyhow::Error::msg(message.into()) }
    }

    /// Whether it is an output that nobody reads any more, as it came from whoever was to write to it.
    pub fn is_broken_pipe(&self) -> bool {
        let cause = self.source.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Gives a failure of another kind a kind.
    pub fn of(kind: ErrorKind, source: impl Into<anyhow::Error>) -> Self {
        Self { kind, source: source.into() }
    }
}

impl std::fmt::Display for Error {
    /// The whole chain in one line: errors are printed once, at the top.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:#}", self.source)
    }
}

impl std::error::Error for Error {}

impl From<anyhow::Error> for Error {
    fn from(source: anyhow::Error) -> Self {
        Self { kind: ErrorKind::Other, source }
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::of(ErrorKind::Other, source)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound(_) => ErrorKind::NotFound,
            StoreError::Ambiguous(_) | StoreError::Name(_) | StoreError::SameName => ErrorKind::Invalid,
            StoreError::NameInUse { .. } | StoreError::Transition { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Other,
        };
        Self::of(kind, error)
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Refused(failure) => kind_of(failure),
            ClientError::Gone | ClientError::Silent(_) | ClientError::Broken(_) => ErrorKind::Other,
        };
        Self::of(kind, error)
    }
}

fn kind_of(failure: &Failure) -> ErrorKind {
    match failure.kind {
        FailureKind::NotFound => ErrorKind::ProgramNotFound,
        FailureKind::NotExecutable => ErrorKind::ProgramNotExecutable,
        FailureKind::Conflict => ErrorKind::Conflict,
        FailureKind::NoSuch => ErrorKind::NotFound,
        FailureKind::Other => ErrorKind::Other,
    }
}

impl From<sbx_image::Error> for Error {
    fn from(error: sbx_image::Error) -> Self {
        let kind = match error.kind() {
            sbx_image::ErrorKind::NotFound => ErrorKind::NotFound,
            sbx_image::ErrorKind::Conflict => ErrorKind::Conflict,
            sbx_image::ErrorKind::Invalid => ErrorKind::Invalid,
            _ => ErrorKind::Other,
        };
        Self::of(kind, error)
    }
}

impl From<sbx_rootfs::RootfsError> for Error {
    fn from(error: sbx_rootfs::RootfsError) -> Self {
        Self::of(ErrorKind::Other, error)
    }
}

impl From<sbx_sandbox::resolve::Invalid> for Error {
    fn from(error: sbx_sandbox::resolve::Invalid) -> Self {
        Self::of(ErrorKind::Invalid, error)
    }
}
