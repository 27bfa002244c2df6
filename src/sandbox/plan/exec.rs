//! Processes that join a running container (`exec`).
//!
//! As in Docker they have the container's environment, user, capabilities, limits and filter unless told otherwise.
//! `--privileged` gives every capability.

use sbx_container::plan::{ProcessPlan, TerminalSize, User};

use super::{Error, process};
use crate::capabilities;
use crate::environment::{self, Stdio};
use crate::facts::MachineFacts;
use crate::oci;
use crate::spec::SandboxSpec;

/// What is asked of an `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Over the container's: `NAME=value`, or `NAME` to remove one.
    pub env: Vec<String>,
    /// `user[:group]`; empty is the container's.
    pub user: String,
    /// Absolute path; empty is the container's.
    pub working_dir: String,
    /// A terminal of this size; `None` is streams.
    pub terminal: Option<TerminalSize>,
    /// Without a terminal: a pipe as standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Every capability.
    pub privileged: bool,
}

/// The plan of a process that joins a container.
///
/// Errors: no command, a relative working directory, a null byte, or what the container's specification says wrong.
pub fn exec_process(spec: &SandboxSpec, machine: &MachineFacts, request: &ExecRequest) -> Result<ProcessPlan, Error> {
    let stdio = if request.terminal.is_some() { Stdio::Terminal } else { Stdio::Streams };
    let base = oci::process(spec).map_err(|error| Error::invalid("process", error.to_string()))?;
    let mut joined = process::process(&base, Some(user(spec, request)), None)?;
    joined.args = request.args.clone();
    joined.env = environment::merge(environment::of_container(&spec.config, stdio), &request.env);
    if !request.working_dir.is_empty() {
        joined.cwd = request.working_dir.clone();
    }
    joined.terminal = request.terminal;
    joined.stdin = request.stdin;
    if request.privileged {
        joined.capabilities = capabilities::sets(capabilities::all(machine.cap_last_cap));
    }
    joined.seccomp = oci::profile(spec, machine).map_err(|error| Error::invalid("linux.seccomp", error.to_string()))?;
    check(&joined)?;
    Ok(joined)
}

/// The container's groups come along also with a user of the request's own, as in Docker.
fn user(spec: &SandboxSpec, request: &ExecRequest) -> User {
    let user = if request.user.is_empty() { &spec.config.user } else { &request.user };
    User::Named { spec: user.clone(), group_add: spec.host_config.group_add.clone() }
}

fn check(process: &ProcessPlan) -> Result<(), Error> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args", "no exec command specified"));
    }
    if let Some(word) = process.args.iter().chain(&process.env).find(|word| word.contains('\0')) {
        return Err(Error::invalid("process", format!("{word:?} contains a null byte")));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid("process.cwd", format!("Cwd must be an absolute path, {:?} is not", process.cwd)));
    }
    Ok(())
}
