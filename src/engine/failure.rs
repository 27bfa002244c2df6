//! Failures between the supervisor and its clients, and what they mean as exit codes.

use sbx_container::{Error, ErrorKind};
use sbx_protocol::{Failure, FailureKind};

/// A failure without a special meaning.
pub(crate) fn other(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Other, message: message.into() }
}

/// A request that does not fit the state.
pub(crate) fn conflict(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Conflict, message: message.into() }
}

/// What the container room said.
pub(crate) fn of_container(error: &Error) -> Failure {
    let kind = match error.kind {
        ErrorKind::NotFound => FailureKind::NotFound,
        ErrorKind::NotExecutable => FailureKind::NotExecutable,
        ErrorKind::Other => FailureKind::Other,
    };
    Failure { kind, message: error.message.clone() }
}

/// Docker's exit code for a start that failed.
#[must_use]
pub fn exit_code(kind: FailureKind) -> i32 {
    match kind {
        FailureKind::NotFound => 127,
        FailureKind::NotExecutable => 126,
        FailureKind::Conflict | FailureKind::NoSuch | FailureKind::Other => 125,
    }
}
