//! The system calls that neither `std` nor `nix` has: `openat2`, loop devices, inode flags. The mount API and extended
//! attributes are those of `container`, which stacks the layers.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub(crate) use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
/// `RESOLVE_*` of `openat2(2)`.
pub(crate) use libc::{RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};
pub(crate) use sbx_container::overlay::sys::{FsContext, fd_path, move_mount};

// linux/stat.h
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

// linux/loop.h
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

// linux/fs.h
const FS_IOC_GETFLAGS: c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: c_ulong = 0x4008_6602;
const FS_IMMUTABLE_FL: c_int = 0x10;
/// "Top of directory hierarchies".
pub(crate) const FS_TOPDIR_FL: c_int = 0x2_0000;
const FS_APPEND_FL: c_int = 0x20;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as RawFd;
    // SAFETY: the kernel has just returned this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `openat2(2)`; retries where the kernel could not rule out that the path was being changed.
pub(crate) fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    const RETRIES: usize = 128;
    // SAFETY: `open_how` is plain numbers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    let mut tries = 0;
    loop {
        let size = size_of::<libc::open_how>();
        // SAFETY: the string is terminated, the structure has the size that is told, both outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size) };
        match new_fd(result) {
            Err(error) if tries < RETRIES && matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                tries += 1
            }
            result => return result,
        }
    }
}

/// Is a mount attached to this very path? (Linux 5.8.)
pub(crate) fn is_mount_root(path: &CStr) -> io::Result<bool> {
    // SAFETY: `statx` is plain numbers, for which zero is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the string is terminated and `stat` is ours to be written.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, &raw mut stat) };
    match check(c_long::from(result)) {
        Ok(_) => Ok(stat.stx_attributes & STATX_ATTR_MOUNT_ROOT != 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// The number of a loop device that nobody used a moment ago.
pub(crate) fn free_loop(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    let number = check(c_long::from(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }))?;
    Ok(number as u32)
}

/// Binds the loop device to the file, read-only, until its last user closes it.
pub(crate) fn configure_loop(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `LoopConfig` is plain numbers, for which zero is valid.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    // SAFETY: the structure is laid out as the kernel's and outlives the call.
    check(c_long::from(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }))?;
    Ok(())
}

/// Takes "immutable" and "append only" from a file; says whether it had them.
pub(crate) fn clear_immutable(file: BorrowedFd<'_>) -> io::Result<bool> {
    change_flags(file, |flags| flags & !(FS_IMMUTABLE_FL | FS_APPEND_FL))
}

/// Gives a file attributes (`FS_IOC_SETFLAGS`); says whether that changed anything.
pub(crate) fn add_flags(file: BorrowedFd<'_>, added: c_int) -> io::Result<bool> {
    change_flags(file, |flags| flags | added)
}

fn change_flags(file: BorrowedFd<'_>, change: impl FnOnce(c_int) -> c_int) -> io::Result<bool> {
    let mut flags: c_int = 0;
    // SAFETY: the kernel writes one int.
    check(c_long::from(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS as _, &raw mut flags) }))?;
    let changed = change(flags);
    if changed == flags {
        return Ok(false);
    }
    // SAFETY: the kernel reads one int.
    check(c_long::from(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS as _, &raw const changed) }))?;
    Ok(true)
}

/// Fills the buffer with random bytes (`getrandom(2)`).
pub(crate) fn random(buffer: &mut [u8; 16]) -> io::Result<()> {
    loop {
        // SAFETY: the kernel writes at most the buffer's length.
        let result = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match check(result as c_long) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Up to 256 bytes come whole (random(4)).
            result => return result.map(|_| ()),
        }
    }
}
