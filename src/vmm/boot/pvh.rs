//! What a kernel that is entered by its PVH note reads (xen/include/public/arch-x86/hvm/start_info.h).

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::Placed;
use crate::error::{Error, Result};
use crate::layout;

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

/// Writes the start information, the list of modules and the map of the memory.
pub(super) fn write(ram: &GuestMemoryMmap, bytes: u64, initrd: Option<Placed>) -> Result<()> {
    let map: Vec<hvm_memmap_table_entry> = layout::usable(bytes)
        .into_iter()
        .map(|(addr, size)| hvm_memmap_table_entry { addr, size, type_: RAM, reserved: 0 })
        .collect();
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        cmdline_paddr: layout::COMMAND_LINE,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { layout::PVH_MODULES } else { 0 },
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(layout::PVH_START_INFO));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP));
    let modules =
        initrd.map(|initrd| hvm_modlist_entry { paddr: initrd.address, size: initrd.bytes, ..Default::default() });
    if let Some(module) = modules {
        params.set_modules(&[module], GuestAddress(layout::PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, ram)
        .map_err(|error| Error::Kernel(format!("start information: {error}")))
}
