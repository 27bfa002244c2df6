//! A [`plan::ContainerPlan`] becomes a running process on this kernel.
//!
//! The same lines run wherever containers are made; nothing here knows where that is. The caller hands over the
//! plan, the root mount and pipes as descriptors, and gets a process that waits for its start. Everything that can
//! fail for a reason that lies in the plan fails before that process runs the user's program, with an [`Error`]
//! that names the step and the subject.
//!
//! The caller must be single-threaded: between clone3(2) and execve(2) the child runs ordinary Rust code on a copy
//! of the caller's memory.

pub mod capabilities;
pub mod cgroup;
mod channel;
mod child;
mod create;
mod devices;
mod error;
pub mod files;
mod forked;
pub mod init;
mod interfaces;
mod join;
mod mounts;
mod namespaces;
pub mod netlink;
pub mod overlay;
mod path;
pub mod plan;
mod process;
mod read_ahead;
pub mod seccomp;
mod stdio;
pub mod sys;
pub mod usage;
mod user;

pub use create::{Handles, Prepared, create};
pub use error::{Error, ErrorKind};
pub use forked::Helper;
pub use join::{Target, join};
pub use namespaces::user_namespace;
pub use stdio::{ProcessIo, Running};
