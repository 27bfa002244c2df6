//! A tap: the link of a container whose kernel is its own. Its other end is a descriptor, from which whoever runs that kernel reads what the
//! container receives, and to which it writes what the container sends: one Ethernet frame at a time, behind a `struct virtio_net_hdr_v1`.
//!
//! A tap lives as long as its descriptor. So nothing is left of one whose holder was killed, as long as no other process has a copy.
//!
//! Source: Linux `Documentation/networking/tuntap.rst`, `include/uapi/linux/if_tun.h`.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

use crate::{Error, Result, sys};

/// The device that makes taps.
pub(crate) const DEVICE: &str = "/dev/net/tun";
/// Bytes in front of each frame: `struct virtio_net_hdr_v1`, of which the last field counts buffers that were merged.
pub const VNET_HEADER_BYTES: usize = 12;

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// What the reader of a tap takes without the kernel having done it before: what the guest has told its network device that it can. What the
/// guest itself sends may always be of any of these kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Frames without checksum (`VIRTIO_NET_F_GUEST_CSUM`). All others need it.
    pub checksum: bool,
    /// TCP over IPv4 that is still to be cut (`VIRTIO_NET_F_GUEST_TSO4`).
    pub tso4: bool,
    /// TCP over IPv6 (`VIRTIO_NET_F_GUEST_TSO6`).
    pub tso6: bool,
    /// TCP with congestion notification (`VIRTIO_NET_F_GUEST_ECN`).
    pub ecn: bool,
    /// UDP (`VIRTIO_NET_F_GUEST_USO4` and `6`); Linux 6.2.
    pub uso: bool,
}

impl Offload {
    /// The argument of `TUNSETOFFLOAD`, which the holder of the descriptor may repeat with another once the guest has spoken.
    pub fn flags(self) -> u32 {
        let uso = TUN_F_USO4 | TUN_F_USO6;
        [
            (self.checksum, TUN_F_CSUM),
            (self.tso4, TUN_F_TSO4),
            (self.tso6, TUN_F_TSO6),
            (self.ecn, TUN_F_TSO_ECN),
            (self.uso, uso),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

/// Makes a tap of that name, down, in the network namespace of the calling thread. The descriptor does not block and is closed on `execve`.
///
/// # Errors
/// With the number `EBUSY` where the name is taken.
pub(crate) fn create(name: &str, offload: Offload) -> Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
    let tap: OwnedFd = match device {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
            return Err(missing());
        }
        device => device.map_err(Error::file("open", Path::new(DEVICE)))?.into(),
    };
    let failed = |step: &str, errno: Errno| Error::Netlink {
        step: format!("{step} the tap {name}"),
        source: errno.into(),
        detail: None,
    };
    sys::tap_attach(&tap, name).map_err(|errno| failed("make", errno))?;
    sys::tap_header(&tap, VNET_HEADER_BYTES as i32).map_err(|errno| failed("set the header of", errno))?;
    sys::tap_offload(&tap, offload.flags()).map_err(|errno| failed("set the offloads of", errno))?;
    Ok(tap)
}

fn missing() -> Error {
    Error::KernelFeature {
        feature: "tap devices (CONFIG_TUN)",
        remedy: "load the module tun, see that /dev/net/tun exists, or use --network none",
    }
}

#[cfg(test)]
mod tests {
    use super::Offload;

    #[test]
    fn offloads_are_the_kernels_flags() {
        assert_eq!(Offload::default().flags(), 0);
        let all = Offload { checksum: true, tso4: true, tso6: true, ecn: true, uso: true };
        assert_eq!(all.flags(), 0x6F);
        assert_eq!(Offload { checksum: true, tso6: true, ..Offload::default() }.flags(), 5);
    }
}
