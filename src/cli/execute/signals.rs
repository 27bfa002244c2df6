//! Signals that this process receives while it stands at a container's streams: passed on (`--sig-proxy`), and the size of
//! the window kept the same inside.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use sbx_engine::Client;
use sbx_protocol::{Request, SessionId};
use sbx_sandbox::id::Id;

use super::run::terminal_size;

/// Signals that are about this process alone.
const OWN: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGURG,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
];

/// Signals that wait until there is somebody to pass them on to. They are this process's own again when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldSignals {
    wanted: SigSet,
    before: SigSet,
}

impl HeldSignals {
    /// Holds signals back from here on, in threads made later as well. It comes before the start of the program: one that
    /// can be seen to run gets what is sent to this process.
    pub(crate) fn hold(proxy: bool, window: bool) -> io::Result<Self> {
        let mut wanted = SigSet::empty();
        if proxy {
            wanted = SigSet::all();
            for signal in OWN {
                wanted.remove(signal);
            }
            wanted.remove(Signal::SIGWINCH);
        }
        if window {
            wanted.add(Signal::SIGWINCH);
        }
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), Some(&mut before))?;
        Ok(Self { wanted, before })
    }

    /// Passes them on, in a thread of its own, until this process ends.
    pub(crate) fn forward(&self, client: &Client, id: &Id, session: SessionId) -> io::Result<()> {
        if self.wanted == SigSet::empty() {
            return Ok(());
        }
        let other = match client.another() {
            Ok(other) => other,
            // The container has ended already: what it leaves is still to be read, and nobody is there for signals.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (wanted, id) = (self.wanted, id.clone());
        let thread = thread::Builder::new().name("signals".to_owned()).stack_size(256 << 10);
        thread.spawn(move || forward(&wanted, other, &id, session)).map(drop)
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // From here on the signals mean this process again.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

fn forward(wanted: &SigSet, mut client: Client, id: &Id, session: SessionId) {
    while let Ok(signal) = wanted.wait() {
        let told = if signal == Signal::SIGWINCH {
            match terminal_size() {
                Some(size) => client.resize(session, size),
                None => Ok(()),
            }
        } else {
            client.tell(&Request::Kill { container: id.to_string(), signal: signal as i32 })
        };
        if let Err(sbx_engine::ClientError::Gone | sbx_engine::ClientError::Broken(_)) = told {
            return;
        }
    }
}
