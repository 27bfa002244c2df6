//! One sandbox: its launch, step by step, and its end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use sbx_container::cgroup::Cgroup;
use sbx_container::files::{self, Task};
use sbx_container::plan::{ContainerPlan, IdMaps, Namespace, ProcessPlan};
use sbx_container::{Handles, Running, Target, usage};
use sbx_network::{Attachment, Network, NetworkFacts};
use sbx_protocol::{ProcessRow, StatsSample, UserNames};
use sbx_rootfs::volumes::{self, Held, Prepared, Sources};
use sbx_rootfs::{LayerMounts, LayerStore};
use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::plan::PlanExtras;
use sbx_sandbox::spec::{HostPaths, SandboxSpec};
use sbx_sandbox::store::Files;
use sbx_sandbox::volumes::Volumes;

use crate::error::Error;
use crate::root::RootFs;
use crate::{devices, etc};

/// What a sandbox finds on its host.
#[derive(Debug)]
pub struct Setting {
    /// What the machine can do.
    pub machine: MachineFacts,
    /// The container's own files.
    pub files: Files,
    /// `/run/sbx`: also where the child attaches its root in its own namespace.
    pub run: PathBuf,
    /// Converted layers.
    pub layers: LayerStore,
    /// Mounted layers.
    pub mounts: LayerMounts,
    /// The host side of networking.
    pub network: Network,
    /// Named volumes.
    pub volumes: Volumes,
    /// Whose namespaces are joined.
    pub joined: Joined,
    /// This program's own file, read-only.
    pub program: OwnedFd,
}

/// First processes and files of the containers whose namespaces are joined (`container:NAME`).
#[derive(Debug, Default)]
pub struct Joined {
    /// `--network container:`.
    pub network: Option<(i32, Files)>,
    /// `--ipc container:`.
    pub ipc: Option<i32>,
    /// `--pid container:`.
    pub pid: Option<i32>,
}

/// A sandbox of one container on the host's kernel.
#[derive(Debug)]
pub struct Sandbox {
    spec: SandboxSpec,
    setting: Setting,
    attachment: Option<Attachment>,
    live: Option<Live>,
    oom_killed: bool,
}

/// What exists only while the container runs.
#[derive(Debug)]
struct Live {
    plan: ContainerPlan,
    pid: i32,
    pidfd: OwnedFd,
    cgroup: Cgroup,
    /// Held so that others can share the mounted layers.
    _root: RootFs,
    /// The same for volumes and images that are mounted.
    _held: Held,
}

impl Live {
    fn target(&self) -> Target<'_> {
        Target { plan: &self.plan, pid: self.pid, pidfd: self.pidfd.as_fd(), cgroup: &self.cgroup }
    }
}

impl Setting {
    /// A root whose owners are mapped would give a new volume's files to users of this host.
    fn sources<'a>(&'a self, root: &'a RootFs, mapped: bool) -> Sources<'a> {
        let Self { volumes, layers, mounts, .. } = self;
        Sources { volumes, layers, mounts, root: (!mapped).then(|| root.as_fd()) }
    }
}

impl Sandbox {
    /// A sandbox that nothing has been made for yet.
    #[must_use]
    pub fn new(spec: SandboxSpec, setting: Setting) -> Self {
        Self { spec, setting, attachment: None, live: None, oom_killed: false }
    }

    /// Makes the container and runs its program.
    pub fn launch(&mut self) -> Result<Running, Error> {
        if let Some(attachment) = &mut self.attachment {
            attachment.settle()?;
        }
        self.oom_killed = false;
        let user_namespace = self.user_namespace()?;
        let root = RootFs::make(&self.spec, &self.setting, user_namespace.as_ref().map(AsFd::as_fd))?;
        if self.attachment.is_none() {
            self.attachment = Some(Attachment::allocate(&self.spec, &mut self.setting.network)?);
        }
        let attachment = self.attachment.as_mut().ok_or(Error::NotRunning)?;
        let mut paths = etc::write(&self.spec, &self.setting, attachment)?;
        let Prepared { sources, held } =
            volumes::prepare(&self.spec, self.setting.sources(&root, user_namespace.is_some()))?;
        paths.mount_sources = sources;
        paths.devices = devices::look_up(&self.spec.host_config)?;
        let plan = make_plan(&self.spec, &self.setting.machine, &paths, attachment)?;

        let handles = Handles {
            root: root.mount()?,
            stage: self.setting.run.clone(),
            user_namespace,
            own_program: Some(self.setting.program.try_clone().map_err(Error::io("duplicate the program's file"))?),
        };
        let prepared = sbx_container::create(&plan, handles)?;
        // The child builds its root meanwhile.
        attachment.connect(&self.setting.network, prepared.pid())?;
        let (running, cgroup) = prepared.start()?;
        attachment.serve()?;

        let pidfd = running.pidfd.try_clone().map_err(Error::io("duplicate a pidfd"))?;
        self.live = Some(Live { plan, pid: running.pid, pidfd, cgroup, _root: root, _held: held });
        Ok(running)
    }

