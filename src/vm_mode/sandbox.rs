//! One sandbox: its launch, step by step, and its end.

use std::os::fd::OwnedFd;

use sbx_container::files::Task;
use sbx_container::plan::ProcessPlan;
use sbx_network::{Attachment, EtcFiles, Network, NetworkFacts, Offload};
use sbx_protocol::guest::Uplink;
use sbx_protocol::{ExecRequest, FilesRequest, ProcessRow, Reply, Request, StatsSample, StreamKind, TerminalSize};
use sbx_rootfs::disk::{LayerFiles, WritableDisk};
use sbx_rootfs::volumes::{self, Held, Prepared, Sources};
use sbx_rootfs::{LayerId, LayerMounts, LayerStore};
use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::store::Files;
use sbx_sandbox::volumes::Volumes;

use crate::agent::{Agent, unexpected};
use crate::artifacts::Artifacts;
use crate::error::Error;
use crate::home::Home;
use crate::launching::Launching;
use crate::machine::{Parts, Tap};
use crate::plan::{self, Card, Disks, create_request};
use crate::process::{Process, Started, Streams, kinds};
use crate::relay::Relay;
use crate::room::Room;
use crate::shares::Shared;
use crate::size::Size;
use crate::template::Templates;
use crate::tenancy::{self, Admitted, SharedMachine, Tenancy};

/// What the machine's card takes of the host without the host having done it before.
const OFFLOAD: Offload = Offload { checksum: true, tso4: true, tso6: true, ecn: false, uso: false };
/// Machines run as users from here on, each as one of its own; no system gives these to people (systemd's ranges end below).
const FIRST_USER: u32 = 2_000_000_000;
/// How many such users there are.
const USERS: u32 = 100_000_000;

/// What a sandbox finds on its host.
#[derive(Debug)]
pub struct Setting {
    /// What the host can do.
    pub machine: MachineFacts,
    /// The container's own files.
    pub files: Files,
    /// Converted layers.
    pub layers: LayerStore,
    /// Mounted layers, for volumes that are filled from the image.
    pub mounts: LayerMounts,
    /// The host side of networking.
    pub network: Network,
    /// Named volumes.
    pub volumes: Volumes,
    /// The guest's kernel and agent.
    pub artifacts: Artifacts,
    /// Machines to begin with.
    pub templates: Templates,
    /// The machine of another that the container shares; `None` where it gets one of its own.
    pub shared: Option<SharedMachine>,
}

impl Setting {
    fn size(&self, spec: &SandboxSpec) -> Size {
        self.shared.as_ref().map_or_else(|| Size::of(&spec.host_config, self.machine.cpus), |shared| shared.size)
    }
}

/// A sandbox of one container: in a machine of its own, or in that of another.
#[derive(Debug)]
pub struct Sandbox {
    spec: SandboxSpec,
    setting: Setting,
    attachment: Option<Attachment>,
    live: Option<Live>,
}

/// What exists only while the container runs.
#[derive(Debug)]
struct Live {
    home: Home,
    agent: Agent,
    /// Serves the sockets of the host that the guest reaches; ends with its value.
    _relay: Option<Relay>,
    /// Volumes and images that are mounted for it; others may use them too.
    _held: Held,
    /// Something of the host's can be changed by the guest, so that it has to end in peace.
    writes_to_host: bool,
}

impl Sandbox {
    /// A sandbox that nothing has been made for yet.
    #[must_use]
    pub fn new(spec: SandboxSpec, setting: Setting) -> Self {
        Self { spec, setting, attachment: None, live: None }
    }

