//! For tests: a real tap. The calls that make one have no safe face.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::virtio::net::{HEADER_SIZE, tap_offloads};

/// Opens a tap named `name` as an owner of the device does, and sets its interface up.
pub(super) fn open_tap(name: &str) -> io::Result<File> {
    let tap = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    let size = HEADER_SIZE as libc::c_int;
    // SAFETY: each request has the argument that tun(4) wants: a pointer to a structure or number that is alive, or a number.
    unsafe {
        check(libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw const request))?;
        check(libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const size))?;
        check(libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(tap_offloads())))?;
    }
    set_up(name)?;
    Ok(tap)
}

fn set_up(name: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: netdevice(7): the argument is a structure that is alive, with name and flags filled in.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}

/// Opens a socket on the host's side of an interface that sees and sends whole frames (packet(7)).
pub(super) fn open_network(name: &str) -> io::Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    let index = nix::net::if_::if_nametoindex(name)?;
    // SAFETY: numbers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    address.sll_ifindex = index as libc::c_int;
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: makes a descriptor, which is owned from here on.
    let socket = unsafe {
        let raw = libc::socket(libc::AF_PACKET, kind, libc::c_int::from(every));
        check(raw)?;
        OwnedFd::from_raw_fd(raw)
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is alive, and as long as it says.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: numbers and characters, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
