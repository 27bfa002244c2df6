//! What of sockets has no safe face: transfers straight into and out of the guest's memory, and a descriptor that arrives.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Receives one message of at most `bytes.len()` bytes and one descriptor with it; more are closed. Says how many bytes,
/// none at the stream's end.
///
/// Made by hand because nix drops the control message where the kernel has cut it off (`MSG_CTRUNC`), and with it the
/// descriptors that it did make: a sender could fill up this process's table.
pub(super) fn receive_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: libc::c_int,
) -> io::Result<(usize, Option<OwnedFd>)> {
    // Room for two descriptors, and as aligned as a header must be.
    let mut control = [0_u64; 4];
    let mut vectors = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }];
    let mut message = message(&mut vectors);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to `bytes` and `control`, which are alive and not otherwise used until the call returns.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    Ok((count, descriptors(&message).into_iter().next()))
}

/// Takes the descriptors that the kernel has made for a message.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the control buffer and set `msg_controllen` to what it filled; the macros of cmsg(3)
    // stay inside.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !part.is_null() {
        // SAFETY: not null, so a whole header that the kernel wrote.
        let header = unsafe { *part };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: only computes the size of a header, and the address behind this one.
            let (start, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(part)) };
            let count = (header.cmsg_len as usize).saturating_sub(start) / size_of::<RawFd>();
            for place in 0..count {
                // SAFETY: `cmsg_len` says that `count` numbers lie behind the header, maybe unaligned. Each is a
                // descriptor that the kernel has just made for this process, and nothing else knows its number.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(place).read_unaligned()) });
            }
        }
        // SAFETY: `part` is a header of this message.
        part = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
    descriptors
}
