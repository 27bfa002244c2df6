//! The creator's half of making a container.
//!
//! ```text
//! plan, handles -- create --> Prepared -- start --> Running
//! ```
//!
//! [`create`] returns as soon as the child exists, while the child is still building its root: whoever wants to put
//! links into its network namespace does so at the same time and then calls [`Prepared::start`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::cgroup::{self, Cgroup, Hierarchies};
use crate::channel::{Channel, Word};
use crate::child::Child;
use crate::devices::StagedDevices;
use crate::error::{Error, Step};
use crate::join::kill;
use crate::mounts::Sources;
use crate::namespaces::{self, Visit};
use crate::plan::{ContainerPlan, Namespace};
use crate::process::ProcessSetup;
use crate::read_ahead::ReadAhead;
use crate::stdio::{OurEnds, Pipes, ProcessIo, Running};
use crate::sys::{self, Cloned};

/// What a container is made from besides its plan.
#[derive(Debug)]
pub struct Handles {
    /// The root as a detached mount.
    pub root: OwnedFd,
    /// Any directory that exists; the child mounts the root over it in its own namespace before it pivots.
    pub stage: PathBuf,
    /// A user namespace with the plan's maps, for idmapped mounts.
    pub user_namespace: Option<OwnedFd>,
    /// This program's own file, read-only, for a first process that is ours ([`crate::init`]).
    pub own_program: Option<OwnedFd>,
}

/// A container whose first process waits for its start. Dropping it ends the process and removes its cgroups.
#[derive(Debug)]
pub struct Prepared {
    pid: i32,
    pidfd: Option<OwnedFd>,
    channel: Channel,
    pipes: Option<OurEnds>,
    terminal: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    program: Option<ReadAhead>,
}

/// Makes the container of `plan` up to the point where its program would run.
pub fn create(plan: &ContainerPlan, handles: Handles) -> Result<Prepared, Error> {
    if plan.namespaces.mount != Namespace::New {
        return Err(Error::new("mount namespace", "a container always has its own"));
    }
    let process = ProcessSetup::prepare(&plan.process)?;
    let in_user_namespace = plan.namespaces.user == Namespace::New;
    let sources = Sources::open(plan, handles.user_namespace.as_ref().map(AsFd::as_fd))?;
    let devices = if in_user_namespace { Some(StagedDevices::make(plan)?) } else { None };
    let pipes = Pipes::open(&plan.process)?;
    let (ours, theirs) = pipes.map_or((None, None), |pipes| (Some(pipes.ours), Some(pipes.theirs)));
    let (channel, childs_end) = Channel::pair().step(|| "make a channel".into())?;

    let hierarchies = Hierarchies::detect().map_err(|error| Error::new("cgroup", error))?;
    let cgroup = Cgroup::create(&hierarchies, &plan.cgroup).map_err(|error| Error::new("cgroup", error))?;
    // From here on the cgroup is removed if anything fails: it is owned by the guard.
    let (cgroup, pipes) = (Some(cgroup), ours);
    let mut prepared = Prepared { pid: 0, pidfd: None, channel, pipes, terminal: None, cgroup, program: None };
    let cgroup = prepared.cgroup.as_ref().ok_or_else(|| Error::new("cgroup", "it is gone"))?;
    let child = Child {
        plan,
        channel: childs_end,
        root: handles.root,
        stage: &handles.stage,
        sources,
        devices,
        cgroup: cgroup.join_files().map_err(|error| Error::new("cgroup", error))?,
        cgroup_view: cgroup::inside_view(&hierarchies, &plan.namespaces.cgroup, &plan.cgroup.path),
        pipes: theirs,
        process,
        own_program: handles.own_program,
    };
    let visit = Visit::joined(&plan.namespaces)?;
    let cloned = sys::clone3(namespaces::clone_flags(&plan.namespaces), cgroup.directory_v2())
        .step(|| "make the container's process".into())?;
    match cloned {
        Cloned::Child => {
            // The creator's copies must not be dropped here: the guard would remove the cgroup, and the visit is
            // where the child belongs. Its end of the channel must not stay open, for it is what the child learns the
            // creator's death from where that came before it could ask for the death signal.
            std::mem::forget(visit);
            let creators_end = prepared.channel.as_fd().as_raw_fd();
            std::mem::forget(prepared);
            let _ = nix::unistd::close(creators_end);
            child.run()
        }
        Cloned::Parent { pid, pidfd } => {
            drop(visit);
            prepared.pid = pid;
            prepared.pidfd = Some(pidfd);
        }
    }
    ProcessSetup::set_score(&plan.process, &prepared.pid.to_string())?;
    prepared.program = Some(ReadAhead::new(&plan.process, child.root));
    if in_user_namespace {
        let maps =
            plan.id_maps.as_ref().ok_or_else(|| Error::new("user namespace", "the plan has no identity maps"))?;
        namespaces::write_maps(prepared.pid, maps)?;
        prepared.channel.send(&Word::Mapped).step(|| "tell the child its identity".into())?;
    }
    Ok(prepared)
}

impl Prepared {
    /// Process id of the container's first process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A pidfd of the container's first process; also good for setns(2).
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Runs the program. Its network must be in place.
    pub fn start(mut self) -> Result<(Running, Cgroup), Error> {
        // The child builds its root meanwhile.
        if let Some(program) = self.program.take() {
            program.run();
        }
        self.wait_for_child()?;
        self.channel.send(&Word::Start).step(|| "start the program".into())?;
        if let Some((word, _)) = self.channel.receive().step(|| "wait for the program".into())? {
            return Err(failure(word));
        }
        let taken = (self.pidfd.take(), self.cgroup.take());
        let (Some(pidfd), Some(cgroup)) = taken else {
            return Err(Error::new("start", "the process is gone"));
        };
        let io = match (self.terminal.take(), self.pipes.take()) {
            (Some(master), _) => ProcessIo::Terminal(master),
            (None, Some(pipes)) => pipes.into_io(),
            (None, None) => return Err(Error::new("start", "the process handed no terminal over")),
        };
        Ok((Running { pid: self.pid, pidfd, io }, cgroup))
    }

    fn wait_for_child(&mut self) -> Result<(), Error> {
        loop {
            match self.channel.receive().step(|| "wait for the container's process".into())? {
                Some((Word::Terminal, Some(master))) => self.terminal = Some(master),
                Some((Word::Prepared, _)) => return Ok(()),
                Some((word, _)) => return Err(failure(word)),
                None => return Err(Error::new("container process", self.how_it_ended())),
            }
        }
    }

    fn how_it_ended(&self) -> String {
        match waitpid(Pid::from_raw(self.pid), None) {
            Ok(status) => format!("it ended while it was set up: {status:?}"),
            Err(error) => format!("it ended while it was set up ({error})"),
        }
    }
}

fn failure(word: Word) -> Error {
    match word {
        Word::Failed(error) => error,
        other => Error::new("container process", format!("unexpected word {other:?}")),
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            kill(self.pid, pidfd);
        }
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.kill();
            // What cannot be removed now is found by its name later.
            let _ = cgroup.remove();
        }
    }
}
