//! The one system call of the terminal that has no safe wrapper.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{libc, pty::Winsize};

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, Winsize);

/// The size of the window behind a terminal.
///
/// # Errors
/// The descriptor is no terminal (`ENOTTY`).
pub(super) fn window_size(terminal: BorrowedFd<'_>) -> nix::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the length of the borrow, and TIOCGWINSZ (ioctl_tty(2)) writes one `winsize`, for
    // which `size` has the room; the kernel keeps no pointer to it.
    unsafe { get_window_size(terminal.as_raw_fd(), &mut size) }?;
    Ok(size)
}
