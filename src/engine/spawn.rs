//! From a container on disk to a supervisor that serves it.
//!
//! The order matters for whoever is killed in the middle: the sandbox's lock file is the intent, it exists before
//! anything else does, and the lock passes from here to the supervisor without ever being free.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};
use nix::fcntl::FlockArg;

use crate::client::Client;
use crate::lock;
use crate::paths::{Paths, Sandboxed, short};
use crate::standby::Standby;

/// Makes `standby` the supervisor of its container; gives a connection to it.
pub(crate) fn spawn(paths: &Paths, standby: Standby) -> anyhow::Result<Client> {
    let sandboxed = paths.sandbox(standby.id().as_str());
    let claim = claim(paths, &sandboxed)?;
    let started = serve(&sandboxed, standby, &claim);
    if started.is_err() {
        // Nobody has it; what remains would be found by the next command.
        let _ = sandboxed.remove();
    }
    started
}

/// The sandbox's lock, made and held.
pub(crate) fn claim(paths: &Paths, sandboxed: &Sandboxed) -> anyhow::Result<File> {
    let _no_reaper = lock::wait_for(&paths.reap_lock(), FlockArg::LockShared).context("lock out the clean-up")?;
    loop {
        let path = sandboxed.lock();
        let lock = lock::open(&path).with_context(|| format!("open {}", path.display()))?;
        if !lock::try_hold(&lock).context("lock the sandbox")? {
            bail!("the container is already running");
        }
        // One that a supervisor has removed at its end in the meantime protects nothing.
        if lock::is_named(&lock, &path).context("look at the sandbox's lock")? {
            return Ok(lock);
        }
    }
}

fn serve(sandboxed: &Sandboxed, standby: Standby, lock: &File) -> anyhow::Result<Client> {
    let directory = File::open(sandboxed.directory()).context("open the directory of sandboxes")?;
    let socket = short(&directory, &sandboxed.socket());
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove an old socket"),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).with_context(|| format!("listen at {}", sandboxed.socket()))?;
    // The connection comes first: a supervisor whose starter is killed finds it closed and ends.
    let client = Client::connect_in(&directory, sandboxed.id()).context("connect to the supervisor")?;
    standby.hand_over(&listener, lock).context("start the supervisor")?;
    Ok(client)
}
