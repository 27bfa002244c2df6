//! The one system call of this crate that has no safe wrapper: asking for an interface's flags.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::errno::Errno;

mod raw {
    nix::ioctl_read_bad!(interface_flags, libc::SIOCGIFFLAGS, libc::ifreq);
}

/// Flags of an interface by its name (netdevice(7)); `None` where there is none. Any socket will do to ask with. Unlike
/// rtnetlink this takes no lock in the kernel, so it never waits for others who make or delete links.
pub(crate) fn interface_flags(socket: &impl AsRawFd, name: &str) -> Result<Option<i32>, Errno> {
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: `request` is a whole `struct ifreq` that outlives the call, with a name that ends with NUL.
    match unsafe { raw::interface_flags(socket.as_raw_fd(), &raw mut request) } {
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno),
        // SAFETY: SIOCGIFFLAGS has filled in `ifru_flags`, which any bits are valid for.
        Ok(_) => Ok(Some(i32::from(unsafe { request.ifr_ifru.ifru_flags }))),
    }
}
