//! seccomp(2), which libc does not wrap.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::{c_ulong, c_ushort};
use nix::errno::Errno;

use super::{Flags, Instruction, Program};

/// `struct sock_fprog` of `linux/filter.h`.
#[repr(C)]
struct FilterProgram {
    length: c_ushort,
    filter: *const Instruction,
}

pub(super) fn set_mode_filter(program: &Program) -> Result<Option<OwnedFd>, Errno> {
    let instructions = program.instructions();
    let length = c_ushort::try_from(instructions.len()).map_err(|_| Errno::EINVAL)?;
    let filter = FilterProgram { length, filter: instructions.as_ptr() };
    let flags = c_ulong::from(program.flags().bits());
    // SAFETY: `filter` points to `length` instructions of the layout of `struct sock_filter`, alive and unchanged
    // for the call; the kernel copies them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, c_ulong::from(libc::SECCOMP_SET_MODE_FILTER), flags, &raw const filter)
    };
    let result = Errno::result(result)?;
    if !program.flags().contains(Flags::NEW_LISTENER) {
        return Ok(None);
    }
    let listener = RawFd::try_from(result).map_err(|_| Errno::EBADF)?;
    // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the kernel returns a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) }))
}
