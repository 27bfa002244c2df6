//! A virtual processor: made, started, run, and asked what happened when it cannot go on.

use std::io;

use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, Result};
use crate::kvm::exit::{Returned, Stuck, translate};
use crate::kvm::fault::{self, Fault};
use crate::kvm::start::{self, Start};
use crate::kvm::sys::{self, Kick};
use crate::kvm::vm::Vm;
use crate::kvm::{cpuid, state};
use crate::memory::Piece;

/// The longest instruction of x86, in bytes.
const LONGEST_INSTRUCTION: u64 = 15;

/// A virtual processor.
#[derive(Debug)]
pub struct Vcpu {
    index: usize,
    fd: VcpuFd,
    /// Size of the extended registers' state, in bytes.
    pub(super) xsave_bytes: usize,
    /// The model-specific registers that make up its state.
    pub(super) msrs: Vec<u32>,
    maps_ahead: bool,
}

impl Vcpu {
    /// Makes vCPU `index` of `count`. Its APIC id is its index.
    pub fn new(vm: &Vm, index: usize, count: usize) -> Result<Self> {
        let fd = vm.fd().create_vcpu(index as u64).map_err(Error::host(format!("create vCPU {index}")))?;
        let leaves = cpuid::leaves(&vm.cpuid, index, count)?;
        fd.set_cpuid2(&leaves).map_err(Error::host("describe the processor (KVM_SET_CPUID2)"))?;
        start::prepare(&fd)?;
        let (xsave_bytes, maps_ahead) = (vm.xsave_bytes, vm.maps_ahead);
        Ok(Self { index, fd, xsave_bytes, msrs: state::registers(vm.msrs.as_slice()), maps_ahead })
    }

    /// Its number.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Puts the first vCPU to the kernel's entry.
    pub fn enter(&self, start: Start) -> Result<()> {
        start::enter(&self.fd, start)
    }

    /// What takes it out of the guest. May not be used after the vCPU is gone.
    pub fn kick(&mut self) -> Kick {
        Kick::new(&mut self.fd)
    }

    /// Shows pieces of memory to the guest that are there, so that it need not ask for each page. A KVM that cannot leaves
    /// it to the guest to ask.
    pub(crate) fn map(&self, pieces: impl Iterator<Item = Piece>) -> Result<()> {
        if !self.maps_ahead {
            return Ok(());
        }
        for piece in pieces {
            sys::map_pages(&self.fd, piece.start.0, piece.bytes)
                .map_err(Error::host("show memory to the guest (KVM_PRE_FAULT_MEMORY)"))?;
        }
        Ok(())
    }

    /// Runs the guest until it needs something.
    pub fn run(&mut self) -> io::Result<Returned<'_>> {
        translate(self.fd.run()).map_err(io::Error::from)
    }

    /// What the guest did when KVM could not go on, for the exit that has just happened.
    pub fn fault(&mut self, stuck: &Stuck, memory: &GuestMemoryMmap) -> Fault {
        let reason = match stuck {
            Stuck::Internal => {
                let error = sys::internal_error(&mut self.fd);
                fault::internal_error(error.suberror, &error.data)
            }
            Stuck::Entry { reason } => format!("the processor refuses the guest's state (reason {reason:#x})"),
            Stuck::Memory { address } => format!("the host has no memory for guest address {address:#x}"),
            Stuck::Other(exit) => format!("an exit that this machine cannot handle: {exit}"),
        };
        self.describe(reason, memory)
    }

    /// The same for a reason of our own.
    pub fn describe(&self, reason: String, memory: &GuestMemoryMmap) -> Fault {
        let regs = self.fd.get_regs().unwrap_or_default();
        let sregs = self.fd.get_sregs().unwrap_or_default();
        let instruction = self.instruction(&regs, sregs.cs.base, memory);
        Fault::new(reason, self.index, &regs, [sregs.cr0, sregs.cr3, sregs.cr4], instruction)
    }

    /// The bytes at the instruction pointer, up to the first that cannot be read.
    fn instruction(&self, regs: &kvm_regs, base: u64, memory: &GuestMemoryMmap) -> Vec<u8> {
        let byte = |offset: u64| {
            let address = base.wrapping_add(regs.rip).wrapping_add(offset);
            let physical = self.fd.translate_gva(address).ok().filter(|translation| translation.valid != 0)?;
            memory.read_obj::<u8>(GuestAddress(physical.physical_address)).ok()
        };
        (0..LONGEST_INSTRUCTION).map_while(byte).collect()
    }
}
