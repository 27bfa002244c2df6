//! A descriptor that came by a socket becomes ours.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes a descriptor that `recvmsg` has just made.
pub(super) fn received(file: RawFd) -> OwnedFd {
    // SAFETY: the only caller gives descriptors that the kernel has just opened in this process for the message that it
    // reads, and nobody else knows them.
    unsafe { OwnedFd::from_raw_fd(file) }
}
