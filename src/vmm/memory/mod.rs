//! The guest's memory: RAM, and files of the host mapped above it.
//!
//! RAM is anonymous and never touched before the guest or a device does, so a guest costs what it uses. A restored guest
//! has the saved file mapped privately instead: pages are read from the file when they are needed, and copied when they
//! are written.

mod region;
mod sys;
mod touched;
mod working_set;

use std::fs::File;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

pub use region::{Access, Extent, Region};
pub(crate) use working_set::Piece;
pub use working_set::WorkingSet;

use crate::error::{Error, Result};
use crate::kvm::{Slot, Vm};
use crate::layout;
use crate::memory::touched::Touched;
use crate::virtio::RegisterPage;

/// The least memory a machine can have, in bytes.
pub const SMALLEST: u64 = 16 << 20;
/// Memory is given in multiples of this many bytes.
pub const GRANULE: u64 = 2 << 20;

/// KVM's first slot for the registers of devices, by their index; the two before it are for RAM.
const REGISTER_SLOTS: u32 = 2;
/// KVM's first slot for mapped files.
const REGION_SLOTS: u32 = REGISTER_SLOTS + layout::DEVICES_MAX as u32;

/// The memory of one machine.
#[derive(Debug)]
pub struct Memory {
    bytes: u64,
    ram: GuestMemoryMmap,
    all: GuestMemoryMmap,
    next_slot: u32,
    next_region: u64,
    /// Which pages of RAM anybody has touched; of a restored machine every page has content.
    touched: Option<Touched>,
}

impl Memory {
    /// Memory without content.
    pub fn empty(bytes: u64) -> Result<Self> {
        let mut memory = Self::map(bytes, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE, |_| None)?;
        memory.touched = Some(Touched::open()?);
        Ok(memory)
    }

    /// The memory that was saved in `file` from `offset` on; what the guest writes stays out of the file.
    pub fn restored(bytes: u64, file: File, offset: u64) -> Result<Self> {
        let length = file.metadata().map_err(Error::host("look at the saved memory"))?.len();
        if length < offset + bytes {
            return Err(Error::State(format!("the file has {length} bytes, the memory ends at {}", offset + bytes)));
        }
        let file = Arc::new(file);
        Self::map(bytes, libc::MAP_PRIVATE | libc::MAP_NORESERVE, |before| {
            Some(FileOffset::from_arc(file.clone(), offset + before))
        })
    }

    fn map(bytes: u64, flags: i32, file: impl Fn(u64) -> Option<FileOffset>) -> Result<Self> {
        check_size(bytes)?;
        let mut regions = Vec::new();
        let mut before = 0;
        for (start, length) in layout::ram(bytes) {
            let mut builder = MmapRegionBuilder::new(length as usize)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(flags);
            if let Some(file) = file(before) {
                builder = builder.with_file_offset(file);
            }
            let mapping = builder.build().map_err(|error| refused(bytes, &error))?;
            let region = GuestRegionMmap::new(mapping, GuestAddress(start));
            regions.push(region.ok_or_else(|| Error::Config(format!("{bytes} bytes of memory are too many")))?);
            before += length;
        }
        let ram = GuestMemoryMmap::from_regions(regions).map_err(|error| refused(bytes, &error))?;
        Ok(Self {
            bytes,
            all: ram.clone(),
            ram,
            next_slot: REGION_SLOTS,
            next_region: layout::window(bytes),
            touched: None,
        })
    }

