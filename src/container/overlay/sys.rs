//! The mount API for file systems that are configured option by option, and extended attributes: what neither `std` nor `nix` has.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_long, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// linux/mount.h
const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_SET_FD: c_uint = 5;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const OPEN_TREE_CLONE: c_uint = 1;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as RawFd;
    // SAFETY: the kernel has just returned this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file system that is being configured (`fsopen(2)`).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Begins one of a type of `/proc/filesystems`.
    pub fn open(fs_type: &CStr) -> io::Result<Self> {
        // SAFETY: the string is terminated and outlives the call.
        new_fd(unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    /// An option without a value.
    pub fn set_flag(&self, key: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// The kernel takes values of up to 255 bytes.
    pub fn set_string(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// An option whose value is an open file.
    pub fn set_fd(&self, key: &CStr, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.config(FSCONFIG_SET_FD, Some(key), None, fd.as_raw_fd())
    }

    /// Makes it of the options.
    pub fn create(&self) -> io::Result<()> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    /// A detached mount of what [`Self::create`] made; `attributes` are `MOUNT_ATTR_*`.
    pub fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        // SAFETY: takes numbers only.
        new_fd(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as c_uint) })
    }

    /// What the kernel has to say about the last failure, one message a line.
    pub fn messages(&self) -> Vec<String> {
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
pub fn move_mount(mount: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
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
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as c_uint | libc::AT_EMPTY_PATH as c_uint;
    // SAFETY: the string is terminated and outlives the call.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Gives a detached mount the id mapping of a user namespace.
pub fn set_idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
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

/// `struct __user_cap_header_struct`; version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

/// Makes this thread create files as this user and group, with the capabilities that it has now: changing the user alone would
/// take those over files away (`capabilities(7)`).
pub fn act_as(uid: u32, gid: u32) -> io::Result<()> {
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
pub fn list_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
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
pub fn get_xattr(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let path = fd_path(file);
    grow(|buffer| {
        // SAFETY: both strings are terminated, and the kernel writes at most the buffer's length.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Sets an extended attribute of an open file.
pub fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
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

/// The path by which any call can reach an open file, whatever its name has become. Works for `O_PATH` descriptors and, since the kernel
/// jumps to the inode, for symbolic links themselves.
pub fn fd_path(fd: impl AsFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    CString::new(path).unwrap_or_default()
}
