//! Which system calls a container may make: Docker's default profile, and profiles in Docker's format or OCI's.
//!
//! A profile says for whom its rules are: for containers with a capability, for an architecture, from a kernel
//! version on. Here it is reduced to the rules of one container, a [`plan::Seccomp`] that `sbx-container` compiles on
//! the kernel that runs it.

mod default;
mod document;
mod profile;

use sbx_container::plan;

use self::profile::{Architecture, Host};

/// What runc sets where a profile says nothing of flags: without it, every confined thread would pay for the
/// mitigation of speculative store bypass (kernels before 5.16).
const DEFAULT_FLAG: &str = "SECCOMP_FILTER_FLAG_SPEC_ALLOW";

/// Why a profile cannot be used. Every variant names the field.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, a field that is not known, or a value of another type.
    #[error("seccomp profile: {0}")]
    Format(#[from] serde_json::Error),
    /// A field that must be there.
    #[error("seccomp profile: {field} is missing")]
    Missing {
        /// `syscalls[2].action`.
        field: String,
    },
    /// A value that is not known.
    #[error("seccomp profile: {field}: {value:?} is not {expected}")]
    Value {
        /// `syscalls[2].args[0].op`.
        field: String,
        /// As it was found.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Two fields that exclude each other.
    #[error("seccomp profile: {first} and {second} are both given; use either")]
    Both {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// Something of the format that is not offered.
    #[error("seccomp profile: {field} is not supported: {reason}")]
    Unsupported {
        /// `listenerPath`.
        field: String,
        /// And what to do.
        reason: &'static str,
    },
}

/// Docker's default profile for a container.
///
/// `capabilities` is its bounding set, by name; `kernel` is the version of the kernel that runs it, major and minor.
#[must_use]
pub fn default_profile(capabilities: &[String], kernel: (u32, u32)) -> plan::Seccomp {
    default::profile(Architecture::NATIVE).reduce(&Host { architecture: Architecture::NATIVE, capabilities, kernel })
}

/// A profile as `--security-opt seccomp=FILE` takes it: Docker's format, of which OCI's `linux.seccomp` is a subset.
///
/// `capabilities` and `kernel` are as for [`default_profile`].
///
/// # Errors
/// What is not JSON or not known, named by its field; `listenerPath` and SCMP_ACT_NOTIFY, because nobody would
/// answer. Names of system calls are not checked: a kernel may have more or fewer than this program knows.
pub fn from_json(text: &str, capabilities: &[String], kernel: (u32, u32)) -> Result<plan::Seccomp, Error> {
    let profile = document::parse(text, Architecture::NATIVE)?;
    Ok(profile.reduce(&Host { architecture: Architecture::NATIVE, capabilities, kernel }))
}

#[cfg(test)]
mod tests;
