//! Address space that is reserved first and filled with files then. The only `unsafe` of the guest's memory.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{MmapRegion, VolatileSlice};

use crate::memory::region::{Access, Extent};

/// Reserved address space: anonymous pages until files are placed over them.
#[derive(Debug)]
pub(super) struct Space {
    start: *mut u8,
    bytes: usize,
}

impl Space {
    /// Reserves so many bytes.
    pub(super) fn reserve(bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { start: start.cast(), bytes })
        }
    }

    /// Places an extent `at` bytes into the space. The caller has checked that it lies within its file.
    pub(super) fn place(&self, at: u64, extent: &Extent<'_>, access: Access) -> io::Result<()> {
        let inside = at.checked_add(extent.length).is_some_and(|end| end <= self.bytes as u64);
        if !inside {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let flags = match access {
            Access::ReadOnly => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            Access::ReadWrite => libc::MAP_SHARED,
        };
        // SAFETY: `at` lies in the space, so the address is in one allocation.
        let address = unsafe { self.start.add(at as usize) };
        // SAFETY: the replaced pages lie within this space, which only this value knows.
        let mapped = unsafe {
            libc::mmap(
                address.cast(),
                extent.length as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_FIXED,
                extent.file.as_raw_fd(),
                extent.offset as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives the space away for the life of the process: copies of the guest's memory map have the address, and nobody
    /// counts them.
    pub(super) fn into_region(self) -> Result<MmapRegion, MmapRegionError> {
        let space = std::mem::ManuallyDrop::new(self);
        let builder = MmapRegionBuilder::new(space.bytes).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the space is mapped from `start` over `bytes` and, being forgotten here, never unmapped.
        unsafe { builder.with_raw_mmap_pointer(space.start) }.build()
    }
}

/// Makes the pages of a piece of the guest's memory, to be written or only read (`MADV_POPULATE_*`). On a kernel before
/// Linux 5.14 they come when they are touched.
pub(super) fn populate(slice: &VolatileSlice<'_>, written: bool) -> io::Result<()> {
    let advice = if written { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    let guard = slice.ptr_guard_mut();
    // SAFETY: the slice is mapped for as long as it lives, and the advice changes no content.
    if unsafe { libc::madvise(guard.as_ptr().cast(), guard.len(), advice) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        unknown if unknown.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        error => Err(error),
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // SAFETY: the space is ours alone, see `place` and `into_region`.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}
