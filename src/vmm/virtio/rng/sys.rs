//! The kernel's random bytes.
#![allow(unsafe_code)]

use std::io;

/// Fills a buffer from the kernel's generator (`getrandom(2)`). Of at most 256 bytes at once it never gets fewer.
pub(super) fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel writes at most the slice's length.
        let result = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(result) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}