    /// Makes the machine, or moves into that of another, makes the container there and runs its program; also the machine's
    /// process.
    pub fn launch(&mut self) -> Result<(Started, i32), Error> {
        if let Some(attachment) = &mut self.attachment {
            attachment.settle()?;
        }
        let layers = self.layers()?;
        let disk = self.writable_disk()?;
        let (entry, writable) = match &self.setting.shared {
            None => (None, disk.attach()?),
            Some(shared) => (Some(Tenancy::begin(shared, &self.spec.id)?), tenancy::attach(&disk)?),
        };
        let room = entry.as_ref().map_or_else(Room::own, |(.., room)| room.clone());
        let (shared, held) = self.shared(&room)?;
        if self.attachment.is_none() {
            self.attachment = Some(Attachment::allocate(&self.spec, &mut self.setting.network)?);
        }
        let attachment = self.attachment.as_mut().ok_or(Error::NotRunning)?;
        let files = EtcFiles::of(&self.spec, &self.setting.network, attachment)?;
        let (tap, card) = plug(attachment, &self.setting.network)?;

        let ports = shared.sockets.iter().map(|socket| socket.port).collect();
        let parts = Parts { layers, writable, tap, shares: shared.shares.clone(), ports, user: user_of(&self.spec) };
        let size = self.setting.size(&self.spec);
        let facts = crate::facts::machine(&self.setting.machine, size);
        let plan = |disks: &Disks| {
            let (spec, machine, files, room) = (&self.spec, &facts, &files, &room);
            create_request(plan::Parts { spec, machine, files, disks, shared: &shared, card: card.clone(), room })
        };
        let mut launching = match entry {
            None => Launching::make(&self.setting, (&self.spec, size), parts, &plan)?,
            Some((tenancy, agent, _)) => Launching::enter(tenancy, agent, parts, &plan)?,
        };
        let relay = Relay::start(launching.agent.gate(), &shared.sockets)?;
        let started = launching.converse(&self.spec.id)?;
        launching.learn();
        attachment.serve()?;
        let (home, agent) = launching.done()?;
        let pid = home.pid();
        let writes_to_host = shared.shares.iter().any(|share| !share.read_only);
        self.live = Some(Live { home, agent, _relay: relay, _held: held, writes_to_host });
        Ok((started, pid))
    }

    fn layers(&self) -> Result<LayerFiles, Error> {
        let ids = self.spec.image.layers.iter().map(|diff_id| LayerId::parse(diff_id));
        Ok(LayerFiles::open(&self.setting.layers, &ids.collect::<Result<Vec<_>, _>>()?)?)
    }

    /// What is shared, its directories made ready on the host.
    fn shared(&self, room: &Room) -> Result<(Shared, Held), Error> {
        let Setting { volumes, layers, mounts, .. } = &self.setting;
        let Prepared { sources, held } = volumes::prepare(&self.spec, Sources { volumes, layers, mounts, root: None })?;
        Ok((Shared::of(&self.spec, &sources, room)?, held))
    }

    fn writable_disk(&self) -> Result<WritableDisk, Error> {
        let directory = &self.setting.files.directory;
        if let Ok(disk) = WritableDisk::open(directory) {
            return Ok(disk);
        }
        let wanted = self.spec.host_config.storage_opt.get("size").map(|size| sbx_sandbox::size::parse_bytes(size));
        let wanted = wanted.transpose().map_err(|error| Error::Unsupported(format!("--storage-opt size: {error}")))?;
        let bytes = wanted.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(WritableDisk::DEFAULT_BYTES);
        Ok(WritableDisk::create(directory, bytes)?)
    }

    fn live(&self) -> Result<&Live, Error> {
        self.live.as_ref().ok_or(Error::NotRunning)
    }

    fn container(&self) -> String {
        self.spec.id.to_string()
    }

    /// Runs a further process in the container.
    pub fn exec(&self, process: &ProcessPlan) -> Result<Started, Error> {
        let terminal = process.terminal.is_some();
        let kinds = kinds(process.stdin, terminal);
        let request = ExecRequest { container: self.container(), process: process.clone(), streams: kinds.clone() };
        self.begin("run a process", &Request::Exec(Box::new(request)), &kinds, terminal)
    }

    /// Does something with the container's files.
    pub fn visit(&self, task: &Task) -> Result<Started, Error> {
        let kinds = kinds(task.reads(), false);
        let request = FilesRequest { container: self.container(), task: task.clone(), streams: kinds.clone() };
        self.begin("reach the container's files", &Request::Files(Box::new(request)), &kinds, false)
    }

    /// Begins a process with a session at its streams.
    fn begin(
        &self,
        step: &'static str,
        request: &Request,
        kinds: &[StreamKind],
        terminal: bool,
    ) -> Result<Started, Error> {
        let agent = &self.live()?.agent;
        let session = agent.session(step, request)?;
        let watch = agent.watch(&Request::WaitProcess { session })?;
        let streams = Streams::open(agent, session, kinds)?;
        let process = Process::new(session, watch);
        Ok(Started { process, stdin: streams.stdin, outputs: streams.outputs, terminal })
    }

    /// Sends a signal to a process.
    pub fn signal(&self, process: &Process, signal: i32) -> Result<(), Error> {
        self.live()?.agent.tell("send a signal", &Request::SignalProcess { session: process.session(), signal })
    }

    /// Sets the size of a process's terminal.
    pub fn resize(&self, process: &Process, size: TerminalSize) -> Result<(), Error> {
        self.live()?.agent.tell("resize a terminal", &Request::Resize { session: process.session(), size })
    }

