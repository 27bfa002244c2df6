//! virtio-pmem: files as a region of the guest's memory, which its kernel shows as `/dev/pmemN` and can map into programs
//! without a copy (DAX; virtio specification 1.3, section 5.19).
//!
//! The region itself is the machine's: it maps the files, gives KVM a slot, read-only where the files are, and says where
//! the region lies. What is left for the device is to say so in its configuration space, and to make writes durable on
//! request. The driver has no way to know that a region is read-only (there is no feature for it): it must mount it
//! read-only, and a write to it all the same leaves the guest as an access to memory that nobody answers. The machine has
//! to expect that exit for the addresses of the region, and to drop the write or end with a reason.
//!
//! What Linux 6.12 wants before `/dev/pmemN` appears, from its sources:
//!
//! - `start` and `start + size` are multiples of 2 MiB (`memremap_compat_align` in `mm/memremap.c`, asked for by
//!   `nvdimm_namespace_common_probe`, because virtio-pmem sets `ND_REGION_PAGEMAP`); otherwise the namespace answers
//!   `EOPNOTSUPP` and the log says "misaligned, unable to map". So the end of the last file is followed by zeroes, which are
//!   part of the device's length. [`ALIGNMENT`] is that number. A start that is a multiple of 128 MiB (the size of a section
//!   of memory) lets the kernel describe whole sections with one large page, and is worth having, not needed.
//! - The range is in nobody's use: no RAM, nothing reserved in the memory map (`devm_request_mem_region`), below what the
//!   CPU says of physical address bits (`CPUID` 0x8000_0008; 40 bits under QEMU's software CPU), and, where the kernel
//!   shuffles its own mapping of memory (`RANDOMIZE_MEMORY`), below what it has left room for.
//! - The kernel has `CONFIG_LIBNVDIMM`, `BLK_DEV_PMEM`, `VIRTIO_PMEM`, `ZONE_DEVICE`, `MEMORY_HOTPLUG`,
//!   `SPARSEMEM_VMEMMAP`, `FS_DAX`, and `NVDIMM_PFN` or `BTT` for `ND_CLAIM`: without that, `nd_btt_probe` and its like in
//!   `drivers/nvdimm/nd-core.h` are stubs, and the probe of every namespace ends with `ENXIO`.
//! - No label, no ACPI table: a region without mappings is one namespace (`namespace0.0`, type `nd_namespace_io`) over all of
//!   it, and its disk is named after the region, in the order of probing. The kernel looks at bytes 4 KiB and 8 KiB for the
//!   signatures of BTT and PFN; what a file of ours has there must not look like them. An EROFS image has its superblock at
//!   1 KiB and was made by us.
//!
//! `VIRTIO_PMEM_F_SHMEM_REGION` is not offered: it moves the same two numbers into the registers of a shared memory region.
//!
//! The cost: 64 bytes of the guest's RAM for each page of the region, 16 MiB for each GiB (`struct page`), from the start.
//! And the region is fixed when the driver probes it: a driver that has seen an empty one does not learn of another after a
//! restore, as with a disk of virtio-blk; it has to find the device only then.

use std::fs::File;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
use vm_memory::GuestAddress;

use crate::virtio::chain::{Again, Chain, RING_FEATURES, Turn, serve};
use crate::virtio::config_space;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};

/// Start and size of a region are multiples of this, in bytes.
pub const ALIGNMENT: u64 = 2 << 20;

