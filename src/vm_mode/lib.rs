//! VM mode: a plan, our VMM and the agent become a running sandbox.
//!
//! ```text
//! supervisor (privileged, one thread)          machine's process (confined)         guest
//!   Sandbox::launch ── fork ───────────────────▶ vCPUs, devices ──────────────────▶ kernel, agent
//!     Wake, Create, Attach, Start ═══════════════ vsock ══════════════════════════▶ agent ─▶ container
//!     standard streams ══════════════════════════ vsock, one connection each ═════▶ pipes or terminal
//! ```
//!
//! The supervisor owns everything that needs privileges (taps, control groups, mounts, files) and outlives the machine;
//! the machine's process is forked from it, opens what it needs, gives up everything else and then runs the guest. See
//! `docs/decisions/0005-the-machine-is-a-process-of-its-own.md`.

mod agent;
pub mod artifacts;
mod devices;
mod error;
pub mod facts;
mod hardware;
mod home;
mod initramfs;
mod launching;
mod machine;
mod part;
mod plan;
mod process;
mod relay;
mod room;
mod sandbox;
mod share_root;
mod shares;
pub mod size;
mod template;
mod tenancy;

pub use error::Error;
pub use process::{Process, Started};
pub use sandbox::{Sandbox, Setting};
pub use sbx_vmm::probe::kvm_usable;
pub use template::Templates;
pub use tenancy::{Admitted, Door, JoinedContainers, SharedMachine};
