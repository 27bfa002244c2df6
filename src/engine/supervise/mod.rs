//! `sbx supervise ID`: the small process that stands behind every sandbox.
//!
//! It is given its listening socket and its lock by whoever starts it (`standby`), owns the container's streams, log,
//! exit status, restarts and health, serves clients, and takes everything away at the end. When it is killed the
//! container dies with it, and the next command finds and removes the rest (`reap`).

mod connection;
mod endings;
mod farewell;
mod health;
mod logfile;
mod probes;
mod process;
mod record;
mod requests;
mod restart;
mod streams;
mod supervisor;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sbx_network::Network;
use sbx_process_mode::{Joined, Setting};
use sbx_protocol::{Failure, FrameError, Hello, Reply, Request, read_frame, write_frame};
use sbx_rootfs::{LayerMounts, LayerStore};
use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::id::Id;
use sbx_sandbox::isolation::Mode;
use sbx_sandbox::settings::Settings;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::store::Store;
use sbx_sandbox::volumes::Volumes;
use sbx_vm_mode::size::Size;
use sbx_vm_mode::{Admitted, Door, JoinedContainers, SharedMachine};

pub(crate) use logfile::numbered;

use self::logfile::{LogFile, LogOptions};
use self::record::Record;
use self::supervisor::{Parts, Supervisor};
use crate::client::{Client, ClientError};
use crate::mode::Sandbox;
use crate::paths::Paths;
use crate::remove::Doomed;
use crate::standby::{Duty, Handover, Post};

/// Runs the supervisor of the sandbox `id` until nothing of it is left.
pub fn main(paths: &Paths, id: &str, duty: Duty) -> anyhow::Result<()> {
    // ps(1) and top(1) would show the number of the descriptor that it was executed from.
    nix::sys::prctl::set_name(c"sbx-supervisor").context("name the process")?;
    let post = Post::enter().context("leave the starter behind")?;
    let id = id.parse::<Id>().context("the sandbox's id")?;
    // What does not depend on the container is done while somebody is still deciding what it is.
    let settings = Settings::load(&paths.config)?;
    let store = Store::open(&paths.root)?;
    let host = crate::facts::machine();
    let given = post.take_over().context("supervise is run by sbx itself")?;
    let Some(Handover { listener, lock, program }) = given else { return Ok(()) };
    let spec = match duty {
        Duty::Run => store.spec(&id)?,
        Duty::Files => store.spec(&id)?.kept(),
    };
    let sandboxed = paths.sandbox(id.as_str());

    let refused = listener.try_clone().context("duplicate the socket")?;
    let mut supervisor = match assemble(paths, &settings, host, store.clone(), (spec, duty), (listener, program)) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            refuse(&refused, &format!("{error:#}"));
            return sandboxed.remove().context("remove the sandbox's files");
        }
    };
    drop(refused);
    supervisor.run();
    supervisor.sandbox.clean_up();
    let doomed = if supervisor.spec.host_config.auto_remove {
        Some(crate::remove::forget(&store, &supervisor.spec, crate::remove::AnonymousVolumes::Remove))
    } else {
        None
    };
    sandboxed.remove().with_context(|| format!("remove the files of sandbox {}", sandboxed.id()))?;
    drop(lock);
    supervisor.say_goodbye();
    // Nobody has to wait for the disk.
    doomed.transpose()?.map_or(Ok(()), Doomed::delete)
}

fn assemble(
    paths: &Paths,
    settings: &Settings,
    host: MachineFacts,
    store: Store,
    (spec, duty): (SandboxSpec, Duty),
    (listener, program): (UnixListener, OwnedFd),
) -> anyhow::Result<Supervisor> {
    listener.set_nonblocking(true).context("prepare the socket")?;
    let machine = crate::isolation::machine_on(&store, host.clone(), spec.isolation.isolation, &spec.host_config)?;
    let state = store.state(&spec.id)?;
    let files = store.files(&spec.id);
    let log = open_log(&spec, &files.log())?;
    let layers = LayerStore::open(&paths.root)?;
    let mounts = LayerMounts::open(&paths.run)?;
    let network = Network::open(&paths.root, &paths.run, &crate::network_options(settings)?)?;
    let volumes = Volumes::of(&store);
    let sandbox = match spec.isolation.isolation {
        Mode::Process => {
            let joined = joined(&store, &spec)?;
            let (machine, run) = (machine.clone(), paths.run.clone());
            let setting = Setting { machine, files, run, layers, mounts, network, volumes, joined, program };
            Sandbox::Process(Box::new(sbx_process_mode::Sandbox::new(spec.clone(), setting)))
        }
        Mode::Vm => {
            let machine = host;
            let artifacts = crate::isolation::artifacts()?;
            let templates = sbx_vm_mode::Templates::of(&paths.root);
            let shared = shared_machine(paths, &store, &spec, machine.cpus)?;
            let setting =
                sbx_vm_mode::Setting { machine, files, layers, mounts, network, volumes, artifacts, templates, shared };
            Sandbox::Vm(Box::new(sbx_vm_mode::Sandbox::new(spec.clone(), setting)))
        }
    };
    let record = Record::new(store, &spec, state, paths.sandbox(spec.id.as_str()).network());
    Ok(Supervisor::new(Parts { spec, duty, machine, record, sandbox, log, listener, signals: signals()? }))
}

