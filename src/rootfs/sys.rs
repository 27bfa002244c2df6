//! The system calls that neither `std` nor `nix` has: the new mount API, `openat2`, loop devices, extended attributes.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_long, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub(crate) use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
/// `RESOLVE_*` of `openat2(2)`.
pub(crate) use libc::{RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};

// linux/mount.h
const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_SET_FD: c_uint = 5;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const OPEN_TREE_CLONE: c_uint = 1;
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
const FS_APPEND_FL: c_int = 0x20;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as RawFd;
    // SAFETY: the kernel has just returned this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file system that is being configured (`fsopen(2)`).
pub(crate) struct FsContext(OwnedFd);

impl FsContext {
    pub(crate) fn open(fs_type: &CStr) -> io::Result<Self> {
        // SAFETY: the string is terminated and outlives the call.
        new_fd(unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    pub(crate) fn set_flag(&self, key: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// The kernel takes values of up to 255 bytes.
    pub(crate) fn set_string(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    pub(crate) fn set_fd(&self, key: &CStr, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.config(FSCONFIG_SET_FD, Some(key), None, fd.as_raw_fd())
    }

    pub(crate) fn create(&self) -> io::Result<()> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    pub(crate) fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        // SAFETY: takes numbers only.
        new_fd(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as c_uint) })
    }

    /// What the kernel has to say about the last failure, one message a line.
    pub(crate) fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut buffer = [0u8; 1024];
        while let Ok(length @ 1..) = nix::unistd::read(&self.0, &mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
        }
        messages
    }

    fn config(&self, command: c_uint, key: Option<&CStr>, value: Option<&CStr>, aux: c_int) -> io::Result<()> {
        let key = key.map_or(std::ptr::null(), CStr::as_ptr);
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: the strings are terminated or null, and outlive the call.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, aux) })?;
        Ok(())
    }
}

/// Attaches a detached mount.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    let mount = mount.as_raw_fd();
    // SAFETY: both strings are terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount,
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// A detached copy of the mount at `path` below `dir`; of `dir` itself where the path is empty.
pub(crate) fn clone_tree(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as c_uint | libc::AT_EMPTY_PATH as c_uint;
    // SAFETY: the string is terminated and outlives the call.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Gives a detached mount the id mapping of a user namespace.
pub(crate) fn set_idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    let size = size_of::<libc::mount_attr>();
    let mount = mount.as_raw_fd();
    // SAFETY: the string is terminated, the structure has the size that is told, both outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), libc::AT_EMPTY_PATH, &raw const attributes, size)
    })?;
    Ok(())
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
    let mut flags: c_int = 0;
    // SAFETY: the kernel writes one int.
    check(c_long::from(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS as _, &raw mut flags) }))?;
    let cleared = flags & !(FS_IMMUTABLE_FL | FS_APPEND_FL);
    if cleared == flags {
        return Ok(false);
    }
    // SAFETY: the kernel reads one int.
    check(c_long::from(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS as _, &raw const cleared) }))?;
    Ok(true)
}

/// `struct __user_cap_header_struct`; version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

/// Makes this thread create files as this user and group, with the capabilities that it has now: changing the user alone would
/// take those over files away (`capabilities(7)`).
pub(crate) fn act_as(uid: u32, gid: u32) -> io::Result<()> {
    let mut header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut sets = [0u32; 6];
    // SAFETY: version 3 reads the header and writes two times three words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    // SAFETY: take numbers only, and concern this thread only. They return the former id and no error.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
    // SAFETY: version 3 reads the header and two times three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })?;
    Ok(())
}

/// Names of an open file's extended attributes. Empty where there can be none.
pub(crate) fn list_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let path = fd_path(file);
    let names = grow(|buffer| {
        // SAFETY: the string is terminated, and the kernel writes at most the buffer's length.
        unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    let names = match names {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    Ok(names.split(|&b| b == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok()).collect())
}

/// The value of an open file's extended attribute.
pub(crate) fn get_xattr(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let path = fd_path(file);
    grow(|buffer| {
        // SAFETY: both strings are terminated, and the kernel writes at most the buffer's length.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Sets an extended attribute of an open file.
pub(crate) fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = fd_path(file);
    // SAFETY: the strings are terminated, and the kernel reads `value.len()` bytes.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(c_long::from(result))?;
    Ok(())
}

fn grow(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match check(call(&mut buffer) as c_long) {
            Ok(length) => {
                buffer.truncate(length as usize);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for both lists and values.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && buffer.len() < 1 << 16 => {
                buffer.resize(1 << 16, 0)
            }
            Err(error) => return Err(error),
        }
    }
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

/// The path by which any call can reach an open file, whatever its name has become. Works for `O_PATH` descriptors and, since the kernel
/// jumps to the inode, for symbolic links themselves.
pub(crate) fn fd_path(fd: impl AsFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    CString::new(path).unwrap_or_default()
}
