//! The machine's process: forked from the supervisor, it opens what the machine needs, gives up everything else, and runs
//! the guest to its end.
//!
//! The fork comes before anything of KVM is made: a machine is bound to the address space that made it.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sbx_container::Helper;
use sbx_protocol::guest::READY_PORT;
use sbx_rootfs::disk::LayerFiles;
use sbx_vmm::log::Log;
use sbx_vmm::machine::{Boot, Builder, Exit, Initrd, Remote, SavedMachine};
use sbx_vmm::virtio::vsock::{Gate, InnerGate};

use crate::artifacts::Artifacts;
use crate::error::Error;
use crate::hardware::{self, SAID_LIMIT};
use crate::initramfs::initramfs;
use crate::plan::Disks;
use crate::shares::Share;
use crate::size::Size;
use crate::template::Template;

/// Longest wait for the agent after the machine's start.
const BOOT_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a guest that was asked to switch itself off.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for the end of a machine whose connections have ended: its process is on its way.
pub(crate) const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// The machine's way to the network.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) fd: OwnedFd,
    /// Hardware address of the machine's card.
    pub(crate) card: [u8; 6],
    /// Bytes.
    pub(crate) mtu: u16,
}

/// What a machine is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) layers: LayerFiles,
    pub(crate) writable: File,
    pub(crate) tap: Option<Tap>,
    pub(crate) shares: Vec<Share>,
    /// Ports of the host by which the guest reaches its sockets.
    pub(crate) ports: Vec<u32>,
    /// User and group that the machine's process becomes.
    pub(crate) user: u32,
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    helper: Helper,
    messages: PipeReader,
    said: Vec<u8>,
}

impl Machine {
    /// Wakes a machine from a template; also the way to its ports, to tell it, and its disks.
    pub(crate) fn wake(template: &Template, parts: Parts) -> Result<(Self, Gate, Remote, Disks), Error> {
        let (gate, inner) = Gate::pair().map_err(Error::io("make the way to the virtual machine"))?;
        let (remote, control) = sbx_vmm::machine::pair()?;
        let disks = Disks::at(hardware::addresses(&parts)?, parts.layers.layers().len())?;
        let mut kept = vec![inner.as_fd().as_raw_fd(), control.as_raw_fd()];
        kept.extend([template.file.as_raw_fd(), parts.writable.as_raw_fd()]);
        kept.extend(parts.layers.layers().iter().map(|layer| layer.file().as_raw_fd()));
        kept.extend(parts.tap.iter().map(|tap| tap.fd.as_raw_fd()));
        let machine = Self::spawn(kept, |out| wake(template, parts, (inner, control), out))?;
        Ok((machine, gate, remote, disks))
    }

    /// Boots a machine that has no container, to be saved; also the way to its ports, and to tell it.
    pub(crate) fn boot(size: Size, artifacts: &Artifacts, user: u32) -> Result<(Self, Gate, Remote), Error> {
        let open = |path: &Path| File::open(path).map_err(Error::io(format!("open {}", path.display())));
        let (kernel, agent) = (open(&artifacts.kernel)?, open(&artifacts.agent)?);
        let (gate, inner) = Gate::pair().map_err(Error::io("make the way to the virtual machine"))?;
        let (remote, control) = sbx_vmm::machine::pair()?;
        let kept = [inner.as_fd().as_raw_fd(), control.as_raw_fd(), kernel.as_raw_fd(), agent.as_raw_fd()];
        let machine = Self::spawn(kept.into(), |out| {
            let mut builder = Builder::new(hardware::config(size), log(&out)?)?;
            builder.serial(Box::new(out))?;
            builder.control(control);
            hardware::add_standing(&mut builder, Vec::new(), inner)?;
            let initramfs = initramfs(agent)?;
            let boot = Boot { kernel: &kernel, initrd: Some(Initrd::Bytes(&initramfs)) };
            let machine = builder.boot(&boot)?;
            drop(initramfs);
            run(machine, user)
        })?;
        Ok((machine, gate, remote))
    }

