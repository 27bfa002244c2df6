//! Every guest-physical address of the machine, in one place.
//!
//! ```text
//!  0x0000_0500  segment descriptors           0xC000_0000  hole: one page for each virtio-mmio device
//!  0x0000_6000  PVH start information         0xFEC0_0000  I/O APIC (KVM)
//!  0x0000_7000  boot parameters ("zero page") 0xFEE0_0000  local APIC (KVM)
//!  0x0000_9000  first page tables             0xFFFB_C000  identity map page, TSS (KVM, Intel)
//!  0x0002_0000  command line                  4 GiB        the rest of the RAM
//!  0x0009_E000  MP table                      window       files mapped into the guest, above the RAM, at a
//!  0x0100_0000  kernel, then RAM                           multiple of 1 GiB; each at a multiple of 2 MiB
//!     ...       initial file system at the end of the RAM below the hole
//! ```

/// Size of a page of guest memory, in bytes.
pub const PAGE: u64 = 4096;
/// Alignment of a mapped file in the guest, in bytes: what Linux' pmem and DAX want, and a huge page.
pub const REGION_ALIGNMENT: u64 = 2 << 20;
/// Alignment of the window for mapped files, in bytes: more than a memory section of Linux (128 MiB), so that a section
/// never holds both RAM and a file.
pub const WINDOW_ALIGNMENT: u64 = 1 << 30;

/// Where the segment descriptors of the first vCPU lie.
pub const GDT: u64 = 0x500;
/// PVH: `hvm_start_info`.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH: list of modules (the initial file system).
pub const PVH_MODULES: u64 = 0x6100;
/// PVH: map of the memory.
pub const PVH_MEMORY_MAP: u64 = 0x6200;
/// Linux boot protocol: `struct boot_params`.
pub const ZERO_PAGE: u64 = 0x7000;
/// Stack of the first vCPU, growing down. Linux sets its own at once.
pub const BOOT_STACK: u64 = 0x8ff0;
/// First page table of the 64-bit entry; its two children follow.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Length of the command line with its final zero: `COMMAND_LINE_SIZE` of x86 (arch/x86/include/asm/setup.h).
pub const COMMAND_LINE_MAX: usize = 2048;

/// End of the RAM that the kernel may use below 640 KiB; behind it lies the MP table.
pub const LOW_RAM_END: u64 = 0x9_e000;
/// The MP configuration table (it need not lie where its pointer does).
pub const MP_TABLE: u64 = LOW_RAM_END;
/// The MP floating pointer: start of the last KiB of the 640 KiB, one of the places where it is searched.
pub const MP_POINTER: u64 = 0x9_fc00;
/// Start of the memory above the legacy area.
pub const HIGH_RAM: u64 = 0x10_0000;
/// Where a bzImage is loaded: `LOAD_PHYSICAL_ADDR` of every usual configuration. An ELF kernel says its own address.
pub const KERNEL: u64 = 0x100_0000;

/// Start of the hole below 4 GiB, end of the lower RAM.
pub const HOLE: u64 = 0xc000_0000;
/// End of the hole, start of the upper RAM.
pub const HOLE_END: u64 = 1 << 32;
/// First page of the virtio-mmio devices.
pub const DEVICES: u64 = HOLE;
/// Bytes of address space of one virtio-mmio device.
pub const DEVICE_SIZE: u64 = PAGE;
/// The most virtio devices a machine can have. The command line has room for their descriptions.
pub const DEVICES_MAX: usize = 32;
/// I/O APIC, as KVM's interrupt controller has it.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APIC.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page that Intel's KVM needs for guests without paging (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that Intel's KVM needs for real mode (`KVM_SET_TSS_ADDR`).
pub const TSS: u64 = 0xfffb_d000;

/// Number of pins of KVM's I/O APIC.
pub const IRQ_PINS: u32 = 24;
/// Interrupt line of the serial port.
pub const SERIAL_IRQ: u32 = 4;
/// First and last interrupt line of the virtio devices: those below belong to the PC's timer, keyboard, cascade and
/// serial ports. Further devices share lines.
pub const DEVICE_IRQS: std::ops::RangeInclusive<u32> = 5..=IRQ_PINS - 1;

/// Ports of the serial line.
pub const SERIAL_PORTS: std::ops::RangeInclusive<u16> = 0x3f8..=0x3ff;
/// Command port of the keyboard controller, whose command 0xFE pulls the reset line.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// Our own port: a byte written to it switches the machine off, with that byte as the status.
pub const POWER: u16 = 0x600;

/// Address of the registers of a device by its index.
#[must_use]
pub fn device(index: usize) -> u64 {
    DEVICES + index as u64 * DEVICE_SIZE
}

/// Interrupt line of a device by its index: one after the other, then from the first again.
#[must_use]
pub fn device_irq(index: usize) -> u32 {
    let lines = DEVICE_IRQS.end() - DEVICE_IRQS.start() + 1;
    DEVICE_IRQS.start() + index as u32 % lines
}

/// Where RAM of so many bytes lies: start and length of each piece.
#[must_use]
pub fn ram(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= HOLE { vec![(0, bytes)] } else { vec![(0, HOLE), (HOLE_END, bytes - HOLE)] }
}

/// Start of the window for mapped files.
#[must_use]
pub fn window(ram_bytes: u64) -> u64 {
    let end = ram(ram_bytes).last().map_or(0, |(start, length)| start + length);
    end.max(HOLE_END).next_multiple_of(WINDOW_ALIGNMENT)
}

/// The memory that the guest's kernel may use as its own: start and length of each piece.
#[must_use]
pub fn usable(ram_bytes: u64) -> Vec<(u64, u64)> {
    let mut pieces = vec![(0, LOW_RAM_END), (HIGH_RAM, ram_bytes.min(HOLE) - HIGH_RAM)];
    pieces.extend(ram(ram_bytes).into_iter().skip(1));
    pieces
}

#[cfg(test)]
mod tests {
    use super::{DEVICES_MAX, HOLE, HOLE_END, IRQ_PINS, device, device_irq, ram, usable, window};

    #[test]
    fn ram_leaves_the_hole_out() {
        assert_eq!(ram(256 << 20), [(0, 256 << 20)]);
        assert_eq!(ram(HOLE), [(0, HOLE)]);
        assert_eq!(ram(HOLE + 4096), [(0, HOLE), (HOLE_END, 4096)]);
    }

    #[test]
    fn the_window_lies_above_all_ram_and_the_hole() {
        assert_eq!(window(256 << 20), HOLE_END);
        assert_eq!(window(HOLE + 4096), 5 << 30);
        assert_eq!(window(8 << 30), 9 << 30);
    }

    #[test]
    fn usable_memory_has_neither_legacy_area_nor_hole() {
        let pieces = usable(4 << 30);
        assert_eq!(pieces, [(0, 0x9_e000), (0x10_0000, HOLE - 0x10_0000), (HOLE_END, 1 << 30)]);
    }

    #[test]
    fn every_device_has_a_page_of_its_own_and_a_line_that_exists() {
        for index in 0..DEVICES_MAX {
            assert_eq!(device(index), HOLE + index as u64 * 4096);
            assert!((5..IRQ_PINS).contains(&device_irq(index)));
        }
        assert_eq!(device_irq(0), device_irq(19), "the twentieth device shares the first line");
    }
}
