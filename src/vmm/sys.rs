//! What `vmm-sys-util` and `nix` leave to their users: an eventfd as a borrowed descriptor, and descriptors that arrive by a
//! socket.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use vmm_sys_util::eventfd::EventFd;

/// Room for one header and the most descriptors that a message carries (`SCM_MAX_FD`, 253), as aligned as a header must be.
const CONTROL: usize = 16 / 8 + (MOST_DESCRIPTORS * size_of::<RawFd>()).div_ceil(8);

/// The most descriptors that the kernel lets one message carry (`SCM_MAX_FD`, include/net/scm.h).
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// The eventfd's descriptor, for as long as the eventfd is borrowed.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd owns the descriptor and keeps it open while it is borrowed, which the lifetime says.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// A message as it came.
pub(crate) struct Received {
    /// Its length in bytes; none at the stream's end.
    pub(crate) bytes: usize,
    /// The descriptors that came with it.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// It was longer than there was room for, or had more descriptors than this process could take.
    pub(crate) is_cut: bool,
}

/// Receives one message of at most `bytes.len()` bytes with all of its descriptors (`recvmsg(2)`).
///
/// Made by hand because nix drops the control message where the kernel has cut it off (`MSG_CTRUNC`: this process' table is
/// full), and with it the descriptors that it did make: a sender could fill up the table.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], flags: libc::c_int) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all fields are numbers and pointers, for which zero is a value; musl has private padding among them, so that
    // they cannot be named one by one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to `bytes` and `control`, which are alive and not otherwise used until the call returns.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) };
    let bytes = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let is_cut = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Received { bytes, descriptors: descriptors(&message), is_cut })
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
