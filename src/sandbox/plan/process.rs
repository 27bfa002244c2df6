//! The process of an OCI configuration becomes the plan's.

use oci_spec::runtime::{Capabilities as OciCapabilities, LinuxCapabilities, PosixRlimit, Process};
use sbx_container::plan::{Capabilities, ProcessPlan, Rlimit, TerminalSize, User};

use super::{Error, text};

pub(super) fn process(
    process: &Process,
    user: Option<User>,
    console: Option<TerminalSize>,
) -> Result<ProcessPlan, Error> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args", "no command is given"));
    }
    let env = process.env().clone().unwrap_or_default();
    if let Some(word) = args.iter().chain(&env).find(|word| word.contains('\0')) {
        return Err(Error::invalid("process", format!("{word:?} contains a null byte")));
    }
    let cwd = text("process.cwd", process.cwd().as_os_str())?;
    if !cwd.starts_with('/') {
        return Err(Error::invalid("process.cwd", format!("{cwd:?} is not an absolute path")));
    }
    Ok(ProcessPlan {
        args,
        env,
        cwd,
        user: user.unwrap_or_else(|| numbers(process)),
        capabilities: process.capabilities().as_ref().map(capabilities).unwrap_or_default(),
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        seccomp: None,
        terminal: terminal(process, console)?,
        // OCI has no word for it: whoever runs the process decides.
        stdin: false,
        oom_score_adj: process.oom_score_adj(),
        apparmor: process.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
        selinux: process.selinux_label().clone().filter(|label| !label.is_empty()),
    })
}

fn numbers(process: &Process) -> User {
    let user = process.user();
    User::Ids { uid: user.uid(), gid: user.gid(), additional_gids: user.additional_gids().clone().unwrap_or_default() }
}

fn terminal(process: &Process, console: Option<TerminalSize>) -> Result<Option<TerminalSize>, Error> {
    if process.terminal() != Some(true) {
        return Ok(None);
    }
    if console.is_some() {
        return Ok(console);
    }
    let Some(size) = process.console_size() else {
        return Ok(Some(TerminalSize::default()));
    };
    let characters = |value: u64| {
        u16::try_from(value).map_err(|_| Error::invalid("process.consoleSize", format!("{value} is more than 65535")))
    };
    Ok(Some(TerminalSize { rows: characters(size.height())?, columns: characters(size.width())? }))
}

fn capabilities(sets: &LinuxCapabilities) -> Capabilities {
    Capabilities {
        bounding: names(sets.bounding().as_ref()),
        effective: names(sets.effective().as_ref()),
        inheritable: names(sets.inheritable().as_ref()),
        permitted: names(sets.permitted().as_ref()),
        ambient: names(sets.ambient().as_ref()),
    }
}

/// Sorted, so that equal configurations give equal plans.
fn names(set: Option<&OciCapabilities>) -> Vec<String> {
    let mut names: Vec<String> = set.into_iter().flatten().map(|capability| format!("CAP_{capability}")).collect();
    names.sort();
    names
}

fn rlimit(limit: &PosixRlimit) -> Rlimit {
    Rlimit { kind: limit.typ().to_string(), soft: limit.soft(), hard: limit.hard() }
}
