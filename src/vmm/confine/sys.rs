//! System calls of the confinement that `nix` has not.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_ulong, sock_filter, sock_fprog};

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
/// `MOUNT_ATTR_RDONLY | NOSUID | NODEV | NOEXEC`.
const LOCKED: u32 = 0xf;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A new, empty, read-only tmpfs that is mounted nowhere (fsopen(2), fsconfig(2), fsmount(2)).
pub(super) fn empty_file_system() -> io::Result<OwnedFd> {
    // SAFETY: the name is a terminated string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    set(&context, c"mode", c"0555")?;
    set(&context, c"nr_inodes", c"1")?;
    let fd = context.as_raw_fd();
    let none = ptr::null::<u8>();
    // SAFETY: this command takes no strings.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0) })?;
    // SAFETY: no memory is involved.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, LOCKED) })
}

fn set(context: &OwnedFd, key: &CStr, value: &CStr) -> io::Result<()> {
    let fd = context.as_raw_fd();
    // SAFETY: both are terminated strings that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0) })?;
    Ok(())
}

/// Puts a mount over the root of this mount namespace (move_mount(2)).
pub(super) fn mount_over_root(mount: BorrowedFd<'_>) -> io::Result<()> {
    let (from, to) = (c"".as_ptr(), c"/".as_ptr());
    // SAFETY: both are terminated strings that outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), from, libc::AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH)
    })?;
    Ok(())
}

/// Sets effective and permitted capabilities of this thread; none are inheritable (capset(2)).
pub(super) fn set_capabilities(set: u64) -> io::Result<()> {
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    // SAFETY: header and data have the sizes that version 3 has, and the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

/// Effective capabilities of this thread (capget(2)).
pub(super) fn capabilities() -> io::Result<u64> {
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let mut data = [0_u32; 6];
    // SAFETY: as above; the kernel writes the six words.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[0]) | u64::from(data[3]) << 32)
}

/// A prctl(2) with one argument.
pub(super) fn prctl(option: c_int, argument: c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers.
    check(c_long::from(unsafe { libc::prctl(option, argument, 0, 0, 0) }))?;
    Ok(())
}

/// Installs a filter for the calling thread, for good. `no_new_privs` must be set.
pub(super) fn install_filter(program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid for the call, and the kernel copies it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })?;
    Ok(())
}