    fn user_namespace(&self) -> Result<Option<OwnedFd>, Error> {
        if self.spec.host_config.userns_mode != "private" {
            return Ok(None);
        }
        let maps: Option<&IdMaps> = self.setting.machine.id_maps.as_ref();
        maps.map(|maps| Ok(sbx_container::user_namespace(maps)?)).transpose()
    }

    fn live(&self) -> Result<&Live, Error> {
        self.live.as_ref().ok_or(Error::NotRunning)
    }

    /// Runs a further process in the container.
    pub fn exec(&self, process: &ProcessPlan) -> Result<Running, Error> {
        Ok(sbx_container::join(self.live()?.target(), process)?)
    }

    /// Does something with the container's files.
    pub fn visit(&self, task: &Task) -> Result<Running, Error> {
        Ok(files::visit(self.live()?.target(), task)?)
    }

    /// Freezes every process.
    pub fn pause(&self) -> Result<(), Error> {
        Ok(self.live()?.cgroup.freeze()?)
    }

    /// Thaws every process.
    pub fn unpause(&self) -> Result<(), Error> {
        Ok(self.live()?.cgroup.thaw()?)
    }

    /// Kills every process, frozen ones too.
    pub fn kill_all(&self) -> Result<(), Error> {
        Ok(self.live()?.cgroup.kill()?)
    }

    /// Kills what the first process has left behind, where its end is not the end of all.
    pub fn kill_rest(&self) -> Result<(), Error> {
        let live = self.live()?;
        if live.plan.namespaces.pid == Namespace::New { Ok(()) } else { Ok(live.cgroup.kill()?) }
    }

    /// Processes of the container.
    pub fn processes(&self) -> Result<Vec<ProcessRow>, Error> {
        let mut rows = usage::rows(&self.live()?.cgroup.pids()?)?;
        UserNames::read().name(&mut rows);
        Ok(rows)
    }

    /// What the container uses.
    pub fn stats(&self) -> Result<StatsSample, Error> {
        let networks = match &self.attachment {
            Some(attachment) => attachment.usage(&self.setting.network)?,
            None => Default::default(),
        };
        let machine = usage::Machine { cpus: self.setting.machine.cpus, memory: self.setting.machine.memory };
        Ok(usage::sample(&self.live()?.cgroup, machine, networks)?)
    }

    /// Whether the kernel killed something of the container because memory ran out. Stays true after the end.
    pub fn oom_killed(&mut self) -> bool {
        if let Some(live) = &self.live {
            // A counter that cannot be read is that of a group that is gone.
            self.oom_killed |= live.cgroup.oom_kill_count().is_ok_and(|count| count > 0);
        }
        self.oom_killed
    }

    /// What to tell about the network.
    #[must_use]
    pub fn network_facts(&self) -> NetworkFacts {
        self.attachment.as_ref().map(Attachment::facts).unwrap_or_default()
    }

    /// The first process has ended: kills what it left behind and removes the control groups. The address stays, for a
    /// restart.
    pub fn end(&mut self) -> Result<(), Error> {
        self.oom_killed();
        if let Some(attachment) = &mut self.attachment {
            attachment.disconnect(&self.setting.network)?;
        }
        let Some(live) = self.live.take() else { return Ok(()) };
        // In a PID namespace of its own everything has died with the first process.
        if live.plan.namespaces.pid != Namespace::New {
            live.cgroup.kill()?;
        }
        live.cgroup.remove()?;
        Ok(())
    }

    /// Gives everything back.
    pub fn clean_up(&mut self) -> Result<(), Error> {
        let ended = self.end();
        if let Some(attachment) = self.attachment.take() {
            attachment.release(&self.setting.network)?;
        }
        ended
    }
}

fn make_plan(
    spec: &SandboxSpec,
    machine: &MachineFacts,
    paths: &HostPaths,
    attachment: &Attachment,
) -> Result<ContainerPlan, Error> {
    let config = sbx_sandbox::oci::runtime_config(spec, machine, paths)?;
    let mut extras = PlanExtras::of(spec);
    extras.interfaces = attachment.interfaces();
    let mut plan = sbx_sandbox::plan::plan(&config, extras)?;
    plan.process.stdin = spec.config.open_stdin;
    Ok(plan)
}