/// Answers whoever started this supervisor, and only the first request: it cannot do its work.
fn refuse(listener: &UnixListener, message: &str) {
    let moment = Some(std::time::Duration::from_secs(1));
    let answer = |mut socket: std::os::unix::net::UnixStream| -> Result<(), FrameError> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(moment)?;
        socket.set_write_timeout(moment)?;
        let _hello: Option<Hello> = read_frame(&mut socket)?;
        let _request: Option<Request> = read_frame(&mut socket)?;
        write_frame(&mut socket, &Reply::Failed(crate::failure::other(message)))
    };
    let _ = listener.set_nonblocking(true);
    while let Ok((socket, _)) = listener.accept() {
        // One that does not listen learns of it by the end of the connection.
        let _ = answer(socket);
    }
}

/// First processes of the containers whose namespaces are joined; they must run.
fn joined(store: &Store, spec: &SandboxSpec) -> anyhow::Result<Joined> {
    let pid_of = |id: &Id| -> anyhow::Result<i32> {
        let state = store.state(id)?;
        if !state.status.is_active() || state.pid <= 0 {
            bail!("cannot join the namespace of container {id}: it is not running");
        }
        Ok(state.pid)
    };
    let JoinedContainers { network, files, ipc, pid } = crate::joined::joined(store, &spec.host_config)?;
    let network = network.as_ref().map(pid_of).transpose()?;
    Ok(Joined {
        network: network.zip(files.map(|id| store.files(&id))),
        ipc: ipc.as_ref().map(pid_of).transpose()?,
        pid: pid.as_ref().map(pid_of).transpose()?,
    })
}

/// The machine of another that the container has to be in.
fn shared_machine(
    paths: &Paths,
    store: &Store,
    spec: &SandboxSpec,
    cpus: u32,
) -> anyhow::Result<Option<SharedMachine>> {
    let Some(owner) = crate::joined::owner(store, &spec.host_config)? else { return Ok(None) };
    let door = DoorOf { paths: paths.clone(), owner: owner.id.clone() };
    Ok(Some(SharedMachine {
        size: Size::of(&owner.host_config, cpus),
        owner: owner.id,
        joined: crate::joined::joined(store, &spec.host_config)?,
        door: Box::new(door),
    }))
}

/// The supervisor of another container, which lets this one into its machine.
#[derive(Debug)]
struct DoorOf {
    paths: Paths,
    owner: Id,
}

impl Door for DoorOf {
    fn admit(&self, control: OwnedFd, gate: OwnedFd) -> Result<Admitted, Failure> {
        let Self { paths, owner } = self;
        let failed = |error: &dyn std::fmt::Display| {
            crate::failure::other(format!("enter the machine of container {owner}: {error}"))
        };
        let client = Client::connect(paths, owner.as_str()).map_err(|error| failed(&error))?;
        let Some(mut client) = client else {
            return Err(crate::failure::conflict(format!("cannot join container {owner}: it is not running")));
        };
        client.admit(owner.as_str(), [control, gate]).map_err(|error| match error {
            ClientError::Refused(failure) => failure,
            error => failed(&error),
        })
    }
}

fn open_log(spec: &SandboxSpec, path: &std::path::Path) -> anyhow::Result<Option<LogFile>> {
    let config = &spec.host_config.log_config;
    if config.r#type == "none" {
        return Ok(None);
    }
    let option = |name: &str| config.config.get(name).map(String::as_str);
    let options = LogOptions {
        max_size: option("max-size")
            .map(sbx_sandbox::size::parse_bytes)
            .transpose()?
            .and_then(|size| u64::try_from(size).ok()),
        max_file: option("max-file").map(str::parse).transpose().context("--log-opt max-file")?.unwrap_or(1),
        attributes: crate::logs::attributes(spec)?,
    };
    LogFile::open(path, options).map(Some).with_context(|| format!("open the log {}", path.display()))
}

/// Signals that ask a supervisor to end; the others that a terminal sends do not concern it.
fn signals() -> anyhow::Result<SignalFd> {
    let mut wanted = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        wanted.add(signal);
    }
    let mut blocked = wanted;
    blocked.add(Signal::SIGPIPE);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).context("block signals")?;
    SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("watch signals")
}
