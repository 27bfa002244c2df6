//! Helper processes: forked from a process with one thread, never executed, and gone when their maker is.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

use crate::sys;

/// A helper that runs.
#[derive(Debug)]
pub struct Helper {
    pid: Pid,
    /// Kept, because only one wait(2) tells it.
    status: Cell<Option<i32>>,
}

impl Helper {
    /// Runs `work` in a child that keeps no descriptors but `kept` and the standard streams, and that dies with this
    /// process. The child's exit status is what `work` returns.
    ///
    /// The caller must have one thread: the child goes on with a copy of its memory.
    pub fn spawn(kept: Vec<RawFd>, work: impl FnOnce() -> u8) -> io::Result<Self> {
        let maker = getpid();
        match sys::fork()? {
            ForkResult::Parent { child } => Ok(Self { pid: child, status: Cell::new(None) }),
            ForkResult::Child => sys::exit_now(match isolate(maker, kept) {
                Ok(()) => i32::from(work()),
                Err(_) => 1,
            }),
        }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How it has ended: its exit status, or 128 and the number of the signal. `None` while it runs.
    pub fn ended(&self) -> Option<i32> {
        if self.status.get().is_none() {
            self.status.set(match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, status)) => Some(status),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
                Ok(_) | Err(nix::Error::EINTR) => None,
                // Reaped by somebody else, which nobody may.
                Err(_) => Some(255),
            });
        }
        self.status.get()
    }

    /// Ends it and waits for its end.
    pub fn stop(self) {
        if self.ended().is_some() {
            // Its number may be another process's by now.
            return;
        }
        // One that has ended by itself is as good.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Lets go of everything that belongs to the maker alone: locks would outlive it in this copy.
fn isolate(maker: Pid, mut kept: Vec<RawFd>) -> io::Result<()> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    if getppid() != maker {
        return Err(io::ErrorKind::NotFound.into());
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    kept.sort_unstable();
    let mut next = 3;
    for fd in kept {
        sys::close_between(next, fd - 1)?;
        next = fd + 1;
    }
    sys::close_between(next, RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_helper_has_what_was_kept_and_nothing_else() {
        let (mut read, mut write) = io::pipe().unwrap();
        let (other, _held) = io::pipe().unwrap();
        let (kept, lost) = (write.as_raw_fd(), other.as_raw_fd());
        let helper = Helper::spawn(vec![kept], || {
            let gone = nix::sys::stat::fstat(&other).is_err();
            u8::from(write.write_all(if gone { b"gone" } else { b"here" }).is_err())
        })
        .unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "gone", "descriptor {lost}");
        while helper.ended().is_none() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_helper_is_stopped_and_reaped() {
        let helper = Helper::spawn(Vec::new(), || {
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        let pid = Pid::from_raw(helper.pid());
        assert_eq!(helper.ended(), None);
        helper.stop();
        assert!(kill(pid, None).is_err());
    }
}
