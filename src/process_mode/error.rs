//! Why a sandbox could not be launched or did not do as it was told.

use sbx_container::Error as ContainerError;

/// A failure of process mode.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making or running the container's process.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its layers or volumes.
    #[error(transparent)]
    Rootfs(#[from] sbx_rootfs::RootfsError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] sbx_network::Error),
    /// Its control groups.
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
    /// Something that process mode cannot do.
    #[error("{0}")]
    Unsupported(String),
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
}
