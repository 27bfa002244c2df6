//! The machine's process: forked from the supervisor, it opens what the machine needs, gives up everything else, and runs
//! the guest to its end.
//!
//! The fork comes before anything of KVM is made: a machine is bound to the address space that made it.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use sbx_container::Helper;
use sbx_protocol::guest::READY_PORT;
use sbx_rootfs::disk::{LayerFiles, PartitionTable, partitions};
use sbx_vmm::confine::{Confinement, FILE_SERVER};
use sbx_vmm::log::Log;
use sbx_vmm::machine::{Boot, Builder, Exit, Initrd, MachineConfig};
use sbx_vmm::virtio::balloon::{Balloon, BalloonConfig};
use sbx_vmm::virtio::blk::Extent;
use sbx_vmm::virtio::blk::{Access, Blk, BlkConfig, Limits};
use sbx_vmm::virtio::net;
use sbx_vmm::virtio::rng::{Rng, RngConfig};
use sbx_vmm::virtio::vsock::{self, Gate, InnerGate, Vsock};

use crate::artifacts::Artifacts;
use crate::error::Error;
use crate::initramfs::initramfs;
use crate::plan::Disks;
use crate::share_device::open_device;
use crate::shares::Share;
use crate::size::Size;

/// Words for the guest kernel: no output but warnings, end the machine on a panic and on a reset, and nothing that
/// looks for hardware which a microVM does not have.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 reboot=k panic=-1 panic_on_oops=1 8250.nr_uarts=1 \
                            random.trust_cpu=on tsc=reliable no_timer_check";
