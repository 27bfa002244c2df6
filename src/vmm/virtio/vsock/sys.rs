//! What of sockets has no safe face: transfers straight into and out of the guest's memory.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// Most pieces in one call; more make a short transfer (`IOV_MAX`, limits.h).
pub(super) const MOST_PIECES: usize = 1024;

/// Reads from a socket into pieces of the guest's memory (`recvmsg(2)`), without waiting. Says how many bytes, none at the
/// stream's end.
pub(super) fn receive<'m>(
    socket: BorrowedFd<'_>,
    pieces: impl Iterator<Item = VolatileSlice<'m>>,
) -> io::Result<usize> {
    let mut vectors = vectors(pieces);
    let mut message = message(&mut vectors);
    // SAFETY: each vector is a piece of the guest's memory, which stays mapped for 'm; the kernel alone writes it, and the
    // guest may at the same time, which is why no reference to it exists. The message and its vectors live until the end
    // of the call.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes pieces of the guest's memory to a socket (`sendmsg(2)`), without waiting and without `SIGPIPE`. Says how many
/// bytes.
pub(super) fn send<'m>(socket: BorrowedFd<'_>, pieces: impl Iterator<Item = VolatileSlice<'m>>) -> io::Result<usize> {
    let mut vectors = vectors(pieces);
    let message = message(&mut vectors);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as in `receive`; the kernel only reads the memory.
    let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// The pointers outlive the guards that they come from: only memory mapped on demand needs a guard (Xen), ours is mapped
/// as long as the slice lives.
fn vectors<'m>(pieces: impl Iterator<Item = VolatileSlice<'m>>) -> Vec<libc::iovec> {
    pieces
        .take(MOST_PIECES)
        .map(|piece| libc::iovec { iov_base: piece.ptr_guard_mut().as_ptr().cast(), iov_len: piece.len() })
        .collect()
}

fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all fields are numbers and pointers, for which zero is a value; musl has private padding among them, so that
    // they cannot be named one by one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    message
}
