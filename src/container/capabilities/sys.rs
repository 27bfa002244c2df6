//! The system calls of capabilities(7). libc has no wrapper for `capset` and nix none for these prctls.
#![allow(unsafe_code)]

use libc::{c_int, c_ulong};
use nix::errno::Errno;

use super::CapSets;

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: 64-bit sets in two words.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`; two of them, low word first.
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn prctl(option: c_int, arguments: [c_ulong; 2]) -> Result<c_int, Errno> {
    // SAFETY: every option that this file passes takes integers only, so no memory is read or written.
    let result = unsafe { libc::prctl(option, arguments[0], arguments[1], 0 as c_ulong, 0 as c_ulong) };
    Errno::result(result)
}

pub(super) fn bounding_has(number: u8) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, [number.into(), 0]).map(|result| result == 1)
}

pub(super) fn bounding_drop(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, [number.into(), 0]).map(drop)
}

pub(super) fn set_keep_caps(keep: c_ulong) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, [keep, 0]).map(drop)
}

pub(super) fn ambient_clear() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, [libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0]).map(drop)
}

pub(super) fn ambient_raise(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, [libc::PR_CAP_AMBIENT_RAISE as c_ulong, number.into()]).map(drop)
}

pub(super) fn capset(sets: &CapSets) -> Result<(), Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let word = |shift: u32| Data {
        effective: (sets.effective.bits() >> shift) as u32,
        permitted: (sets.permitted.bits() >> shift) as u32,
        inheritable: (sets.inheritable.bits() >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: both pointers are to live values of the layout of linux/capability.h, and version 3 reads exactly
    // two data words. The kernel may write the header's version, which it does only for a version it does not know.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// setresuid(2) for the calling thread alone: the wrapper of libc changes all threads.
#[cfg(test)]
pub(super) fn set_user_of_thread(uid: u32) -> Result<(), Errno> {
    // SAFETY: the call takes integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}
