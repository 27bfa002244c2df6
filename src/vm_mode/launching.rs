//! A container on its way into a machine; what fails from here on ends what has been begun.

use std::fs::File;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use sbx_container::cgroup::{Cgroup, Hierarchies};
use sbx_container::plan::{CgroupPlan, Resources};
use sbx_protocol::guest::{CreateRequest, WakeRequest};
use sbx_protocol::{AttachRequest, Reply, Request, StreamKind};
use sbx_sandbox::id::Id;
use sbx_sandbox::spec::SandboxSpec;

use crate::agent::{Agent, unexpected};
use crate::error::Error;
use crate::home::{Home, Own};
use crate::machine::{Machine, Parts};
use crate::plan::Disks;
use crate::process::{Process, Started, Streams, kinds};
use crate::sandbox::Setting;
use crate::size::Size;
use crate::template::Template;
use crate::tenancy::Tenancy;

/// Random bytes that a machine gets at its start.
const ENTROPY: usize = 64;

/// Decides what the agent is asked for, and what the host's control group is to enforce, when the disks are known.
pub(crate) type Plan<'a> = &'a dyn Fn(&Disks) -> Result<(CreateRequest, Resources), Error>;

/// What has been begun.
pub(crate) struct Launching {
    home: Begun,
    pub(crate) agent: Agent,
    request: Option<CreateRequest>,
    template: Option<Template>,
}

impl Launching {
    /// Makes a machine for the container.
    pub(crate) fn make(
        setting: &Setting,
        (spec, size): (&SandboxSpec, Size),
        parts: Parts,
        plan: Plan<'_>,
    ) -> Result<Self, Error> {
        let template = setting.templates.get(size, &setting.artifacts, parts.user)?;
        let (machine, gate, remote, disks) = Machine::wake(&template, parts)?;
        let pid = machine.pid();
        let mut home = Begun(Some(Home::Own(Own { machine, cgroup: None, remote, tenants: 0 })));
        let (request, host) = plan(&disks)?;
        let cgroup = account(&request.plan.cgroup, host, spec, size, pid)?;
        if let Some(Home::Own(own)) = &mut home.0 {
            own.cgroup = Some(cgroup);
        }
        let agent = Agent::connect(gate)?;
        agent.say("wake", &Request::Wake(wake()?))?;
        Ok(Self { home, agent, request: Some(request), template: Some(template) })
    }

    /// Moves into the machine of another.
    pub(crate) fn enter(mut tenancy: Tenancy, agent: Agent, parts: Parts, plan: Plan<'_>) -> Result<Self, Error> {
        let disks = tenancy.furnish(parts)?;
        // What only the host can enforce is that of the machine's own container.
        let (request, _host) = plan(&disks)?;
        let home = Begun(Some(Home::Shared(tenancy)));
        Ok(Self { home, agent, request: Some(request), template: None })
    }

    /// Has the container made and its program started.
    pub(crate) fn converse(&mut self, id: &Id) -> Result<Started, Error> {
        let agent = &self.agent;
        let request = self.request.take().ok_or(Error::NotRunning)?;
        let terminal = request.plan.process.terminal.is_some();
        let kinds = kinds(request.plan.process.stdin, terminal);
        // The answers are read when every question has been asked: each would cost a way there and back.
        agent.say("make the container", &Request::Create(Box::new(request)))?;
        let container = id.to_string();
        let attach = AttachRequest { container: container.clone(), streams: kinds.clone(), stdin_once: true };
        agent.say("attach to the container", &Request::Attach(attach))?;
        if let Err(error) = self.made() {
            return Err(self.explain(error));
        }
        self.begin(container, &kinds, terminal)
    }

    /// The answers to what was said on the way here.
    fn made(&self) -> Result<(), Error> {
        if self.template.is_some() {
            self.agent.done("wake")?;
        }
        self.agent.done("make the container")
    }

    fn begin(&self, container: String, kinds: &[StreamKind], terminal: bool) -> Result<Started, Error> {
        let agent = &self.agent;
        let session = match agent.answer("attach to the container")? {
            Reply::Session(session) => session,
            other => return Err(unexpected("attach to the container", &other)),
        };
        let streams = Streams::open(agent, session, kinds)?;
        let watch = agent.watch(&Request::WaitContainer { container: container.clone() })?;
        match agent.ask("start the container", &Request::Start { container })? {
            Reply::Started { .. } => {}
            other => return Err(unexpected("start the container", &other)),
        }
        let process = Process::new(session, watch);
        Ok(Started { process, stdin: streams.stdin, outputs: streams.outputs, terminal })
    }

    /// Notes what the start has needed, for the next ones.
    pub(crate) fn learn(&self) {
        if let (Some(template), Some(home)) = (&self.template, &self.home.0) {
            template.learn(home.pid());
        }
    }

    /// The machine's own words, where it ended instead of answering.
    fn explain(&mut self, error: Error) -> Error {
        match (error, self.home.0.take()) {
            (Error::Conversation { step, problem }, Some(Home::Own(own))) => match own.abandon() {
                Some(words) => Error::MachineEnded(words),
                None => Error::Conversation { step, problem },
            },
            (error, home) => {
                self.home.0 = home;
                error
            }
        }
    }

    /// Everything runs: the home is the caller's.
    pub(crate) fn done(mut self) -> Result<(Home, Agent), Error> {
        let home = self.home.0.take().ok_or(Error::NotRunning)?;
        Ok((home, self.agent))
    }
}

/// A home that is given up again, unless it is taken over.
struct Begun(Option<Home>);

impl Drop for Begun {
    fn drop(&mut self) {
        // A tenant is put out when its sockets end.
        if let Some(Home::Own(own)) = self.0.take() {
            own.abandon();
        }
    }
}

/// Puts the machine's process into the container's control group of the host.
fn account(plan: &CgroupPlan, host: Resources, spec: &SandboxSpec, size: Size, pid: i32) -> Result<Cgroup, Error> {
    let mut resources = host;
    if spec.host_config.memory > 0 {
        resources.memory.limit = i64::try_from(size.host_limit()).ok();
    }
    let hierarchies = Hierarchies::detect()?;
    let cgroup = Cgroup::create(&hierarchies, &CgroupPlan { path: plan.path.clone(), resources })?;
    cgroup.add(pid)?;
    Ok(cgroup)
}

fn wake() -> Result<WakeRequest, Error> {
    let mut entropy = vec![0; ENTROPY];
    let mut source = File::open("/dev/urandom").map_err(Error::io("open /dev/urandom"))?;
    source.read_exact(&mut entropy).map_err(Error::io("read /dev/urandom"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(WakeRequest { now: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX), entropy })
}
