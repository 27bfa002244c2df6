//! Why a sandbox could not be launched in a machine of its own or did not do as it was told.

use sbx_protocol::{Failure, FailureKind};

/// A failure of VM mode.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the agent said.
    #[error(transparent)]
    Agent(#[from] Failure),
    /// The machine ended by itself; what it said last.
    #[error("the virtual machine has ended: {0}")]
    MachineEnded(String),
    /// The machine could not be put together, or could not go on.
    #[error("the virtual machine: {0}")]
    Machine(#[from] sbx_vmm::Error),
    /// One of its devices could not be made.
    #[error("a device of the virtual machine: {0}")]
    Device(#[from] sbx_vmm::virtio::DeviceError),
    /// One of its disks could not be made.
    #[error("a disk of the virtual machine: {0}")]
    Disk(#[from] sbx_vmm::virtio::blk::BlkError),
    /// The agent does not answer, or not as it should.
    #[error("the virtual machine's agent, asked to {step}: {problem}")]
    Conversation {
        /// What it was asked for.
        step: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// Its layers, disk or volumes.
    #[error(transparent)]
    Rootfs(#[from] sbx_rootfs::RootfsError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] sbx_network::Error),
    /// The control groups of the machine's process.
    #[error(transparent)]
    Cgroup(#[from] sbx_container::cgroup::Error),
    /// Its OCI configuration.
    #[error(transparent)]
    Configuration(#[from] sbx_sandbox::oci::Error),
    /// Its plan.
    #[error(transparent)]
    Plan(#[from] sbx_sandbox::plan::Error),
    /// One of its volumes.
    #[error(transparent)]
    Volume(#[from] sbx_sandbox::volumes::VolumeError),
    /// A file or process of the host.
    #[error("{step}: {source}")]
    Io {
        /// What was tried, and on what.
        step: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something that a machine of its own cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The guest kernel or the agent is not installed.
    #[error("{0}")]
    NotInstalled(String),
    /// The container does not run.
    #[error("the container is not running")]
    NotRunning,
}

impl Error {
    /// Names the step of an I/O error.
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }

    /// As a client is told it.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Agent(failure) => failure,
            other => Failure { kind: FailureKind::Other, message: other.to_string() },
        }
    }
}