    /// Forks the machine's process, which keeps `kept` and a pipe for its words.
    fn spawn(mut kept: Vec<RawFd>, body: impl FnOnce(PipeWriter) -> Result<Exit, Error>) -> Result<Self, Error> {
        let (messages, out) = io::pipe().map_err(Error::io("make a pipe"))?;
        for end in [messages.as_fd(), out.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|error| Error::Io { step: "prepare a pipe".into(), source: error.into() })?;
        }
        kept.push(out.as_raw_fd());
        let helper =
            Helper::spawn(kept, || child(out, body)).map_err(Error::io("start the virtual machine's process"))?;
        Ok(Self { helper, messages, said: Vec::new() })
    }

    /// The machine's process.
    pub(crate) fn pid(&self) -> i32 {
        self.helper.pid()
    }

    /// Waits for the agent's knock: a connection that it ends again when it listens.
    pub(crate) fn wait_for_agent(&mut self, gate: &Gate) -> Result<UnixStream, Error> {
        let deadline = Instant::now() + BOOT_PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::MachineEnded(format!(
                    "its agent did not answer within {} seconds; {}",
                    BOOT_PATIENCE.as_secs(),
                    self.said_last()
                )));
            }
            let timeout = PollTimeout::try_from(left.min(Duration::from_secs(1))).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(gate.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, timeout).unwrap_or(0) > 0;
            if ready && let Ok((READY_PORT, knock)) = gate.accept() {
                return Ok(knock);
            }
            self.listen();
            if let Some(status) = self.helper.ended() {
                return Err(Error::MachineEnded(self.last_words(status)));
            }
        }
    }

    /// Waits for a machine that ends by itself, kills it where that takes too long, and says what it said last where it
    /// did not end as it should.
    pub(crate) fn wait(mut self, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        loop {
            self.listen();
            match self.helper.ended() {
                Some(0) => return None,
                Some(status) => return Some(self.last_words(status)),
                None if Instant::now() >= deadline => {
                    let words = self.said_last();
                    self.helper.stop();
                    return Some(format!("it did not end within {} seconds; {words}", patience.as_secs()));
                }
                // The pipe ends with the process.
                None => {
                    let mut fds = [PollFd::new(self.messages.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, PollTimeout::from(20u8));
                }
            }
        }
    }

    /// Kills its process; [`Machine::wait`] then says so.
    pub(crate) fn kill_process(&self) {
        // One that has ended already is as good.
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.helper.pid()), nix::sys::signal::Signal::SIGKILL);
    }

    /// Kills it at once; what it said last where it had ended before.
    pub(crate) fn kill(mut self) -> Option<String> {
        self.listen();
        let ended = self.helper.ended();
        match ended {
            None => {
                self.helper.stop();
                None
            }
            Some(0) => None,
            Some(status) => Some(self.last_words(status)),
        }
    }

    /// Whether its process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.helper.ended().is_some()
    }

    /// Reads what the machine has said, so that it never waits for it; the end is kept.
    fn listen(&mut self) {
        let mut buffer = [0u8; 4096];
        while let Ok(count @ 1..) = self.messages.read(&mut buffer) {
            self.said.extend_from_slice(&buffer[..count]);
            let surplus = self.said.len().saturating_sub(SAID_LIMIT as usize);
            self.said.drain(..surplus);
        }
    }

    /// Why it has ended with this exit status.
    fn last_words(&mut self, status: i32) -> String {
        let signal = nix::sys::signal::Signal::try_from(status - 128);
        let killed = signal.map(|signal| format!("its process was killed by {signal}; ")).unwrap_or_default();
        format!("{killed}{}", self.said_last())
    }

    fn said_last(&mut self) -> String {
        self.listen();
        let text = String::from_utf8_lossy(&self.said);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(6)..];
        if last.is_empty() { "it said nothing".into() } else { format!("it said last: {}", last.join(" | ")) }
    }
}

/// The process. Its exit status is 0 where the guest ended as it was asked to.
fn child(mut out: PipeWriter, body: impl FnOnce(PipeWriter) -> Result<Exit, Error>) -> u8 {
    // Only for show.
    let _ = nix::sys::prctl::set_name(c"sbx-vmm");
    let (Ok(own), Ok(panics)) = (out.try_clone(), out.try_clone()) else { return 1 };
    // The standard hook looks for files when a backtrace is asked for, which a confined thread dies of.
    std::panic::set_hook(Box::new(move |panic| {
        let _ = writeln!(&panics, "sbx-vmm: {panic}");
    }));
    match body(own) {
        Ok(Exit::PowerOff(0) | Exit::Reset | Exit::Stopped) => 0,
        Ok(exit) => {
            let _ = writeln!(out, "sbx-vmm: {exit:?}");
            1
        }
        Err(error) => {
            let _ = writeln!(out, "sbx-vmm: {error}");
            1
        }
    }
}

fn wake(
    template: &Template,
    parts: Parts,
    (gate, control): (InnerGate, OwnedFd),
    out: PipeWriter,
) -> Result<Exit, Error> {
    let user = parts.user;
    let file = template.file.try_clone().map_err(Error::io("open the template"))?;
    let mut saved = SavedMachine::open(file)?;
    saved.expect(template.needed.clone().unwrap_or_default());
    let mut builder = Builder::restore(saved, log(&out)?)?;
    builder.serial(Box::new(out))?;
    builder.control(control);
    hardware::add_standing(&mut builder, parts.ports.clone(), gate)?;
    hardware::add_own(&mut builder, parts)?;
    run(builder.resume()?, user)
}

fn run(mut machine: sbx_vmm::machine::Machine, user: u32) -> Result<Exit, Error> {
    machine.confine(&hardware::confinement(user)?)?;
    Ok(machine.run()?)
}

/// What the machine has to say beside its end.
fn log(out: &PipeWriter) -> Result<Log, Error> {
    let out = out.try_clone().map_err(Error::io("duplicate a pipe"))?;
    Ok(Log::new(move |message| {
        // The supervisor reads it at its leisure; what does not fit is dropped.
        let _ = writeln!(&mut &out, "sbx-vmm: {message}");
    }))
}
