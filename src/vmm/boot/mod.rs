//! From a kernel image to the first instruction: load the image, the initial file system and the command line, and write
//! down for the kernel what the machine is.
//!
//! An ELF kernel with a PVH note is entered by it, since that way does the least before the kernel is itself; one without,
//! or a bzImage (a distribution's kernel), by the 64-bit boot protocol.

mod command_line;
mod linux;
mod mp_table;
mod pvh;

use std::fs::File;
use std::os::unix::fs::FileExt;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub use command_line::CommandLine;
pub(crate) use mp_table::VCPUS_MAX;

use crate::error::{Error, Result};
use crate::kvm::{Start, write_descriptors};
use crate::layout;
use crate::memory::Memory;

/// What a machine is started with.
#[derive(Debug)]
pub struct Boot<'a> {
    /// An ELF `vmlinux` or a `bzImage`.
    pub kernel: &'a File,
    /// The initial file system: a cpio archive.
    pub initrd: Option<Initrd<'a>>,
    /// The command line.
    pub command_line: &'a CommandLine,
    /// Number of processors.
    pub vcpus: usize,
}

/// An initial file system.
#[derive(Clone, Copy, Debug)]
pub enum Initrd<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// A whole file.
    File(&'a File),
}

/// Where a piece lies in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    address: u64,
    bytes: u64,
}

/// A kernel in the guest's memory.
struct Loaded {
    start: Start,
    end: u64,
    header: Option<setup_header>,
}

/// Fills the guest's memory for a start; the answer is where the first processor begins.
pub fn load(memory: &Memory, boot: &Boot<'_>) -> Result<Start> {
    let ram = memory.ram();
    let kernel = load_kernel(memory, boot.kernel)?;
    let initrd = boot.initrd.map(|initrd| load_initrd(memory, initrd, kernel.end)).transpose()?;
    boot.command_line.write(ram)?;
    mp_table::write(ram, boot.vcpus)?;
    write_descriptors(ram)?;
    match kernel.start {
        Start::Pvh { .. } => pvh::write(ram, memory.bytes(), initrd)?,
        Start::Linux { .. } => linux::write(ram, memory.bytes(), initrd, kernel.header)?,
    }
    Ok(kernel.start)
}

fn load_kernel(memory: &Memory, image: &File) -> Result<Loaded> {
    let mut magic = [0; 4];
    image.read_exact_at(&mut magic, 0).map_err(Error::host("read the kernel image"))?;
    let mut reader = image.try_clone().map_err(Error::host("read the kernel image"))?;
    let high = Some(GuestAddress(layout::HIGH_RAM));
    if magic == *b"\x7fELF" {
        let loaded = Elf::load(memory.ram(), None, &mut reader, high).map_err(|error| refused(memory, &error))?;
        let start = match loaded.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(entry) => Start::Pvh { entry: entry.0 },
            _ => Start::Linux { entry: loaded.kernel_load.0 },
        };
        return Ok(Loaded { start, end: loaded.kernel_end, header: None });
    }
    let at = Some(GuestAddress(layout::KERNEL));
    let loaded = BzImage::load(memory.ram(), at, &mut reader, high).map_err(|error| refused(memory, &error))?;
    let header = loaded.setup_header.ok_or_else(|| Error::Kernel("a bzImage without a header".into()))?;
    let entry = linux::entry(loaded.kernel_load.0, &header)?;
    // A compressed kernel unpacks itself behind its own end; its header says how much room it wants.
    let end = loaded.kernel_end.max(loaded.kernel_load.0 + u64::from(header.init_size));
    Ok(Loaded { start: Start::Linux { entry }, end, header: Some(header) })
}

fn refused(memory: &Memory, error: &linux_loader::loader::Error) -> Error {
    let text = error.to_string();
    if text.contains("Unable to read") && memory.bytes() < 256 << 20 {
        return Error::Kernel(format!(
            "{text}: either the file is cut off or it does not fit into {} MiB of memory",
            memory.bytes() >> 20
        ));
    }
    Error::Kernel(format!("neither an ELF nor a bzImage that can be loaded: {text}"))
}

/// Puts the initial file system to the end of the lower RAM, far from where the kernel makes its first allocations.
fn load_initrd(memory: &Memory, initrd: Initrd<'_>, kernel_end: u64) -> Result<Placed> {
    let bytes = match initrd {
        Initrd::Bytes(bytes) => bytes.len() as u64,
        Initrd::File(file) => file.metadata().map_err(Error::host("look at the initial file system"))?.len(),
    };
    let too_little =
        || Error::TooLittleMemory { what: "the kernel with its initial file system", memory: memory.bytes() >> 20 };
    let top = memory.bytes().min(layout::HOLE);
    let address = top.checked_sub(bytes).ok_or_else(too_little)? / layout::PAGE * layout::PAGE;
    if address < kernel_end {
        return Err(too_little());
    }
    copy(memory.ram(), initrd, Placed { address, bytes })?;
    Ok(Placed { address, bytes })
}

fn copy(ram: &GuestMemoryMmap, initrd: Initrd<'_>, place: Placed) -> Result<()> {
    match initrd {
        Initrd::Bytes(bytes) => ram.write_slice(bytes, GuestAddress(place.address))?,
        Initrd::File(file) => {
            let mut file = file.try_clone().map_err(Error::host("read the initial file system"))?;
            std::io::Seek::rewind(&mut file).map_err(Error::host("read the initial file system"))?;
            ram.read_exact_volatile_from(GuestAddress(place.address), &mut file, place.bytes as usize)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Boot, CommandLine, Initrd, load};
    use crate::memory::Memory;

    fn start(kernel: &[u8], initrd: &[u8]) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(kernel).unwrap();
        let memory = Memory::empty(16 << 20).unwrap();
        let command_line = CommandLine::new("").unwrap();
        let initrd = Some(Initrd::Bytes(initrd));
        let boot = Boot { kernel: &file, initrd, command_line: &command_line, vcpus: 1 };
        load(&memory, &boot).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_no_kernel_is_told_as_such() {
        assert!(start(b"", b"").contains("read the kernel image"));
        let text = start(&[b'x'; 4096], b"");
        assert!(text.contains("neither an ELF nor a bzImage"), "{text}");
        let mut elf = b"\x7fELF".to_vec();
        elf.resize(4096, 0);
        assert!(start(&elf, b"").starts_with("kernel image: "));
    }
}
