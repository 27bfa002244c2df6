//! What a guest did that KVM could not go on with: told in full, for there is no second chance to look.

use std::fmt;

use kvm_bindings::kvm_regs;

/// A guest's last instruction, as far as it can be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened, in KVM's words.
    pub reason: String,
    /// Number of the vCPU.
    pub vcpu: usize,
    /// Address of the instruction.
    pub rip: u64,
    /// The bytes there, where the guest's page tables lead to memory.
    pub instruction: Vec<u8>,
    /// Control registers 0, 3 and 4.
    pub control: [u64; 3],
    /// Stack pointer and flags.
    pub stack_and_flags: [u64; 2],
}

impl Fault {
    pub(super) fn new(reason: String, vcpu: usize, regs: &kvm_regs, control: [u64; 3], instruction: Vec<u8>) -> Self {
        Self { reason, vcpu, rip: regs.rip, instruction, control, stack_and_flags: [regs.rsp, regs.rflags] }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [cr0, cr3, cr4] = self.control;
        let [rsp, rflags] = self.stack_and_flags;
        write!(f, "{}; vCPU {} at rip {:#x}, ", self.reason, self.vcpu, self.rip)?;
        if self.instruction.is_empty() {
            write!(f, "instruction unreadable")?;
        } else {
            write!(f, "instruction")?;
            for byte in &self.instruction {
                write!(f, " {byte:02x}")?;
            }
        }
        write!(f, ", rsp {rsp:#x}, rflags {rflags:#x}, cr0 {cr0:#x}, cr3 {cr3:#x}, cr4 {cr4:#x}")
    }
}

/// The name of a `KVM_INTERNAL_ERROR_*` (include/uapi/linux/kvm.h).
pub(super) fn internal_error(suberror: u32, data: &[u64]) -> String {
    let name = match suberror {
        1 => "KVM cannot emulate an instruction",
        2 => "an exception while KVM delivered another",
        3 => "KVM could not deliver an event",
        4 => "an exit of the processor that KVM does not know",
        _ => "an internal error of KVM",
    };
    format!("{name} (suberror {suberror}, data {data:x?})")
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_regs;

    use super::{Fault, internal_error};

    #[test]
    fn a_fault_tells_the_instruction_and_where_it_stands() {
        let regs = kvm_regs { rip: 0x1000, rsp: 0x8000, rflags: 2, ..Default::default() };
        let fault = Fault::new(internal_error(1, &[5]), 3, &regs, [0x11, 0x9000, 0x20], vec![0xf0, 0x0f]);
        assert_eq!(
            fault.to_string(),
            "KVM cannot emulate an instruction (suberror 1, data [5]); vCPU 3 at rip 0x1000, instruction f0 0f, \
             rsp 0x8000, rflags 0x2, cr0 0x11, cr3 0x9000, cr4 0x20"
        );
    }
}
