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

/// A thread that takes the signals of this process for as long as it lives.
#[derive(Debug)]
pub(crate) struct Forwarding {
    before: SigSet,
}

impl Forwarding {
    /// Begins. Signals are blocked here, so that threads made later do not get them.
    pub(crate) fn begin(client: &Client, id: &Id, session: SessionId, proxy: bool, window: bool) -> io::Result<Self> {
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
        let forwarding = Self { before };
        if proxy || window {
            let other = match client.another() {
                Ok(other) => other,
                // The container has ended already: what it leaves is still to be read, and nobody is there for signals.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Ok(forwarding);
                }
                Err(error) => return Err(error),
            };
            let id = id.clone();
            thread::Builder::new()
                .name("signals".to_owned())
                .stack_size(256 << 10)
                .spawn(move || forward(&wanted, other, &id, session))?;
        }
        Ok(forwarding)
    }
}

impl Drop for Forwarding {
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
