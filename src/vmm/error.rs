//! Why a machine could not be built, confined, run, saved or restored.

use std::io;

/// What went wrong, with the step and the subject.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's kernel or KVM refused a step.
    #[error("{step}: {source}")]
    Host {
        /// What was tried.
        step: String,
        /// The answer.
        source: io::Error,
    },
    /// The configuration asks for what cannot be.
    #[error("{0}")]
    Config(String),
    /// The kernel image cannot be started.
    #[error("kernel image: {0}")]
    Kernel(String),
    /// The kernel image or the initial file system does not fit into the guest's memory.
    #[error("{what} does not fit into the {memory} MiB of memory of the machine; give it more memory")]
    TooLittleMemory {
        /// What does not fit.
        what: &'static str,
        /// The memory of the machine.
        memory: u64,
    },
    /// The guest's memory cannot be reached at an address of ours.
    #[error("guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// A saved machine cannot be restored.
    #[error("saved machine: {0}")]
    State(String),
    /// A device refused to be saved or restored.
    #[error("device {device}: {source}")]
    Device {
        /// Its name.
        device: String,
        /// Its reason.
        source: crate::virtio::DeviceError,
    },
    /// A thread of ours panicked, which is a bug.
    #[error("thread {thread} panicked: {message}")]
    Panic {
        /// Its name.
        thread: String,
        /// What it said.
        message: String,
    },
}

impl Error {
    /// Wraps an answer of the host's kernel: `.map_err(Error::host("create the machine"))`.
    pub fn host<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |source| Self::Host { step, source: source.into() }
    }
}

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
