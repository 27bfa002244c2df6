//! Which pages of this process's memory exist, from the page tables themselves (`Documentation/admin-guide/mm/pagemap.rst`).
//!
//! To read a page that nobody has touched is to touch it, and a guest of many gigabytes has used a few megabytes of them.
//! `mincore(2)` would not do: it calls a page that was swapped out absent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::layout::PAGE;

/// Bits of an entry: the page is in memory, in swap, one of a file.
pub(super) const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
pub(super) const OF_A_FILE: u64 = 1 << 61;
/// Bytes of an entry.
const ENTRY: u64 = 8;

/// The page tables of this process, opened while it may.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pagemap: Arc<File>,
}

impl Touched {
    pub(super) fn open() -> crate::error::Result<Self> {
        let pagemap = File::open("/proc/self/pagemap").map_err(crate::error::Error::host("open /proc/self/pagemap"))?;
        Ok(Self { pagemap: Arc::new(pagemap) })
    }

    /// Whether any page of a piece of this process's memory exists.
    pub(super) fn any(&self, address: u64, bytes: u64) -> io::Result<bool> {
        let (first, last) = (address / PAGE, (address + bytes).div_ceil(PAGE));
        let entries = entries(&self.pagemap, first, last - first)?;
        Ok(entries.into_iter().any(|entry| entry & (PRESENT | SWAPPED) != 0))
    }
}

/// So many entries of the page tables in `pagemap`, from that of page `first` on.
pub(super) fn entries(pagemap: &File, first: u64, count: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; (count * ENTRY) as usize];
    pagemap.read_exact_at(&mut bytes, first * ENTRY)?;
    let number = |entry: &[u8]| entry.iter().rfold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(bytes.chunks_exact(ENTRY as usize).map(number).collect())
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use crate::memory::Memory;

    #[test]
    fn only_what_was_touched_has_content() {
        let memory = Memory::empty(64 << 20).unwrap();
        memory.ram().write_obj(1_u8, GuestAddress(33 << 20)).unwrap();
        let has = |mebibyte: u64| memory.has_content(GuestAddress(mebibyte << 20), 1 << 20).unwrap();
        assert!(has(33));
        // A huge page may have come with it, but no more.
        assert!(!has(0) && !has(30) && !has(36) && !has(63));
    }
}
