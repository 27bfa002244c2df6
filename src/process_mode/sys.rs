//! Helper processes of a supervisor: forked, never executed, and gone when the supervisor is.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getppid};

/// A helper that runs.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: Pid,
}

impl Helper {
    /// Ends it and waits for its end.
    pub(crate) fn stop(self) {
        // One that has ended by itself is as good.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Runs `work` in a child that keeps no descriptors but `kept` and dies with this process.
pub(crate) fn helper(kept: Vec<RawFd>, work: impl FnOnce() -> io::Result<()>) -> io::Result<Helper> {
    let parent = nix::unistd::getpid();
    // SAFETY: a supervisor has one thread, so the child's copy of its memory is whole and unlocked.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Helper { pid: child }),
        ForkResult::Child => {
            let status = match isolate(parent, kept).and_then(|()| work()) {
                Ok(()) => 0,
                Err(_) => 1,
            };
            // SAFETY: ends the copy at once, without running what belongs to the original.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Lets go of everything that belongs to the supervisor alone: locks would outlive it in this copy.
fn isolate(parent: Pid, mut kept: Vec<RawFd>) -> io::Result<()> {
    // SAFETY: plain integers only.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if getppid() != parent {
        return Err(io::ErrorKind::NotFound.into());
    }
    let none = nix::sys::signal::SigSet::empty();
    nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&none), None)?;
    kept.sort_unstable();
    let mut next = 3;
    for fd in kept {
        close_between(next, fd - 1)?;
        next = fd + 1;
    }
    close_between(next, RawFd::MAX)
}

fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the descriptors belong to values that this copy of the process never touches or drops again.
    if unsafe { libc::syscall(libc::SYS_close_range, first as u32, last as u32, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
