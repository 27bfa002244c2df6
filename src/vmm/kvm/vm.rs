//! The machine as KVM knows it: memory slots, interrupt controllers, timer, and the doors to and from devices.

use kvm_bindings::{
    CpuId, KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_PRE_FAULT_MEMORY, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY,
    KVM_X86_QUIRK_SLOT_ZAP_ALL, MsrList, kvm_cpuid_entry2, kvm_enable_cap, kvm_pit_config,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Error, Result};
use crate::kvm::{cpuid, sys};
use crate::layout;

/// A piece of guest memory, as KVM counts them.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// Its guest-physical address.
    pub guest: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether a write of the guest comes to us instead of to the memory.
    pub read_only: bool,
}

/// A machine.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    /// What KVM can show of this host's processor.
    pub(super) cpuid: CpuId,
    /// The model-specific registers that make up a vCPU's state.
    pub(super) msrs: MsrList,
    /// Size of the extended registers' state, in bytes.
    pub(super) xsave_bytes: usize,
    /// Whether memory can be shown to the guest before it asks (`KVM_PRE_FAULT_MEMORY`, Linux 6.11).
    pub(super) maps_ahead: bool,
}

impl Vm {
    /// A machine with KVM's interrupt controllers and timer, without memory and processors.
    pub fn new(kvm: &Kvm) -> Result<Self> {
        let fd = create(kvm).map_err(Error::host("create a virtual machine (KVM_CREATE_VM)"))?;
        fd.set_identity_map_address(layout::IDENTITY_MAP).map_err(Error::host("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(layout::TSS as usize).map_err(Error::host("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(Error::host("create the interrupt controllers (KVM_CREATE_IRQCHIP)"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(Error::host("create the timer (KVM_CREATE_PIT2)"))?;
        forget_no_more_than_goes(&fd)?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::host("KVM_GET_SUPPORTED_CPUID"))?;
        let msrs = kvm.get_msr_index_list().map_err(Error::host("KVM_GET_MSR_INDEX_LIST"))?;
        let xsave_bytes = fd.check_extension_int(Cap::Xsave2).max(0) as usize;
        let maps_ahead = fd.check_extension_raw(KVM_CAP_PRE_FAULT_MEMORY.into()) > 0;
        Ok(Self { fd, cpuid, msrs, xsave_bytes, maps_ahead })
    }

    /// The leaves of the first of so many vCPUs: what a guest knows of the host.
    pub(crate) fn leaves(&self, vcpus: usize) -> Result<Vec<kvm_cpuid_entry2>> {
        Ok(cpuid::leaves(&self.cpuid, 0, vcpus)?.as_slice().to_vec())
    }

    /// KVM's handle.
    pub(super) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Shows memory to the guest. `host` is the start of a mapping of at least as many bytes, which stays
    /// until [`Vm::unmap`] or outlives the machine.
    pub(crate) fn map(&self, slot: &Slot, host: *mut u8) -> Result<()> {
        let step = || format!("show {} bytes of memory at {:#x} to the guest", slot.bytes, slot.guest);
        sys::map(&self.fd, slot, host).map_err(|error| Error::host(step())(error))
    }

    /// Takes memory of [`Vm::map`] away from the guest.
    pub(crate) fn unmap(&self, slot: &Slot) -> Result<()> {
        sys::unmap(&self.fd, slot).map_err(Error::host("take memory away from the guest"))
    }

    /// A write of `value` to a 32-bit register of the guest becomes a write to `event`, without a return from `KVM_RUN`.
    pub fn connect_kick(&self, register: u64, value: u32, event: &EventFd) -> Result<()> {
        let address = IoEventAddress::Mmio(register);
        self.fd.register_ioevent(event, &address, value).map_err(Error::host("connect a queue (KVM_IOEVENTFD)"))
    }

    /// Any write to a register of the guest becomes a write to `event`, without a return from `KVM_RUN`.
    pub fn swallow(&self, register: u64, event: &EventFd) -> Result<()> {
        let address = IoEventAddress::Mmio(register);
        self.fd
            .register_ioevent(event, &address, NoDatamatch)
            .map_err(Error::host("connect a register (KVM_IOEVENTFD)"))
    }

    /// Undoes [`Vm::connect_kick`].
    pub fn disconnect_kick(&self, register: u64, value: u32, event: &EventFd) -> Result<()> {
        let address = IoEventAddress::Mmio(register);
        self.fd.unregister_ioevent(event, &address, value).map_err(Error::host("disconnect a queue (KVM_IOEVENTFD)"))
    }

    /// Undoes [`Vm::swallow`].
    pub fn let_through(&self, register: u64, event: &EventFd) -> Result<()> {
        let address = IoEventAddress::Mmio(register);
        self.fd
            .unregister_ioevent(event, &address, NoDatamatch)
            .map_err(Error::host("disconnect a register (KVM_IOEVENTFD)"))
    }

    /// A write to `event` becomes an edge on an interrupt line. Several events may share a line.
    pub fn connect_interrupt(&self, event: &EventFd, line: u32) -> Result<()> {
        self.fd.register_irqfd(event, line).map_err(Error::host("connect an interrupt (KVM_IRQFD)"))
    }

    /// Undoes [`Vm::connect_interrupt`].
    pub fn disconnect_interrupt(&self, event: &EventFd, line: u32) -> Result<()> {
        self.fd.unregister_irqfd(event, line).map_err(Error::host("disconnect an interrupt (KVM_IRQFD)"))
    }
}

/// When a slot goes, as one does with each device that is taken out, KVM forgets all of the guest's second-level page tables,
/// which then come back page by page; from Linux 6.12 on it can be told to forget what was of the slot alone.
fn forget_no_more_than_goes(fd: &VmFd) -> Result<()> {
    let known = fd.check_extension_raw(KVM_CAP_DISABLE_QUIRKS2.into());
    if known < 0 || known as u32 & KVM_X86_QUIRK_SLOT_ZAP_ALL == 0 {
        return Ok(());
    }
    let args = [KVM_X86_QUIRK_SLOT_ZAP_ALL.into(), 0, 0, 0];
    let capability = kvm_enable_cap { cap: KVM_CAP_DISABLE_QUIRKS2, args, ..Default::default() };
    fd.enable_cap(&capability).map_err(Error::host("switch off a quirk (KVM_CAP_DISABLE_QUIRKS2)"))
}

/// `KVM_CREATE_VM` waits for grace periods of the host's kernel and gives up on a signal.
fn create(kvm: &Kvm) -> std::result::Result<VmFd, kvm_ioctls::Error> {
    let mut tries = 0;
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR && tries < 5 => tries += 1,
            result => return result,
        }
    }
}
