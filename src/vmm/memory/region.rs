//! Files of the host as memory of the guest.
//!
//! A device may be told by the guest to read from or write to such a region, as to any memory. A region that is
//! read-only for the guest is therefore mapped privately and writable here: a device that the guest makes write into it
//! writes a copy that belongs to this machine alone, and neither faults nor reaches the file.

use std::fs::File;

use vm_memory::{GuestAddress, MmapRegion};

use crate::error::{Error, Result};
use crate::layout::{PAGE, REGION_ALIGNMENT};
use crate::memory::sys;

/// Part of a file.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// The file. It need not stay open.
    pub file: &'a File,
    /// Where the part begins, in bytes: a multiple of the page size.
    pub offset: u64,
    /// Its length in bytes. The next extent begins at the next page.
    pub length: u64,
}

/// What the guest may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read. A write of a vCPU faults (`KVM_MEM_READONLY`); the file is never written.
    ReadOnly,
    /// Read and write the files themselves.
    ReadWrite,
}

/// Where a region lies in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its guest-physical address, a multiple of 2 MiB.
    pub address: GuestAddress,
    /// Its length in bytes, a multiple of 2 MiB; what the extents do not fill is zero.
    pub bytes: u64,
}

/// Maps extents one behind the other, each from a page on, and fills up with zeroes.
pub(super) fn map(extents: &[Extent<'_>], access: Access) -> Result<MmapRegion> {
    let mut length = 0;
    for extent in extents {
        check(extent)?;
        length += extent.length.next_multiple_of(PAGE);
    }
    if length == 0 {
        return Err(Error::Config("a mapped region needs at least one byte of a file".into()));
    }
    let space = sys::Space::reserve(length.next_multiple_of(REGION_ALIGNMENT))
        .map_err(Error::host("reserve address space for a mapped file"))?;
    let mut at = 0;
    for extent in extents {
        space.place(at, extent, access).map_err(Error::host("map a file into the guest"))?;
        at += extent.length.next_multiple_of(PAGE);
    }
    space.into_region().map_err(|error| Error::Config(format!("map a file into the guest: {error}")))
}

/// An access behind the end of a mapped file would kill the process (SIGBUS), so the extent must lie within it.
fn check(extent: &Extent<'_>) -> Result<()> {
    let size = extent.file.metadata().map_err(Error::host("look at a file to map"))?.len();
    let end = extent.offset.checked_add(extent.length);
    if !extent.offset.is_multiple_of(PAGE) || end.is_none_or(|end| end > size) {
        return Err(Error::Config(format!(
            "an extent at {} of {} bytes does not lie on a page of a file of {size} bytes",
            extent.offset, extent.length
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, VolatileMemory};

    use super::{Access, Extent, map};

    fn file(pages: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        for page in pages {
            file.write_all(&[*page; 4096]).unwrap();
        }
        file
    }

    #[test]
    fn extents_lie_behind_each_other_and_zeroes_behind_them() {
        let (one, two) = (file(&[1, 2, 3]), file(&[4, 5]));
        let extents =
            [Extent { file: &one, offset: 4096, length: 5000 }, Extent { file: &two, offset: 0, length: 4096 }];
        let region = map(&extents, Access::ReadOnly).unwrap();
        assert_eq!(region.size(), 2 << 20);
        let slice = region.as_volatile_slice();
        let pages: Vec<u8> = (0..4).map(|page| slice.read_obj::<u8>(page * 4096).unwrap()).collect();
        assert_eq!(pages, [2, 3, 4, 0]);
        assert_eq!(slice.read_obj::<u8>((2 << 20) - 1).unwrap(), 0);
    }

    #[test]
    fn only_a_writable_region_reaches_the_file() {
        let file = file(&[1]);
        let extent = [Extent { file: &file, offset: 0, length: 4096 }];
        for (access, expected) in [(Access::ReadOnly, 1), (Access::ReadWrite, 9)] {
            let region = map(&extent, access).unwrap();
            region.as_volatile_slice().write_obj(9_u8, 0).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 0).unwrap();
            assert_eq!(byte[0], expected, "{access:?}");
        }
    }

    #[test]
    fn extents_outside_of_their_file_are_refused() {
        let file = file(&[1]);
        for (offset, length) in [(0, 4097), (1, 100), (4096, 1), (u64::MAX - 4095, 8192), (0, 0)] {
            assert!(map(&[Extent { file: &file, offset, length }], Access::ReadOnly).is_err(), "{offset} {length}");
        }
        assert!(map(&[], Access::ReadOnly).is_err());
    }
}
