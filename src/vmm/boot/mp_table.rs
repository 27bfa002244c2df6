//! The MP table (Intel, MultiProcessor Specification 1.4, chapter 4): how a kernel without ACPI learns of processors,
//! the I/O APIC and which of its pins has which interrupt.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, Result};
use crate::layout;

/// The most processors: the table has one byte for an APIC's id, the I/O APIC has one too, and the kernel is built for
/// so many.
pub(crate) const VCPUS_MAX: usize = 64;

const SPECIFICATION: u8 = 4;
const APIC_VERSION: u8 = 0x14;
/// Enabled; the bootstrap processor.
const CPU_ENABLED: u8 = 1;
const CPU_BOOTSTRAP: u8 = 2;
/// On-chip local APIC and FPU.
const CPU_FEATURES: u32 = 0x201;
const CPU_SIGNATURE: u32 = 0x600;
/// Kinds of entries.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
/// Kinds of interrupts.
const VECTORED: u8 = 0;
const NON_MASKABLE: u8 = 1;
const EXTERNAL: u8 = 3;
/// All local APICs.
const EVERYONE: u8 = 0xff;

/// Writes pointer and table.
pub(super) fn write(ram: &GuestMemoryMmap, vcpus: usize) -> Result<()> {
    let table = table(vcpus)?;
    ram.write_slice(&table, GuestAddress(layout::MP_TABLE))?;
    ram.write_slice(&pointer(), GuestAddress(layout::MP_POINTER))?;
    Ok(())
}

fn pointer() -> [u8; 16] {
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&(layout::MP_TABLE as u32).to_le_bytes());
    pointer[8] = 1;
    pointer[9] = SPECIFICATION;
    pointer[10] = checksum(&pointer);
    pointer
}

fn table(vcpus: usize) -> Result<Vec<u8>> {
    if !(1..=VCPUS_MAX).contains(&vcpus) {
        return Err(Error::Config(format!("a machine has between 1 and {VCPUS_MAX} processors, not {vcpus}")));
    }
    let io_apic = vcpus as u8;
    let mut entries = Vec::new();
    for id in 0..io_apic {
        let flags = CPU_ENABLED | if id == 0 { CPU_BOOTSTRAP } else { 0 };
        let mut entry = vec![PROCESSOR, id, APIC_VERSION, flags];
        entry.extend_from_slice(&CPU_SIGNATURE.to_le_bytes());
        entry.extend_from_slice(&CPU_FEATURES.to_le_bytes());
        entry.extend_from_slice(&[0; 8]);
        entries.push(entry);
    }
    entries.push([&[BUS, 0][..], b"ISA   "].concat());
    let mut apic = vec![IO_APIC, io_apic, APIC_VERSION, 1];
    apic.extend_from_slice(&layout::IO_APIC.to_le_bytes());
    entries.push(apic);
    // ISA's polarity and trigger ("conforms to the bus"): edges, which is what an eventfd makes. Line n is pin n.
    for line in 0..layout::IRQ_PINS as u8 {
        entries.push(vec![INTERRUPT, VECTORED, 0, 0, 0, line, io_apic, line]);
    }
    entries.push(vec![LOCAL_INTERRUPT, EXTERNAL, 0, 0, 0, 0, 0, 0]);
    entries.push(vec![LOCAL_INTERRUPT, NON_MASKABLE, 0, 0, 0, 0, EVERYONE, 1]);

    let count = entries.len() as u16;
    let mut table = b"PCMP".to_vec();
    table.extend_from_slice(&0_u16.to_le_bytes());
    table.extend_from_slice(&[SPECIFICATION, 0]);
    table.extend_from_slice(b"SBX     MICROVM     ");
    table.extend_from_slice(&[0; 6]);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&layout::LOCAL_APIC.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend(entries.concat());
    let length = table.len() as u16;
    table[4..6].copy_from_slice(&length.to_le_bytes());
    table[7] = checksum(&table);
    Ok(table)
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::{VCPUS_MAX, pointer, table};
    use crate::layout::{MP_POINTER, MP_TABLE};

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn sums_are_zero_and_lengths_are_right() {
        for vcpus in [1, 2, VCPUS_MAX] {
            let table = table(vcpus).unwrap();
            assert_eq!(sum(&table), 0);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            assert_eq!(table.len(), 44 + 20 * vcpus + 8 * (2 + 24 + 2));
            assert!(MP_TABLE + table.len() as u64 <= MP_POINTER, "the table reaches into its pointer");
        }
        assert_eq!(sum(&pointer()), 0);
    }

    #[test]
    fn a_number_of_processors_that_the_table_cannot_say_is_refused() {
        for vcpus in [0, VCPUS_MAX + 1] {
            assert!(table(vcpus).unwrap_err().to_string().contains("between 1 and 64"));
        }
    }
}
