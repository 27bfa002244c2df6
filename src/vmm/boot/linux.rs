//! What a kernel that is entered by the 64-bit boot protocol reads (Documentation/arch/x86/boot.rst, zero-page.rst).

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::Placed;
use crate::error::{Error, Result};
use crate::layout;

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// "Undefined" boot loader: ours has no number.
const LOADER: u8 = 0xff;
const RAM: u32 = 1;
/// `XLF_KERNEL_64`: the image has a 64-bit entry.
const KERNEL_64: u16 = 1;
/// Where that entry lies in the image.
const ENTRY_64: u64 = 0x200;

/// The 64-bit entry of a bzImage.
pub(super) fn entry(load: u64, header: &setup_header) -> Result<u64> {
    if header.version < 0x20c || header.xloadflags & KERNEL_64 == 0 {
        return Err(Error::Kernel("a bzImage without a 64-bit entry".into()));
    }
    Ok(load + ENTRY_64)
}

/// Writes the zero page.
pub(super) fn write(
    ram: &GuestMemoryMmap,
    bytes: u64,
    initrd: Option<Placed>,
    header: Option<setup_header>,
) -> Result<()> {
    let mut params = boot_params { hdr: header.unwrap_or_default(), ..Default::default() };
    if header.is_none() {
        params.hdr.boot_flag = BOOT_FLAG;
        params.hdr.header = HEADER_MAGIC;
        params.hdr.kernel_alignment = 0x100_0000;
    }
    params.hdr.type_of_loader = LOADER;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = layout::COMMAND_LINE_MAX as u32;
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = initrd.address as u32;
        params.hdr.ramdisk_size = initrd.bytes as u32;
    }
    let usable = layout::usable(bytes);
    for (place, (addr, size)) in params.e820_table.iter_mut().zip(&usable) {
        *place = boot_e820_entry { addr: *addr, size: *size, r#type: RAM };
    }
    params.e820_entries = usable.len() as u8;
    let params = BootParams::new(&params, GuestAddress(layout::ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, ram)
        .map_err(|error| Error::Kernel(format!("boot parameters: {error}")))
}