    /// Freezes every process.
    pub fn pause(&self) -> Result<(), Error> {
        self.live()?.agent.tell("pause the container", &Request::Pause { container: self.container() })
    }

    /// Thaws every process.
    pub fn unpause(&self) -> Result<(), Error> {
        self.live()?.agent.tell("unpause the container", &Request::Unpause { container: self.container() })
    }

    /// Kills every process; with a guest that does not listen, the machine.
    pub fn kill_all(&self) {
        let Some(live) = &self.live else { return };
        let kill = Request::Kill { container: self.container(), signal: libc::SIGKILL };
        if live.agent.tell("kill the container", &kill).is_err() {
            live.home.force();
        }
    }

    /// Processes of the container.
    pub fn processes(&self) -> Result<Vec<ProcessRow>, Error> {
        match self.live()?.agent.ask("list processes", &Request::Top { container: self.container() })? {
            Reply::Processes(rows) => Ok(rows),
            other => Err(unexpected("list processes", &other)),
        }
    }

    /// What the container uses: as the guest's kernel counts it, and on the network as the host counts it.
    pub fn stats(&self) -> Result<StatsSample, Error> {
        let mut sample = match self.live()?.agent.ask("measure", &Request::Stats { container: self.container() })? {
            Reply::Stats(sample) => *sample,
            other => return Err(unexpected("measure", &other)),
        };
        if let Some(attachment) = &self.attachment {
            sample.networks = attachment.usage(&self.setting.network)?;
        }
        Ok(sample)
    }

    /// What to tell about the network.
    #[must_use]
    pub fn network_facts(&self) -> NetworkFacts {
        self.attachment.as_ref().map(Attachment::facts).unwrap_or_default()
    }

    /// The container has ended: its machine writes what it has to write and ends, or what it has in another's is taken away. The
    /// address stays, for a restart. Says why the machine has ended where that was not the container's end.
    pub fn end(&mut self) -> Option<String> {
        if let Some(attachment) = &mut self.attachment {
            // What stays is found by its name.
            let _ = attachment.disconnect(&self.setting.network);
        }
        let live = self.live.take()?;
        // Nobody will see what was not written.
        let in_haste = self.spec.host_config.auto_remove && !live.writes_to_host;
        match live.home {
            Home::Own(own) => own.end(&live.agent, in_haste),
            Home::Shared(tenancy) => tenancy.end(&live.agent, &self.spec.id),
        }
    }

    /// Lets another container into the machine: the machine's ends of a control socket and of a gate.
    pub fn admit(&mut self, control: OwnedFd, gate: OwnedFd) -> Result<Admitted, Error> {
        let live = self.live.as_mut().ok_or(Error::NotRunning)?;
        match &mut live.home {
            Home::Own(own) => own.admit(&live.agent, control, gate.into()),
            Home::Shared(_) => Err(Error::Unsupported(String::from("the virtual machine is another container's"))),
        }
    }

    /// Gives everything back.
    pub fn clean_up(&mut self) -> Result<(), Error> {
        // The reason was told when the container ended.
        let _ = self.end();
        if let Some(attachment) = self.attachment.take() {
            attachment.release(&self.setting.network)?;
        }
        Ok(())
    }
}

/// The user that a container's machine runs as.
fn user_of(spec: &SandboxSpec) -> u32 {
    let digits = spec.id.as_str().get(..8).unwrap_or_default();
    FIRST_USER + u32::from_str_radix(digits, 16).unwrap_or_default() % USERS
}

/// Plugs a container that has a place on the bridge into it: the machine's end of the wire, and what the guest is told.
fn plug(attachment: &mut Attachment, network: &Network) -> Result<(Option<Tap>, Option<Card>), Error> {
    let Some(fd) = attachment.connect_tap(network, OFFLOAD)? else {
        return Ok((None, None));
    };
    let (Some(endpoint), Some(interface)) = (attachment.endpoint(), attachment.interfaces().pop()) else {
        return Err(Error::NotRunning);
    };
    let address = endpoint.mac.0;
    // The card is a port of a bridge in the guest and needs a hardware address that the container's interface has not.
    let mut card = address;
    card[0] ^= 0x04;
    let mtu = endpoint.mtu;
    let uplink = Uplink { card, interface: interface.name.clone(), address, mtu };
    let tap = Tap { fd, card, mtu: u16::try_from(mtu).unwrap_or(u16::MAX) };
    Ok((Some(tap), Some(Card { uplink, interface })))
}
