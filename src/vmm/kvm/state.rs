//! State of processors and interrupt controllers, as plain data, out of KVM and into it.
//!
//! The order of restoring matters and is written down in KVM's own users: the leaves of the processor come first (they
//! decide which registers exist), the local APIC needs its base address from the special registers, model-specific
//! registers that arm the APIC's timer come after the APIC, and pending events last.

use kvm_bindings::{
    CpuId, KVM_CLOCK_HOST_TSC, KVM_CLOCK_REALTIME, KVM_CLOCK_TSC_STABLE, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, Msrs, Xsave, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs,
    kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kvm::sys;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::Vm;

/// `IA32_TSC`: not in KVM's list of registers to save on all versions.
const MSR_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`: arms the timer, so it comes after the counter it is compared with.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// Registers of the performance counters, which the guest does not see (see `cpuid`): KVM lists them nevertheless.
const COUNTERS: [std::ops::Range<u32>; 6] =
    [0xc1..0xc9, 0x186..0x18e, 0x309..0x310, 0x38d..0x391, 0x3f1..0x3f3, 0xc001_0000..0xc001_0008];
const AMD_COUNTERS: std::ops::Range<u32> = 0xc001_0200..0xc001_020c;

/// The registers to save, of those that KVM lists.
pub(super) fn registers(listed: &[u32]) -> Vec<u32> {
    let counter = |index: &u32| COUNTERS.iter().any(|range| range.contains(index)) || AMD_COUNTERS.contains(index);
    let mut all: Vec<u32> =
        listed.iter().copied().filter(|index| !counter(index) && *index != MSR_TSC_DEADLINE).collect();
    if !all.contains(&MSR_TSC) {
        all.push(MSR_TSC);
    }
    all.push(MSR_TSC_DEADLINE);
    all
}

/// State of a vCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    msrs: Vec<kvm_msr_entry>,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    running: kvm_mp_state,
    tsc_khz: u32,
}

impl Vcpu {
    /// Its state. It must not be in the guest.
    pub fn save(&mut self) -> Result<VcpuState> {
        // The pending part of an instruction that came to us (a read whose answer lies ready) is completed by entering
        // once more, which KVM does before it looks at the flag.
        self.complete()?;
        let fd = self.fd();
        // Reading the run state first lets KVM fold pending INIT and SIPI into what is read after it.
        let running = fd.get_mp_state().map_err(Error::host("KVM_GET_MP_STATE"))?;
        Ok(VcpuState {
            running,
            regs: fd.get_regs().map_err(Error::host("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(Error::host("KVM_GET_SREGS"))?,
            xsave: self.save_extended()?,
            xcrs: fd.get_xcrs().map_err(Error::host("KVM_GET_XCRS"))?,
            debug: fd.get_debug_regs().map_err(Error::host("KVM_GET_DEBUGREGS"))?,
            lapic: fd.get_lapic().map_err(Error::host("KVM_GET_LAPIC"))?,
            tsc_khz: fd.get_tsc_khz().unwrap_or(0),
            cpuid: fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(Error::host("KVM_GET_CPUID2"))?.as_slice().to_vec(),
            msrs: self.save_registers()?,
            events: fd.get_vcpu_events().map_err(Error::host("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    fn complete(&mut self) -> Result<()> {
        let kick = self.kick();
        kick.set();
        let result = self.run().map(|_| ()).map_err(Error::host("complete an access of the guest"));
        kick.clear();
        result
    }

    fn save_extended(&self) -> Result<Xsave> {
        let mut area = Xsave::new(self.extended_words())
            .map_err(|error| Error::Config(format!("state of extended registers: {error:?}")))?;
        sys::xsave(self.fd(), &mut area).map_err(Error::host("KVM_GET_XSAVE2"))?;
        Ok(area)
    }

    /// How many words KVM wants for extended registers behind the first 4 KiB.
    fn extended_words(&self) -> usize {
        self.xsave_bytes.saturating_sub(std::mem::size_of::<kvm_xsave>()).div_ceil(4)
    }

    /// KVM reads registers until the first that this processor does not have; that one is left out.
    fn save_registers(&self) -> Result<Vec<kvm_msr_entry>> {
        let mut wanted = self.msrs.clone();
        let mut saved = Vec::new();
        while !wanted.is_empty() {
            let entries: Vec<kvm_msr_entry> =
                wanted.iter().take(256).map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
            let mut msrs =
                Msrs::from_entries(&entries).map_err(|error| Error::Config(format!("registers: {error:?}")))?;
            let read = self.fd().get_msrs(&mut msrs).map_err(Error::host("KVM_GET_MSRS"))?;
            saved.extend_from_slice(&msrs.as_slice()[..read]);
            let skipped = usize::from(read < entries.len());
            wanted.drain(..read + skipped);
        }
        Ok(saved)
    }

    /// Takes a state of [`Vcpu::save`], on a processor that offers what that one had.
    pub fn restore(&mut self, state: &VcpuState) -> Result<()> {
        let fd = self.fd();
        let leaves = CpuId::from_entries(&state.cpuid).map_err(|error| Error::State(format!("leaves: {error:?}")))?;
        fd.set_cpuid2(&leaves).map_err(Error::host("KVM_SET_CPUID2"))?;
        if state.tsc_khz != 0 && fd.get_tsc_khz().ok() != Some(state.tsc_khz) {
            fd.set_tsc_khz(state.tsc_khz).map_err(Error::host("run at the saved machine's clock rate"))?;
        }
        fd.set_mp_state(state.running).map_err(Error::host("KVM_SET_MP_STATE"))?;
        fd.set_regs(&state.regs).map_err(Error::host("KVM_SET_REGS"))?;
        fd.set_sregs(&state.sregs).map_err(Error::host("KVM_SET_SREGS"))?;
        self.restore_extended(&state.xsave)?;
        let fd = self.fd();
        // A processor without XSAVE has none of these registers, and KVM then refuses to set none.
        if state.xcrs.nr_xcrs != 0 {
            fd.set_xcrs(&state.xcrs).map_err(Error::host("KVM_SET_XCRS"))?;
        }
        fd.set_debug_regs(&state.debug).map_err(Error::host("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&state.lapic).map_err(Error::host("KVM_SET_LAPIC"))?;
        self.restore_registers(&state.msrs)?;
        self.fd().set_vcpu_events(&state.events).map_err(Error::host("KVM_SET_VCPU_EVENTS"))
    }

    fn restore_extended(&self, area: &Xsave) -> Result<()> {
        if area.as_slice().len() != self.extended_words() {
            return Err(Error::State("the extended registers have another size than this processor's".into()));
        }
        sys::set_xsave(self.fd(), area).map_err(Error::host("KVM_SET_XSAVE"))
    }

    /// KVM writes registers until the first that it refuses; one whose value is zero may be refused.
    fn restore_registers(&self, saved: &[kvm_msr_entry]) -> Result<()> {
        let mut rest = saved;
        while !rest.is_empty() {
            let part = &rest[..rest.len().min(256)];
            let msrs = Msrs::from_entries(part).map_err(|error| Error::State(format!("registers: {error:?}")))?;
            let set = self.fd().set_msrs(&msrs).map_err(Error::host("KVM_SET_MSRS"))?;
            match part.get(set) {
                Some(refused) if refused.data != 0 => {
                    return Err(Error::State(format!(
                        "this host's KVM refuses the model-specific register {:#x} with {:#x}",
                        refused.index, refused.data
                    )));
                }
                Some(_) => rest = &rest[set + 1..],
                None => rest = &rest[set..],
            }
        }
        Ok(())
    }
}

/// State of the interrupt controllers, the timer and the clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterruptState {
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
    clock: kvm_clock_data,
}

impl Vm {
    /// State of what KVM does for the machine besides the processors. They must stand still.
    pub fn save(&self) -> Result<InterruptState> {
        let mut chips = Vec::new();
        for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            self.fd().get_irqchip(&mut chip).map_err(Error::host("KVM_GET_IRQCHIP"))?;
            chips.push(chip);
        }
        let pit = self.fd().get_pit2().map_err(Error::host("KVM_GET_PIT2"))?;
        let mut clock = self.fd().get_clock().map_err(Error::host("KVM_GET_CLOCK"))?;
        // What remains is what KVM_SET_CLOCK accepts. The machine's own clock stands still while it is saved.
        clock.flags &= !(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC);
        Ok(InterruptState { chips, pit, clock })
    }

    /// Takes a state of [`Vm::save`]. Comes after the processors, whose counters the clock is based on.
    pub fn restore(&self, state: &InterruptState) -> Result<()> {
        for chip in &state.chips {
            self.fd().set_irqchip(chip).map_err(Error::host("KVM_SET_IRQCHIP"))?;
        }
        self.fd().set_pit2(&state.pit).map_err(Error::host("KVM_SET_PIT2"))?;
        self.fd().set_clock(&state.clock).map_err(Error::host("KVM_SET_CLOCK"))
    }
}

#[cfg(test)]
mod tests {
    use super::registers;

    #[test]
    fn the_timer_is_armed_after_everything_else_and_counters_are_left_out() {
        assert_eq!(registers(&[0x6e0, 0x174, 0xc1, 0xc001_0200, 0xc001_0117]), [0x174, 0xc001_0117, 0x10, 0x6e0]);
    }
}