/// Most bytes that are kept of what the guest's kernel and the machine say.
const SAID_LIMIT: u64 = 32 << 10;
/// Longest wait for the agent after the machine's start.
const BOOT_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a guest that was asked to switch itself off.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(30);
/// Most descriptors of the machine's process: connections and files of shares.
const OPEN_FILES: u64 = 1 << 16;
/// Device id of a file system (virtio specification, section 5).
const VIRTIO_ID_FS: u32 = 26;
/// Longest wait for the end of a machine whose connections have ended: its process is on its way.
pub(crate) const DEATH_PATIENCE: Duration = Duration::from_secs(2);
/// Partitions of the layers begin at multiples of it.
const LAYER_ALIGNMENT: u64 = 4096;

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
    pub(crate) size: Size,
    pub(crate) artifacts: Artifacts,
    pub(crate) layers: LayerFiles,
    pub(crate) writable: File,
    pub(crate) tap: Option<Tap>,
    pub(crate) shares: Vec<Share>,
    /// Ports by which the guest may connect to the host.
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
    /// Starts the machine; also the way to its ports and the names of its disks.
    pub(crate) fn start(parts: Parts) -> Result<(Self, Gate, Disks), Error> {
        let (gate, inner) = Gate::pair().map_err(Error::io("make the way to the virtual machine"))?;
        let (messages, out) = io::pipe().map_err(Error::io("make a pipe"))?;
        for end in [messages.as_fd(), out.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|error| Error::Io { step: "prepare a pipe".into(), source: error.into() })?;
        }
        let open = |path: &std::path::Path| File::open(path).map_err(Error::io(format!("open {}", path.display())));
        let kernel = open(&parts.artifacts.kernel)?;
        let mut agent = Vec::new();
        open(&parts.artifacts.agent)?
            .read_to_end(&mut agent)
            .map_err(Error::io(format!("read {}", parts.artifacts.agent.display())))?;
        let disks = names(&parts.layers);
        let mut kept = vec![inner.as_fd().as_raw_fd(), out.as_raw_fd(), kernel.as_raw_fd(), parts.writable.as_raw_fd()];
        kept.extend(parts.layers.layers().iter().map(|layer| layer.file().as_raw_fd()));
        kept.extend(parts.tap.iter().map(|tap| tap.fd.as_raw_fd()));
        let helper = Helper::spawn(kept, || child(parts, Opened { kernel, agent, inner, out }))
            .map_err(Error::io("start the virtual machine's process"))?;
        Ok((Self { helper, messages, said: Vec::new() }, gate, disks))
    }

    /// The machine's process.
    pub(crate) fn pid(&self) -> i32 {
        self.helper.pid()
    }

    /// Waits until the agent is there.
    pub(crate) fn wait_for_agent(&mut self, gate: &Gate) -> Result<(), Error> {
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
            if ready && let Ok((READY_PORT, _knock)) = gate.accept() {
                return Ok(());
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

/// The guest's names of its disks: the layers are partitions of the first, the writable layer is the second.
fn names(layers: &LayerFiles) -> Disks {
    Disks {
        layers: (1..=layers.layers().len()).map(|number| format!("/dev/vda{number}")).collect(),
        writable: "/dev/vdb".into(),
    }
}

/// What the supervisor has opened for the machine's process.
struct Opened {
    kernel: File,
    agent: Vec<u8>,
    inner: InnerGate,
    out: PipeWriter,
}

/// The process. Its exit status is 0 where the guest ended as it was asked to.
fn child(parts: Parts, opened: Opened) -> u8 {
    // Only for show.
    let _ = nix::sys::prctl::set_name(c"sbx-vmm");
    let Ok(mut out) = opened.out.try_clone() else { return 1 };
    match run(parts, opened) {
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

fn run(parts: Parts, opened: Opened) -> Result<Exit, Error> {
    let vmm = |error: sbx_vmm::Error| Error::MachineEnded(error.to_string());
    let device = |error: &dyn std::fmt::Display| Error::MachineEnded(error.to_string());
    let log_out = Arc::new(opened.out.try_clone().map_err(Error::io("duplicate a pipe"))?);
    let log = Log::new(move |message| {
        // The supervisor reads it at its leisure; what does not fit is dropped.
        let _ = writeln!(&mut &*log_out, "sbx-vmm: {message}");
    });
    let config = MachineConfig {
        memory: parts.size.memory,
        vcpus: parts.size.cpus as usize,
        addresses: 0,
        command_line: COMMAND_LINE.into(),
        serial_limit: SAID_LIMIT,
    };
    let mut builder = Builder::new(config, log).map_err(vmm)?;
    builder.serial(Box::new(opened.out)).map_err(vmm)?;

    let layers = disk("layers", Access::ReadOnly);
    let layers = Blk::new(layers, layer_extents(&parts.layers)?).map_err(|error| device(&error))?;
    builder.add_device(Box::new(layers)).map_err(vmm)?;
    let extent = Extent::whole(parts.writable).map_err(Error::io("measure the writable layer"))?;
    let writable = Blk::new(disk("writable", Access::ReadWrite), vec![extent]).map_err(|error| device(&error))?;
    builder.add_device(Box::new(writable)).map_err(vmm)?;
    if let Some(tap) = parts.tap {
        let config = net::Config { mac: tap.card, mtu: tap.mtu };
        let card = net::Net::new(config, tap.fd).map_err(|error| device(&error))?;
        builder.add_device(Box::new(card)).map_err(vmm)?;
    }
    let config = vsock::Config { allowed_ports: parts.ports, ..vsock::Config::default() };
    let vsock = Vsock::new(config, opened.inner).map_err(|error| device(&error))?;
    builder.add_device(Box::new(vsock)).map_err(vmm)?;
    for share in &parts.shares {
        builder.add_device(Box::new(open_device(share)?)).map_err(vmm)?;
    }
    let rng = Rng::new(RngConfig { name: "rng".into() }).map_err(|error| device(&error))?;
    builder.add_device(Box::new(rng)).map_err(vmm)?;
    let config = BalloonConfig { name: "balloon".into(), target: 0, deflate_on_oom: true };
    let (balloon, _control) = Balloon::new(config).map_err(|error| device(&error))?;
    builder.add_device(Box::new(balloon)).map_err(vmm)?;

    let initramfs = initramfs(&opened.agent);
    let boot = Boot { kernel: &opened.kernel, initrd: Some(Initrd::Bytes(&initramfs)) };
    let mut machine = builder.boot(&boot).map_err(vmm)?;
    drop(initramfs);
    machine.confine(&confinement(parts.user, !parts.shares.is_empty())?).map_err(vmm)?;
    machine.run().map_err(vmm)
}

/// What the process may do once everything is open. The threads that serve shares keep what acting for the users of the
/// guest needs; without shares nothing is kept.
fn confinement(user: u32, serves_files: bool) -> Result<Confinement, Error> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| Error::Io { step: "look at the limit of open files".into(), source: error.into() })?;
    let kept = if serves_files { vec![(VIRTIO_ID_FS, FILE_SERVER.to_vec())] } else { Vec::new() };
    Ok(Confinement { uid: user, gid: user, files: OPEN_FILES.min(most), file_size: None, kept })
}

fn disk(name: &str, access: Access) -> BlkConfig {
    BlkConfig { name: name.into(), serial: name.into(), access, block_size: 512, limits: Limits::default() }
}

/// The disk of the layers: a partition table, the files, and room between them.
fn layer_extents(layers: &LayerFiles) -> Result<Vec<Extent>, Error> {
    let table: PartitionTable =
        partitions(&layers.lengths(), LAYER_ALIGNMENT).map_err(|error| Error::Unsupported(error.to_string()))?;
    let mut at = table.head.len() as u64;
    let mut extents = vec![Extent::Bytes(table.head.into())];
    for (place, layer) in table.extents.iter().zip(layers.layers()) {
        if place.offset > at {
            extents.push(Extent::Zeroes(place.offset - at));
        }
        let file = layer.file().try_clone().map_err(Error::io("duplicate a layer's file"))?;
        extents.push(Extent::File { file: Arc::new(file), offset: 0, length: place.length });
        at = place.offset + place.length;
    }
    if table.tail_offset > at {
        extents.push(Extent::Zeroes(table.tail_offset - at));
    }
    extents.push(Extent::Bytes(table.tail.into()));
    Ok(extents)
}
