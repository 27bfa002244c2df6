//! The user's terminal: raw mode, size, signals. The only system calls of this crate are here.
//!
//! Raw mode must end however the program ends, or the user is left with a shell that does not echo. Return, `?` and a panic
//! drop the guard. A signal would not, so [`Signals`] takes them off their usual course: they are blocked and read from a
//! descriptor beside the other input, where the loop that reads them passes them on to the container or returns.

mod sys;

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
    termios::{self, SetArg, Termios},
};

/// What the terminal refused.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// Raw mode could not be set.
    #[error("setting the terminal to raw mode: {0}")]
    RawMode(nix::Error),
    /// Signals could not be taken.
    #[error("taking signals: {0}")]
    Signals(nix::Error),
}

/// Whether the descriptor is a terminal.
pub fn is_terminal(descriptor: impl AsFd) -> bool {
    termios::tcgetattr(descriptor).is_ok()
}

/// Rows and columns, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The size of the terminal; `None` where the descriptor is none, or does not know.
pub fn window_size(terminal: BorrowedFd<'_>) -> Option<WindowSize> {
    let size = sys::window_size(terminal).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// A terminal that passes every key on and changes no output, until this is dropped.
pub struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Enters raw mode (`cfmakeraw(3)`).
    ///
    /// # Errors
    /// The descriptor is no terminal.
    pub fn enter(terminal: BorrowedFd<'a>) -> Result<Self, TerminalError> {
        let before = termios::tcgetattr(terminal).map_err(TerminalError::RawMode)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // Keys typed before are kept: they may be meant for the container.
        termios::tcsetattr(terminal, SetArg::TCSADRAIN, &raw).map_err(TerminalError::RawMode)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring, and nobody is left to be told.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Signals of this process, read from a descriptor until this is dropped.
///
/// Only the calling thread blocks them: threads that start later inherit that, those that run already must not be there.
pub struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Takes these signals.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn take(signals: &[Signal]) -> Result<Self, TerminalError> {
        let set: SigSet = signals.iter().copied().collect();
        let before = SigSet::thread_get_mask().map_err(TerminalError::Signals)?;
        set.thread_block().map_err(TerminalError::Signals)?;
        match SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) {
            Ok(descriptor) => Ok(Self { descriptor, before }),
            Err(error) => {
                before.thread_set_mask().map_err(TerminalError::Signals)?;
                Err(TerminalError::Signals(error))
            }
        }
    }

    /// Those that are passed on to a container: all that a process may catch, but those that the kernel sends for the
    /// process's own sake (a child, a pipe, a fault, the terminal's job control).
    ///
    /// # Errors
    /// As [`Signals::take`].
    pub fn take_for_proxy() -> Result<Self, TerminalError> {
        let own = [
            Signal::SIGKILL,
            Signal::SIGSTOP,
            Signal::SIGCHLD,
            Signal::SIGPIPE,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGABRT,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
        ];
        let passed: Vec<Signal> = Signal::iterator().filter(|signal| !own.contains(signal)).collect();
        Self::take(&passed)
    }

    /// The next signal that has arrived; `None` where there is none.
    ///
    /// # Errors
    /// The descriptor fails.
    pub fn next(&self) -> Result<Option<Signal>, TerminalError> {
        let info = self.descriptor.read_signal().map_err(TerminalError::Signals)?;
        let number = info.and_then(|info| i32::try_from(info.ssi_signo).ok());
        Ok(number.and_then(|number| Signal::try_from(number).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The mask was read from the kernel, which takes it back.
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::{
        pty::{Winsize, openpty},
        sys::termios::{LocalFlags, tcgetattr},
    };

    use super::*;

    fn terminal(size: Option<&Winsize>) -> (OwnedFd, OwnedFd) {
        let pair = openpty(size, None).unwrap();
        (pair.master, pair.slave)
    }

    fn echoes(terminal: &OwnedFd) -> bool {
        tcgetattr(terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    #[test]
    fn raw_mode_ends_with_the_guard_and_with_a_panic() {
        let (_master, slave) = terminal(None);
        assert!(is_terminal(&slave) && echoes(&slave));
        {
            let _raw = RawMode::enter(slave.as_fd()).unwrap();
            assert!(!echoes(&slave));
        }
        assert!(echoes(&slave));
        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawMode::enter(slave.as_fd()).unwrap();
            assert!(echoes(&slave), "raw mode does not echo: this is the panic");
        });
        assert!(panicked.is_err() && echoes(&slave));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_terminal(&file));
        assert!(window_size(file.as_fd()).is_none());
        assert!(RawMode::enter(file.as_fd()).is_err());
    }

    #[test]
    fn the_size_is_that_of_the_window() {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let (_master, slave) = terminal(Some(&size));
        assert_eq!(window_size(slave.as_fd()), Some(WindowSize { rows: 30, columns: 100 }));
    }

    #[test]
    fn signals_are_read_and_the_mask_comes_back() {
        let before = SigSet::thread_get_mask().unwrap();
        {
            let signals = Signals::take(&[Signal::SIGUSR2]).unwrap();
            assert_eq!(signals.next().unwrap(), None);
            // To this thread: other tests' threads do not block it.
            nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
            assert_eq!(signals.next().unwrap(), Some(Signal::SIGUSR2));
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
