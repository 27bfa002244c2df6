//! Giving memory back to the host.
#![allow(unsafe_code)]

use std::io;

use vm_memory::VolatileSlice;

/// How a piece of memory is given back, which depends on what it is a mapping of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Private memory: the pages are dropped, and what is behind the mapping shows again: zeroes, or a file's bytes.
    DontNeed,
    /// Shared memory: a hole is made in what is behind the mapping.
    Remove,
}

/// Gives back the whole pages of a piece of the guest's memory (`madvise(2)`); says how many bytes that are.
pub(super) fn release(piece: &VolatileSlice<'_>, advice: Advice, page: usize) -> io::Result<usize> {
    let start = piece.ptr_guard_mut().as_ptr();
    let skipped = start.align_offset(page);
    let Some(length) = piece.len().checked_sub(skipped).map(|length| length / page * page).filter(|length| *length > 0)
    else {
        return Ok(0);
    };
    let advice = match advice {
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Remove => libc::MADV_REMOVE,
    };
    // SAFETY: the range lies within the piece, which is mapped memory of the guest. Nothing of ours lies in it, no reference
    // to it exists, and whoever reads it meanwhile gets other bytes, as if the guest had written them.
    let result = unsafe { libc::madvise(start.wrapping_add(skipped).cast(), length, advice) };
    if result == 0 { Ok(length) } else { Err(io::Error::last_os_error()) }
}
