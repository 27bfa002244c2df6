//! KVM: the machine ([`Vm`]), its processors ([`Vcpu`]), and why a processor came back ([`Returned`]).
//!
//! Nothing outside of this folder sees an exit of KVM, only our own words for it.

mod cpuid;
mod exit;
mod fault;
mod start;
mod state;
mod sys;
mod vcpu;
mod vm;

pub use exit::{Returned, Stuck};
pub use fault::Fault;
pub use start::{Start, write_descriptors};
pub use state::{InterruptState, VcpuState};
pub use sys::{Kick, prepare_kicks};
pub use vcpu::Vcpu;
pub use vm::{Slot, Vm};
