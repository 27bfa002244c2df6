//! Failures between the supervisor and its clients, and what they mean as exit codes.

use sbx_protocol::{Failure, FailureKind};

/// A failure without a special meaning.
pub(crate) fn other(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Other, message: message.into() }
}

/// A request that does not fit the state.
pub(crate) fn conflict(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Conflict, message: message.into() }
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