/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`, `include/uapi/linux/virtio_pmem.h`.
const REQUEST_FLUSH: u32 = 0;
const RESULT_OK: u32 = 0;
/// The driver makes `EIO` of every result above zero.
const RESULT_FAILED: u32 = 1;

const QUEUE_SIZES: [u16; 1] = [64];
const AGAIN: u64 = 0;

/// What a region of persistent memory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmemConfig {
    /// Name of the device's thread, at most 15 bytes.
    pub name: String,
    /// Where the machine has mapped it in the guest's memory, a multiple of [`ALIGNMENT`].
    pub start: u64,
    /// Its size in bytes, a multiple of [`ALIGNMENT`].
    pub size: u64,
}

/// Why a region cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum PmemError {
    /// Linux would not take it.
    #[error("the region of {name}, {size:#x} bytes at {start:#x}, does not consist of whole pieces of {ALIGNMENT:#x}")]
    Unaligned {
        /// The device.
        name: String,
        /// Where it was to begin.
        start: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// No eventfd.
    #[error(transparent)]
    Descriptor(#[from] DeviceError),
}

/// The device.
#[derive(Debug)]
pub struct Pmem {
    config: PmemConfig,
    files: Vec<File>,
    again: Again,
}

impl Pmem {
    /// A region that is mapped read-only: a flush has nothing to do.
    ///
    /// # Errors
    /// The region is not aligned as Linux wants it, or the kernel refuses an eventfd.
    pub fn read_only(config: PmemConfig) -> Result<Self, PmemError> {
        Self::writable(config, Vec::new())
    }

    /// A region that is mapped shared and writable from these files.
    ///
    /// # Errors
    /// As for [`Pmem::read_only`].
    pub fn writable(config: PmemConfig, files: Vec<File>) -> Result<Self, PmemError> {
        let PmemConfig { start, size, .. } = config;
        let whole = start.is_multiple_of(ALIGNMENT) && size.is_multiple_of(ALIGNMENT) && size > 0;
        if !whole || start.checked_add(size).is_none() {
            return Err(PmemError::Unaligned { name: config.name, start, size });
        }
        Ok(Self { config, files, again: Again::new()? })
    }

    /// Where the region lies.
    #[must_use]
    pub fn start(&self) -> GuestAddress {
        GuestAddress(self.config.start)
    }

    fn turn(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        // A flush for each request, even where several wait: one that came while another's flush ran may speak of later
        // writes. Linux sends them one by one anyway.
        serve(io, 0, &self.again, |chain| answer(chain, &self.files))
    }
}

fn answer(chain: &mut Chain<'_>, files: &[File]) -> Result<Turn, DeviceError> {
    let mut request = [0; 4];
    chain.reader.read_exact(&mut request)?;
    let result = if u32::from_le_bytes(request) == REQUEST_FLUSH { flush(files) } else { RESULT_FAILED };
    chain.writer.write_all(&result.to_le_bytes())?;
    Ok(Turn::Done)
}

/// Makes what the guest has written durable. `fdatasync` covers pages that were written through a shared mapping, by KVM as
/// well: the file system takes the mapping's write access away first, and learns from that which pages are dirty.
fn flush(files: &[File]) -> u32 {
    if files.iter().all(|file| file.sync_data().is_ok()) { RESULT_OK } else { RESULT_FAILED }
}

impl Device for Pmem {
    fn kind(&self) -> u32 {
        VIRTIO_ID_PMEM
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 16];
        space[..8].copy_from_slice(&self.config.start.to_le_bytes());
        space[8..].copy_from_slice(&self.config.size.to_le_bytes());
        config_space::read(&space, offset, data);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.again.watch(io, AGAIN)
    }

    fn queue_ready(&mut self, _queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        self.turn(io)
    }

    fn source_ready(&mut self, _token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        self.again.hear();
        self.turn(io)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        postcard::to_stdvec(&(self.config.start, self.config.size))
            .map_err(|error| DeviceError::State(error.to_string()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let (start, size): (u64, u64) =
            postcard::from_bytes(state).map_err(|error| DeviceError::State(error.to_string()))?;
        if (start, size) == (self.config.start, self.config.size) {
            return Ok(());
        }
        Err(DeviceError::State(format!(
            "the region was {size:#x} bytes at {start:#x} and is {:#x} bytes at {:#x}: the driver would not learn of it",
            self.config.size, self.config.start
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::{ALIGNMENT, Pmem, PmemConfig};
    use crate::virtio::driver::{Buffer, Driver, Hostile, attack};
    use crate::virtio::{Device, DeviceError};

    fn config() -> PmemConfig {
        PmemConfig { name: "pmem".into(), start: 4 << 30, size: 2 * ALIGNMENT }
    }

    fn ask(device: &mut Pmem, kind: u32) -> u32 {
        let mut driver = Driver::new(device, 0);
        let (answer, length) = driver.ask(device, 0, &[Buffer::Bytes(&kind.to_le_bytes()), Buffer::Room(4)]).unwrap();
        assert_eq!(length, 4);
        u32::from_le_bytes(answer.try_into().unwrap())
    }

    #[test]
    fn the_configuration_says_where_the_region_is() {
        let device = Pmem::read_only(config()).unwrap();
        let mut space = [0; 20];
        device.read_config(0, &mut space);
        assert_eq!(space[..8], (4_u64 << 30).to_le_bytes());
        assert_eq!(space[8..16], (4_u64 << 20).to_le_bytes());
        assert_eq!(space[16..], [0; 4]);
    }

    #[test]
    fn a_region_that_linux_would_not_take_is_refused() {
        for (start, size) in
            [(1 << 20, ALIGNMENT), (ALIGNMENT, 4096), (ALIGNMENT, 0), (u64::MAX - ALIGNMENT + 1, ALIGNMENT)]
        {
            let error = Pmem::read_only(PmemConfig { start, size, ..config() }).unwrap_err();
            assert!(error.to_string().contains("does not consist of whole pieces"), "{error}");
        }
    }

    #[test]
    fn a_flush_flushes_the_files_and_says_if_it_cannot() {
        let mut read_only = Pmem::read_only(config()).unwrap();
        assert_eq!((ask(&mut read_only, 0), ask(&mut read_only, 1), ask(&mut read_only, u32::MAX)), (0, 1, 1));
        let files = vec![tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let mut writable = Pmem::writable(config(), files).unwrap();
        assert_eq!(ask(&mut writable, 0), 0);
        // A character device cannot be synced.
        let files = vec![tempfile::tempfile().unwrap(), File::open("/dev/null").unwrap()];
        let mut broken = Pmem::writable(config(), files).unwrap();
        assert_eq!(ask(&mut broken, 0), 1);
    }

    #[test]
    fn a_request_too_short_stops_the_device() {
        for buffers in [&[Buffer::Bytes(&[0; 3]), Buffer::Room(4)][..], &[Buffer::Bytes(&[0; 4]), Buffer::Room(3)]] {
            let mut device = Pmem::read_only(config()).unwrap();
            let mut driver = Driver::new(&mut device, 0);
            driver.send(0, buffers);
            assert!(matches!(driver.kick(&mut device, 0), Err(DeviceError::Driver(_))));
            device.reset();
            assert_eq!(ask(&mut device, 0), 0);
        }
    }

    #[test]
    fn a_restored_region_lies_where_it_lay() {
        let saved = Pmem::read_only(config()).unwrap().save().unwrap();
        Pmem::read_only(config()).unwrap().restore(&saved).unwrap();
        let mut moved = Pmem::read_only(PmemConfig { start: 5 << 30, ..config() }).unwrap();
        let error = moved.restore(&saved).unwrap_err().to_string();
        assert!(error.contains("0x400000 bytes at 0x100000000"), "{error}");
        assert!(moved.restore(b"").is_err());
    }

    #[test]
    fn a_hostile_driver_does_no_harm() {
        let file = tempfile::tempfile().unwrap();
        attack(&Hostile { requests: &[(0, &[0; 4])], ..Hostile::default() }, || {
            Box::new(Pmem::writable(config(), vec![file.try_clone().unwrap()]).unwrap())
        });
    }
}
