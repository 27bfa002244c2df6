//! From a container on disk to a supervisor that serves it.
//!
//! The order matters for whoever is killed in the middle: the sandbox's lock file is the intent, it exists before
//! anything else does, and the lock passes from here to the supervisor without ever being free.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};
use nix::fcntl::FlockArg;

use crate::client::Client;
use crate::lock;
use crate::paths::{Paths, Sandboxed, short};
use crate::sys;

/// A supervisor for the container `id`, and a connection to it.
pub(crate) fn spawn(paths: &Paths, id: &str) -> anyhow::Result<Client> {
    let sandboxed = paths.sandbox(id);
    let claim = claim(paths, &sandboxed)?;
    let started = serve(paths, &sandboxed, id, &claim);
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

fn serve(paths: &Paths, sandboxed: &Sandboxed, id: &str, lock: &File) -> anyhow::Result<Client> {
    let directory = File::open(sandboxed.directory()).context("open the directory of sandboxes")?;
    let socket = short(&directory, &sandboxed.socket());
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove an old socket"),
        _ => {}
    }
    let listener = UnixListener::bind(&socket).with_context(|| format!("listen at {}", sandboxed.socket()))?;
    let args: [&OsStr; 8] = [
        "--root".as_ref(),
        paths.root.as_os_str(),
        "--run".as_ref(),
        paths.run.as_os_str(),
        "--config".as_ref(),
        paths.config.as_os_str(),
        "supervise".as_ref(),
        id.as_ref(),
    ];
    // The connection comes first: a supervisor whose starter is killed finds it closed and ends.
    let client = Client::connect_in(&directory, id).context("connect to the supervisor")?;
    // Missing files are named by whoever needs them.
    let artifacts = crate::isolation::artifacts().ok();
    let library = artifacts.as_ref().and_then(sbx_vm_mode::artifacts::Artifacts::directory);
    sys::spawn_supervisor(&args, library, &listener, lock).context("start the supervisor")?;
    Ok(client)
}
