//! What a container's first process is where it is ours. The keeper does nothing but live, as long as somebody is at the
//! container's files. The reaper of `--init` is PID 1 that runs one program as its child, hands signals on to it, reaps every orphan, and ends
//! as the child ended.
//!
//! It is this program again, executed inside the container under the name [`NAME`] from an open file, so that the image
//! needs nothing and the container sees an ordinary small process.

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::error::describe;
use crate::sys;

/// `argv[0]` of the reaper.
pub const NAME: &CStr = c"sbx-init";

/// The only argument of the keeper.
pub(crate) const KEEP: &CStr = c"--keep";

/// Runs the reaper: `NAME -- PATH ARGV0 ARGS…`, or the keeper: `NAME --keep`. Never returns.
pub fn main(args: Vec<OsString>) -> ! {
    if args.get(1).is_some_and(|argument| argument.as_encoded_bytes() == KEEP.to_bytes()) {
        keep();
    }
    let args: Vec<CString> =
        args.into_iter().skip(2).filter_map(|argument| CString::new(argument.into_vec()).ok()).collect();
    let Some((path, argv)) = args.split_first() else {
        eprintln!("sbx-init: usage: sbx-init -- PATH ARGV0 [ARG...]");
        sys::exit_now(125);
    };
    let all = SigSet::all();
    let mut before = SigSet::empty();
    if let Err(error) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before)) {
        eprintln!("sbx-init: block signals: {error}");
        sys::exit_now(125);
    }
    match sys::fork() {
        Ok(ForkResult::Child) => {
            sys::default_signals();
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
            let env: Vec<CString> = std::env::vars_os().filter_map(entry).collect();
            let error = sys::execve(path, argv, &env);
            eprintln!("sbx-init: exec {}: {}", path.to_string_lossy(), describe(&error));
            let status = if error.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 };
            sys::exit_now(status);
        }
        Ok(ForkResult::Parent { child }) => watch(child, &all),
        Err(error) => {
            eprintln!("sbx-init: fork: {error}");
            sys::exit_now(125);
        }
    }
}

/// Waits for SIGKILL: nobody reaches the first process of a PID namespace with anything else that it does not handle
/// (pid_namespaces(7)).
fn keep() -> ! {
    loop {
        nix::unistd::pause();
    }
}

fn entry((name, value): (OsString, OsString)) -> Option<CString> {
    let mut bytes = name.into_vec();
    bytes.push(b'=');
    bytes.extend(value.into_vec());
    CString::new(bytes).ok()
}

/// Hands signals on and reaps until the child has ended.
fn watch(child: Pid, all: &SigSet) -> ! {
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(child) {
                    sys::exit_now(status);
                }
            }
            // A child that is gone is about to be reaped; there is nobody to tell.
            Ok(signal) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Reaps whatever has ended; the exit status of `child` once it has.
fn reap(child: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => ended = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => ended = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}
