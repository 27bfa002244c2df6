//! The two modes behind one face. The only place that asks which of them drives a sandbox.

use sbx_container::Running;
use sbx_container::plan::ProcessPlan;
use sbx_process_mode::{Error, NetworkFacts};
use sbx_protocol::{Failure, ProcessRow, StatsSample};

use crate::failure;

/// A sandbox in one of the modes.
#[derive(Debug)]
pub(crate) enum Sandbox {
    /// Namespaces and control groups of the host's kernel.
    Process(Box<sbx_process_mode::Sandbox>),
}

impl Sandbox {
    /// Makes the container and runs its program.
    pub(crate) fn launch(&mut self) -> Result<Running, Failure> {
        match self {
            Self::Process(sandbox) => sandbox.launch().map_err(|error| told(&error)),
        }
    }

    /// Runs a further process in the container.
    pub(crate) fn exec(&self, process: &ProcessPlan) -> Result<Running, Failure> {
        match self {
            Self::Process(sandbox) => sandbox.exec(process).map_err(|error| told(&error)),
        }
    }

    pub(crate) fn pause(&self) -> Result<(), Failure> {
        match self {
            Self::Process(sandbox) => sandbox.pause().map_err(|error| told(&error)),
        }
    }

    pub(crate) fn unpause(&self) -> Result<(), Failure> {
        match self {
            Self::Process(sandbox) => sandbox.unpause().map_err(|error| told(&error)),
        }
    }

    pub(crate) fn processes(&self) -> Result<Vec<ProcessRow>, Failure> {
        match self {
            Self::Process(sandbox) => sandbox.processes().map_err(|error| told(&error)),
        }
    }

    pub(crate) fn stats(&self) -> Result<StatsSample, Failure> {
        match self {
            Self::Process(sandbox) => sandbox.stats().map_err(|error| told(&error)),
        }
    }

    /// Kills every process of the container. What cannot be killed now is killed by the clean-up.
    pub(crate) fn kill_all(&self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.kill_all()),
        }
    }

    /// Kills what the first process has left behind. What cannot be killed now is killed by the clean-up.
    pub(crate) fn kill_rest(&self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.kill_rest()),
        }
    }

    /// Whether the kernel killed something because memory ran out.
    pub(crate) fn oom_killed(&mut self) -> bool {
        match self {
            Self::Process(sandbox) => sandbox.oom_killed(),
        }
    }

    /// What to tell about the network.
    pub(crate) fn network_facts(&self) -> NetworkFacts {
        match self {
            Self::Process(sandbox) => sandbox.network_facts(),
        }
    }

    /// The container has ended. What cannot be taken away now is found by its name later.
    pub(crate) fn end_container(&mut self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.end()),
        }
    }

    /// Gives everything back. What cannot be given back now is found by its name later.
    pub(crate) fn clean_up(&mut self) {
        match self {
            Self::Process(sandbox) => drop(sandbox.clean_up()),
        }
    }
}

fn told(error: &Error) -> Failure {
    match error {
        Error::Container(error) => error.into(),
        other => failure::other(other.to_string()),
    }
}
