//! The calls that the tests need and no crate has.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};

pub(crate) fn move_mount(mount: RawFd, target: &CStr) {
    // SAFETY: both strings are terminated and outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_move_mount, mount, c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), 4) };
    assert_eq!(result, 0, "move_mount: {}", io::Error::last_os_error());
}

pub(crate) fn list_xattrs(path: &CStr) -> Vec<Vec<u8>> {
    let mut buffer = vec![0u8; 65536];
    // SAFETY: the string is terminated, the kernel writes at most the buffer's length.
    let length = unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    assert!(length >= 0, "listxattr {path:?}: {}", io::Error::last_os_error());
    buffer[..length as usize].split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

pub(crate) fn get_xattr(path: &CStr, name: &CStr) -> Option<Vec<u8>> {
    let mut buffer = vec![0u8; 65536];
    // SAFETY: the strings are terminated, the kernel writes at most the buffer's length.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(length).ok().map(|length| buffer[..length].to_vec())
}

pub(crate) fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) {
    // SAFETY: the strings are terminated, the kernel reads the value's length.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(result, 0, "setxattr {path:?} {name:?}: {}", io::Error::last_os_error());
}

/// A user namespace whose uid 0 is the host's `first`, and the process that keeps it.
pub(crate) fn user_namespace(first: u32) -> (File, Child) {
    let mut child =
        Command::new("unshare").args(["-U", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let proc = format!("/proc/{}", child.id());
    // `cat` echoes only after the namespace exists.
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    io::Write::write_all(&mut input, b"x").unwrap();
    io::Read::read_exact(&mut output, &mut [0]).unwrap();
    child.stdin = Some(input);
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("{proc}/{map}"), format!("0 {first} 65536")).unwrap();
    }
    (File::open(format!("{proc}/ns/user")).unwrap(), child)
}
