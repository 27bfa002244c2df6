//! The registers with which a vCPU begins.
//!
//! The first begins at the kernel's entry, in protected mode (PVH) or in long mode (64-bit boot protocol); the others
//! wait until the first wakes them by its local APIC, which KVM does by itself.

use kvm_bindings::{Msrs, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, Result};
use crate::layout;

/// How the first vCPU begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// 32-bit protected mode, the address of `hvm_start_info` in EBX (Xen's PVH boot ABI).
    Pvh {
        /// Address of the first instruction.
        entry: u64,
    },
    /// Long mode with the first GiB mapped, the address of `boot_params` in RSI (Documentation/arch/x86/boot.rst).
    Linux {
        /// Address of the first instruction.
        entry: u64,
    },
}

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG: u64 = 1 << 8 | 1 << 10;

/// Page table entries: present and writable; a large page.
const PRESENT: u64 = 3;
const LARGE: u64 = 1 << 7;

/// Segment descriptors: nothing, 64-bit code, data, task state, 32-bit code (Intel's manual, volume 3A, 3.4.5).
const DESCRIPTORS: [u64; 5] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067, 0x00cf_9b00_0000_ffff];
const CODE_64: u16 = 1;
const DATA: u16 = 2;
const TASK: u16 = 3;
const CODE_32: u16 = 4;

/// The registers of LINT0 and LINT1 in the local APIC, and the delivery modes that a PC's firmware leaves there.
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
const EXTERNAL_INTERRUPT: u32 = 0x700;
const NON_MASKABLE: u32 = 0x400;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// Writes what the first instructions need into the guest's memory: descriptors, and page tables for the first GiB.
pub fn write_descriptors(memory: &GuestMemoryMmap) -> Result<()> {
    for (index, descriptor) in DESCRIPTORS.iter().enumerate() {
        memory.write_obj(*descriptor, GuestAddress(layout::GDT + 8 * index as u64))?;
    }
    let (second, third) = (layout::PAGE_TABLES + layout::PAGE, layout::PAGE_TABLES + 2 * layout::PAGE);
    memory.write_obj(second | PRESENT, GuestAddress(layout::PAGE_TABLES))?;
    memory.write_obj(third | PRESENT, GuestAddress(second))?;
    let entries: Vec<u8> = (0..512_u64).flat_map(|page| (page << 21 | PRESENT | LARGE).to_le_bytes()).collect();
    memory.write_slice(&entries, GuestAddress(third))?;
    Ok(())
}

/// Sets what every vCPU begins with, whoever starts it.
pub(super) fn prepare(fd: &VcpuFd) -> Result<()> {
    let mut lapic = fd.get_lapic().map_err(Error::host("KVM_GET_LAPIC"))?;
    for (register, mode) in [(LINT0, EXTERNAL_INTERRUPT), (LINT1, NON_MASKABLE)] {
        write_register(&mut lapic, register, mode);
    }
    fd.set_lapic(&lapic).map_err(Error::host("KVM_SET_LAPIC"))?;
    let entries = [(MSR_MISC_ENABLE, FAST_STRINGS), (MSR_MTRR_DEFAULT, MTRR_ON_WRITE_BACK)]
        .map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() });
    let msrs = Msrs::from_entries(&entries).map_err(|error| Error::Config(format!("registers: {error:?}")))?;
    let set = fd.set_msrs(&msrs).map_err(Error::host("KVM_SET_MSRS"))?;
    if set == entries.len() {
        Ok(())
    } else {
        Err(Error::Config(format!("KVM refuses the model-specific register {:#x}", entries[set].index)))
    }
}

fn write_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (place, byte) in lapic.regs[offset..offset + 4].iter_mut().zip(value.to_le_bytes()) {
        *place = byte as _;
    }
}

/// Puts the first vCPU to the kernel's entry.
pub(super) fn enter(fd: &VcpuFd, start: Start) -> Result<()> {
    let mut sregs = fd.get_sregs().map_err(Error::host("KVM_GET_SREGS"))?;
    let regs = match start {
        Start::Pvh { entry } => {
            segments(&mut sregs, CODE_32);
            sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION;
            sregs.cr4 = 0;
            kvm_regs { rflags: 2, rip: entry, rbx: layout::PVH_START_INFO, ..Default::default() }
        }
        Start::Linux { entry } => {
            segments(&mut sregs, CODE_64);
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION | CR0_PAGING;
            sregs.efer = EFER_LONG;
            let stack = layout::BOOT_STACK;
            kvm_regs { rflags: 2, rip: entry, rsi: layout::ZERO_PAGE, rsp: stack, rbp: stack, ..Default::default() }
        }
    };
    fd.set_sregs(&sregs).map_err(Error::host("KVM_SET_SREGS"))?;
    fd.set_regs(&regs).map_err(Error::host("KVM_SET_REGS"))
}

fn segments(sregs: &mut kvm_sregs, code: u16) {
    let data = segment(DATA);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cs = segment(code);
    sregs.tr = segment(TASK);
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = (DESCRIPTORS.len() * 8 - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
}

/// What the processor keeps of a descriptor once it is loaded.
fn segment(index: u16) -> kvm_segment {
    let descriptor = DESCRIPTORS[usize::from(index)];
    let bit = |position: u32| (descriptor >> position & 1) as u8;
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    kvm_segment {
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
        limit: if bit(55) == 1 { limit << 12 | 0xfff } else { limit },
        selector: index * 8,
        type_: (descriptor >> 40 & 0xf) as u8,
        s: bit(44),
        dpl: (descriptor >> 45 & 3) as u8,
        present: bit(47),
        avl: bit(52),
        l: bit(53),
        db: bit(54),
        g: bit(55),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{CODE_32, CODE_64, DATA, TASK, segment};

    #[test]
    fn descriptors_say_what_they_are_named() {
        let (code, data, task, old) = (segment(CODE_64), segment(DATA), segment(TASK), segment(CODE_32));
        assert_eq!((code.l, code.db, code.type_, code.limit, code.selector), (1, 0, 0xb, u32::MAX, 8));
        assert_eq!((data.db, data.type_, data.base, data.limit), (1, 3, 0, u32::MAX));
        assert_eq!((task.s, task.type_, task.limit), (0, 0xb, 0x67));
        assert_eq!((old.l, old.db, old.type_, old.limit, old.selector), (0, 1, 0xb, u32::MAX, 32));
    }
}
