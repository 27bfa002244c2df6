//! A KVM virtual machine: memory, vCPUs, a direct boot of an ELF kernel, virtio devices over MMIO. It knows nothing of
//! containers, images or the words spoken with the guest: its inputs are files and sizes, its outputs an exit and streams.

pub mod boot;
pub mod confine;
pub mod error;
pub mod kvm;
pub mod layout;
pub mod log;
pub mod machine;
pub mod memory;
pub mod platform;
pub mod probe;
mod sys;
pub mod virtio;

pub use error::{Error, Result};
