//! What a vCPU says of itself: what KVM offers of the host's processor, with a topology of our own (one socket, so many
//! cores, one thread each) and without virtualisation inside and performance counters, whose state nobody saves.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::error::{Error, Result};

/// Leaf 1, ECX: virtual machine extensions, timer deadline by TSC, a hypervisor is there.
const VMX: u32 = 1 << 5;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: more than one logical processor.
const MULTI_THREADING: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX: AMD's virtualisation.
const SVM: u32 = 1 << 2;

/// Topology leaves that we write ourselves or that would contradict ours.
const EXTENDED_TOPOLOGY: u32 = 0xb;
const EXTENDED_TOPOLOGY_V2: u32 = 0x1f;
const AMD_EXTENDED_TOPOLOGY: u32 = 0x8000_0026;
const AMD_SVM: u32 = 0x8000_000a;

/// The leaves of vCPU `index` of `count`.
pub(super) fn leaves(offered: &CpuId, index: usize, count: usize) -> Result<CpuId> {
    let (id, count) = (index as u32, count as u32);
    let mut entries: Vec<kvm_cpuid_entry2> = offered.as_slice().to_vec();
    let topology = entries.iter().any(|entry| entry.function == EXTENDED_TOPOLOGY);
    entries.retain(|entry| {
        ![EXTENDED_TOPOLOGY, EXTENDED_TOPOLOGY_V2, AMD_EXTENDED_TOPOLOGY, AMD_SVM].contains(&entry.function)
    });
    for entry in &mut entries {
        adapt(entry, id, count);
    }
    if topology {
        entries.extend(levels(id, count));
    }
    CpuId::from_entries(&entries).map_err(|error| Error::Config(format!("processor leaves: {error:?}")))
}

/// Number of bits that tell so many cores apart.
fn width(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn adapt(entry: &mut kvm_cpuid_entry2, id: u32, count: u32) {
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
            entry.ecx = entry.ecx & !VMX | HYPERVISOR | TSC_DEADLINE;
            entry.edx = if count > 1 { entry.edx | MULTI_THREADING } else { entry.edx & !MULTI_THREADING };
        }
        // Intel's caches: bits 25:14 say how many share it, 31:26 how many cores the package has.
        0x4 if entry.eax & 0x1f != 0 => {
            let cores = (1 << width(count)) - 1;
            let sharing = if entry.eax >> 5 & 7 >= 3 { cores } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | cores << 26;
        }
        // Performance counters: none.
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        0x8000_0001 => entry.ecx &= !SVM,
        // AMD: number of cores less one, and the bits of an APIC id that name a core.
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | (count - 1) | width(count) << 12,
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & !(0xfff << 14) | sharing << 14;
        }
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        _ => {}
    }
}

/// Leaf 0xB (Intel's manual, volume 2A): a core has one thread, the package has all cores.
fn levels(id: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, shift: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
        function: EXTENDED_TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: index | kind << 8,
        edx: id,
        ..Default::default()
    };
    [level(0, 0, 1, 1), level(1, width(count), count, 2), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{CpuId, kvm_cpuid_entry2};

    use super::leaves;

    fn entry(function: u32, eax: u32, ebx: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, ..Default::default() }
    }

    fn leaf(leaves: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *leaves.as_slice().iter().find(|entry| entry.function == function && entry.index == index).unwrap()
    }

    #[test]
    fn a_vcpu_is_one_core_of_one_socket() {
        let offered = CpuId::from_entries(&[
            entry(0x1, 0, 0xff10_0800, 1 << 5),
            entry(0x4, 0x0000_0121, 0, 0),
            entry(0xb, 9, 9, 9),
            entry(0x1f, 9, 9, 9),
            entry(0x8000_0001, 0, 0, 1 << 2),
            entry(0x8000_0008, 0, 0, 0x7007),
        ])
        .unwrap();
        let leaves = leaves(&offered, 2, 3).unwrap();
        assert_eq!(leaf(&leaves, 1, 0).ebx, 0x0203_0800);
        assert_eq!(leaf(&leaves, 1, 0).ecx, 1 << 31 | 1 << 24, "hypervisor, no virtualisation inside");
        assert_eq!(leaf(&leaves, 4, 0).eax >> 26, 3);
        let package = leaf(&leaves, 0xb, 1);
        assert_eq!((package.eax, package.ebx, package.ecx, package.edx), (2, 3, 0x201, 2));
        assert!(!leaves.as_slice().iter().any(|entry| entry.function == 0x1f));
        assert_eq!(leaf(&leaves, 0x8000_0001, 0).ecx, 0);
        assert_eq!(leaf(&leaves, 0x8000_0008, 0).ecx, 0x2002);
    }
}