    /// How much RAM there is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The RAM alone.
    #[must_use]
    pub fn ram(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// What a device may reach: RAM and mapped files.
    #[must_use]
    pub fn all(&self) -> &GuestMemoryMmap {
        &self.all
    }

    /// Whether a piece of RAM may hold anything but zeroes. Costs no touch of it.
    pub fn has_content(&self, start: GuestAddress, bytes: usize) -> Result<bool> {
        let Some(touched) = &self.touched else { return Ok(true) };
        let address = self.ram.get_host_address(start)?;
        touched.any(address as u64, bytes as u64).map_err(Error::host("look which memory the guest has touched"))
    }

    /// Has the pages of a working set there: those that will be written as copies, the others as the file's.
    pub fn populate(&self, set: &WorkingSet) -> Result<()> {
        for piece in set.pieces(self.bytes) {
            let slice = self.ram.get_slice(piece.start, piece.bytes as usize)?;
            sys::populate(&slice, piece.written).map_err(Error::host("have the guest's memory there"))?;
        }
        Ok(())
    }

    /// Shows the RAM to the guest.
    pub fn attach_ram(&self, vm: &Vm) -> Result<()> {
        for (number, region) in (0..REGISTER_SLOTS).zip(self.ram.iter()) {
            let slot = Slot { number, guest: region.start_addr().0, bytes: region.len(), read_only: false };
            vm.map(&slot, region.as_ptr())?;
        }
        Ok(())
    }

    /// Maps parts of files, one behind the other, at the next free place of the window and shows them to the guest.
    pub fn map_region(&mut self, vm: &Vm, extents: &[Extent<'_>], access: Access) -> Result<Region> {
        let mapping = region::map(extents, access)?;
        let bytes = mapping.size() as u64;
        let address = self.next_region;
        let slot = Slot { number: self.next_slot, guest: address, bytes, read_only: access == Access::ReadOnly };
        vm.map(&slot, mapping.as_ptr())?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(address));
        let region = region.ok_or_else(|| Error::Config("the window for mapped files is full".into()))?;
        self.all = self.all.insert_region(Arc::new(region)).map_err(|error| Error::Config(error.to_string()))?;
        self.next_slot += 1;
        self.next_region = address + bytes;
        Ok(Region { address: GuestAddress(address), bytes })
    }
}

/// Shows the registers of a device to the guest, which can read them. The page must stay until [`detach_registers`], or as
/// long as the machine.
pub(crate) fn attach_registers(vm: &Vm, index: usize, page: &RegisterPage) -> Result<()> {
    vm.map(&registers(index), page.as_ptr())
}

/// Takes the registers of a device away from the guest.
pub(crate) fn detach_registers(vm: &Vm, index: usize) -> Result<()> {
    vm.unmap(&registers(index))
}

fn registers(index: usize) -> Slot {
    let number = REGISTER_SLOTS + index as u32;
    Slot { number, guest: layout::device(index), bytes: layout::DEVICE_SIZE, read_only: true }
}

fn check_size(bytes: u64) -> Result<()> {
    if bytes < SMALLEST || !bytes.is_multiple_of(GRANULE) {
        return Err(Error::Config(format!(
            "the memory of a machine is a multiple of {} MiB and at least {} MiB, not {bytes} bytes",
            GRANULE >> 20,
            SMALLEST >> 20
        )));
    }
    Ok(())
}

fn refused(bytes: u64, reason: &dyn std::fmt::Display) -> Error {
    Error::Config(format!("cannot map {} MiB of memory for the guest: {reason}", bytes >> 20))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::Memory;
    use crate::layout::{HOLE, HOLE_END};

    #[test]
    fn memory_of_an_odd_size_is_refused() {
        for bytes in [0, 4096, 15 << 20, (16 << 20) + 4096] {
            let error = Memory::empty(bytes).unwrap_err().to_string();
            assert!(error.contains(&format!("not {bytes} bytes")), "{error}");
        }
    }

    #[test]
    fn memory_is_mapped_around_the_hole_without_being_reserved() {
        let memory = Memory::empty(64 << 30).unwrap();
        assert_eq!(memory.ram().num_regions(), 2);
        memory.ram().write_obj(7_u32, GuestAddress(HOLE_END)).unwrap();
        assert!(memory.ram().write_obj(7_u32, GuestAddress(HOLE)).is_err());
    }

    #[test]
    fn restored_memory_shows_the_file_and_leaves_it_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.write_all(&[2; 4096]).unwrap();
        file.set_len(4096 + (16 << 20)).unwrap();
        let memory = Memory::restored(16 << 20, file.try_clone().unwrap(), 4096).unwrap();
        assert_eq!(memory.ram().read_obj::<u8>(GuestAddress(0)).unwrap(), 2);
        memory.ram().write_obj(3_u8, GuestAddress(0)).unwrap();
        let again = Memory::restored(16 << 20, file.try_clone().unwrap(), 4096).unwrap();
        assert_eq!(again.ram().read_obj::<u8>(GuestAddress(0)).unwrap(), 2);
        assert!(Memory::restored(18 << 20, file, 4096).unwrap_err().to_string().contains("saved machine"));
    }
}
