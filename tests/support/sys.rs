//! A file mapped shared, for the tests of what others see of it; and the end of a test program.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};

/// Bytes of a mapping: one page.
pub const PAGE: usize = 4096;

/// The first page of a file, mapped shared for reading and writing. It belongs to one thread.
pub struct Page(NonNull<c_void>);

impl Page {
    /// Maps it. The file must have a whole page, for touching what is behind its end is a `SIGBUS`.
    pub fn map(file: &File) -> nix::Result<Self> {
        let length = NonZeroUsize::new(PAGE).expect("a page has bytes");
        // SAFETY: no address is asked for, so no other memory is replaced.
        unsafe { mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, file, 0) }
            .map(Self)
    }

    /// A byte, as whoever has changed it last left it.
    pub fn get(&self, at: usize) -> u8 {
        assert!(at < PAGE);
        // SAFETY: inside the mapping, which lives as long as `self`; volatile, as other processes write to it.
        unsafe { self.0.cast::<u8>().add(at).read_volatile() }
    }

    /// Changes a byte.
    pub fn set(&mut self, at: usize, byte: u8) {
        assert!(at < PAGE);
        // SAFETY: as in `get`, and the mapping may be written to.
        unsafe { self.0.cast::<u8>().add(at).write_volatile(byte) }
    }

    /// Waits until what was changed is in the file.
    pub fn sync(&self) -> nix::Result<()> {
        // SAFETY: the whole mapping and nothing else.
        unsafe { msync(self.0, PAGE, MsFlags::MS_SYNC) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody can reach any more.
        unsafe { munmap(self.0, PAGE) }.expect("a mapping can be removed");
    }
}

/// Has something done when this process ends by itself (atexit(3)).
pub fn at_exit(act: extern "C" fn()) {
    // SAFETY: the function takes nothing and lives as long as the program.
    let registered = unsafe { libc::atexit(act) };
    assert_eq!(registered, 0, "the C library takes one more function");
}
