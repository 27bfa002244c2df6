//! A supervisor that stands by: this program, executed as one, that has not been given its sandbox yet.
//!
//! ```text
//! starter ── execute ──▶ Standby ──────────── hand_over: socket, lock, program ──▶ Client
//!                           ╎                              │
//! supervisor     Post::enter ── settings, facts ── take_over ── serves
//! ```
//!
//! Executing it takes as long as deciding what it is to run, and neither needs the other, so whoever is going to start a
//! container begins with this. Until the handover it holds nothing of the container's and ends with its starter.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sbx_sandbox::id::Id;

use crate::paths::Paths;
use crate::sys;

/// What a supervisor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// To run the container.
    Run,
    /// To keep it up while somebody is at its files.
    Files,
}

impl Duty {
    /// As the last word of the supervisor's command line.
    fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Files => "files",
        }
    }

    /// From that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Run, Self::Files].into_iter().find(|duty| duty.word() == word)
    }
}

/// One that has been executed and waits.
#[derive(Debug)]
pub struct Standby {
    id: Id,
    /// Closed: there is nothing for it to do.
    channel: Option<UnixStream>,
    program: OwnedFd,
    child: Child,
}

impl Standby {
    /// Executes one for the container `id`, which need not exist yet.
    pub(crate) fn execute(paths: &Paths, id: &Id, duty: Duty) -> anyhow::Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("make a channel")?;
        let program = sys::sealed_program().context("seal the program")?;
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        let words: [&OsStr; 9] = [
            "--root".as_ref(),
            paths.root.as_ref(),
            "--run".as_ref(),
            paths.run.as_ref(),
            "--config".as_ref(),
            paths.config.as_ref(),
            "supervise".as_ref(),
            id.as_str().as_ref(),
            duty.word().as_ref(),
        ];
        command.arg0("sbx").args(words).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        // It cannot find the guest's kernel and agent by its own file, which has no directory. Missing ones are named by
        // whoever needs them.
        let artifacts = crate::isolation::artifacts().ok();
        if let Some(library) = artifacts.as_ref().and_then(sbx_vm_mode::artifacts::Artifacts::directory) {
            command.env(sbx_vm_mode::artifacts::VARIABLE, library);
        }
        let child = command.spawn().context("execute the supervisor")?;
        Ok(Self { id: id.clone(), channel: Some(ours), program, child })
    }

    /// For which container.
    pub(crate) fn id(&self) -> &Id {
        &self.id
    }

    /// Makes it the sandbox's supervisor. It outlives this process, or is reaped at its end.
    pub(crate) fn hand_over(mut self, listener: &UnixListener, lock: &File) -> io::Result<()> {
        let Some(channel) = &self.channel else { return Err(io::ErrorKind::NotConnected.into()) };
        let passed = [listener.as_raw_fd(), lock.as_raw_fd(), self.program.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&passed)];
        sendmsg::<()>(channel.as_raw_fd(), &[io::IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        self.channel = None;
        Ok(())
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if self.channel.take().is_some() {
            // It was not needed: nothing of it is there any more when this process says so.
            let _ = self.child.wait();
        }
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Post {
    channel: OwnedFd,
}

/// What a supervisor is given.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) listener: UnixListener,
    /// Locked for as long as the supervisor lives.
    pub(crate) lock: File,
    /// The program's own file on a read-only mount.
    pub(crate) program: OwnedFd,
}

impl Post {
    /// Leaves the starter's session, directory and descriptors behind, but for the channel. To be called first.
    pub(crate) fn enter() -> io::Result<Self> {
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        sys::detach(channel.as_fd())?;
        Ok(Self { channel })
    }

    /// Waits for the sandbox; `None` when it is not needed.
    pub(crate) fn take_over(self) -> io::Result<Option<Handover>> {
        let Some([listener, lock, program]) = sys::receive(self.channel.as_fd())? else { return Ok(None) };
        Ok(Some(Handover { listener: listener.into(), lock: lock.into(), program }))
    }
}
