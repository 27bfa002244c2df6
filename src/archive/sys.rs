//! Extended attributes of open files: what neither `std` nor `nix` has. By descriptor, not by `/proc/self/fd`: the
//! process may stand in a mount namespace whose procfs is another one's.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// 64 KiB is the kernel's limit for both lists and values (xattr(7)).
const LARGEST: usize = 1 << 16;

/// Names of a file's extended attributes. Empty where there can be none.
pub(crate) fn list_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let names = grow(|buffer| {
        // SAFETY: the kernel writes at most the buffer's length.
        unsafe { libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    match names {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        names => Ok(names?.split(|&b| b == 0).filter(|n| !n.is_empty()).filter_map(|n| CString::new(n).ok()).collect()),
    }
}

/// The value of an extended attribute.
pub(crate) fn get_xattr(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer| {
        // SAFETY: the name is terminated, and the kernel writes at most the buffer's length.
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Sets an extended attribute.
pub(crate) fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name is terminated, and the kernel reads `value.len()` bytes.
    let result = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn grow(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        let length = call(&mut buffer);
        if let Ok(length) = usize::try_from(length) {
            buffer.truncate(length);
            return Ok(buffer);
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ERANGE) && buffer.len() < LARGEST => {
                buffer.resize(LARGEST, 0);
            }
            error => return Err(error),
        }
    }
}
