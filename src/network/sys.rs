//! The system calls of this crate that have no safe wrapper: asking for an interface's flags, making taps.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

mod raw {
    use std::ffi::c_int;

    nix::ioctl_read_bad!(interface_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    // linux/if_tun.h. The kernel's definitions say that each has an int for its argument; they have other things.
    nix::ioctl_readwrite_bad!(tap_attach, nix::request_code_write!(b'T', 202, size_of::<c_int>()), libc::ifreq);
    nix::ioctl_write_int_bad!(tap_offload, nix::request_code_write!(b'T', 208, size_of::<c_int>()));
    nix::ioctl_write_ptr_bad!(tap_header, nix::request_code_write!(b'T', 216, size_of::<c_int>()), c_int);
}

/// `IFF_TUN_EXCL`: a name that is taken is an error, whatever takes it.
const IFF_TUN_EXCL: c_int = 0x8000;

/// A request about an interface; a name that is too long is cut off.
fn request(name: &str) -> libc::ifreq {
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Makes a new tap and the descriptor of `/dev/net/tun` its other end. Frames have a virtio header and no other.
pub(crate) fn tap_attach(tap: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mut request = request(name);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | IFF_TUN_EXCL;
    // The upper half of a 16-bit number, negative as one with a sign.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: `request` is a whole `struct ifreq` that outlives the call, with a name that ends with NUL; the kernel writes it back.
    unsafe { raw::tap_attach(tap.as_raw_fd(), &raw mut request) }.map(drop)
}

/// Sets the length of the header in front of each frame, in bytes.
pub(crate) fn tap_header(tap: &OwnedFd, bytes: c_int) -> Result<(), Errno> {
    // SAFETY: the kernel reads one int.
    unsafe { raw::tap_header(tap.as_raw_fd(), &raw const bytes) }.map(drop)
}

/// Says what the reader of a tap can do itself (`TUN_F_*`).
pub(crate) fn tap_offload(tap: &OwnedFd, flags: c_uint) -> Result<(), Errno> {
    // SAFETY: takes a number only.
    unsafe { raw::tap_offload(tap.as_raw_fd(), flags as c_int) }.map(drop)
}

/// Flags of an interface by its name (netdevice(7)); `None` where there is none. Any socket will do to ask with. Unlike
/// rtnetlink this takes no lock in the kernel, so it never waits for others who make or delete links.
pub(crate) fn interface_flags(socket: &impl AsRawFd, name: &str) -> Result<Option<i32>, Errno> {
    let mut request = request(name);
    // SAFETY: `request` is a whole `struct ifreq` that outlives the call, with a name that ends with NUL.
    match unsafe { raw::interface_flags(socket.as_raw_fd(), &raw mut request) } {
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno),
        // SAFETY: SIOCGIFFLAGS has filled in `ifru_flags`, which any bits are valid for.
        Ok(_) => Ok(Some(i32::from(unsafe { request.ifr_ifru.ifru_flags }))),
    }
}
