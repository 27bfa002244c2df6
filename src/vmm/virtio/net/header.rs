//! The header before every frame (section 5.1.6, `struct virtio_net_hdr_v1`): which work on the frame is still to be done.
//! The tap takes and gives the same header. What the guest writes in it reaches the host's kernel only where it fits the
//! frame and what was agreed on. The kernel looks at it again (
//! `virtio_net_hdr_to_skb`), and has had holes there.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Bytes of a header on the wire, and between device and tap.
pub const HEADER_SIZE: usize = 12;

/// Bytes of an Ethernet header: no frame is shorter.
pub(super) const ETHERNET: usize = 14;
/// Most bytes of a frame: the largest IP packet, an Ethernet header and a VLAN tag.
pub(super) const MOST_FRAME: usize = 65_535 + ETHERNET + 4;

/// A frame's checksum is not filled in (flag).
const NEEDS_CHECKSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
/// A frame's checksum was found right (flag).
const CHECKSUM_VALID: u8 = VIRTIO_NET_HDR_F_DATA_VALID as u8;
const WHOLE: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const TCP4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const TCP6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;

/// The flags that the owner must give to the tap by `TUNSETOFFLOAD`, so that it hands out frames whose checksum and whose
/// segments are still to be made: `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6` (linux/if_tun.h).
#[must_use]
pub const fn tap_offloads() -> libc::c_uint {
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6
}

/// A header, its fields as the specification names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) hdr_len: u16,
    pub(super) gso_size: u16,
    pub(super) csum_start: u16,
    pub(super) csum_offset: u16,
    pub(super) num_buffers: u16,
}

impl Header {
    pub(super) fn decode(bytes: [u8; HEADER_SIZE]) -> Self {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
            num_buffers: number(10),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let numbers = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (place, number) in bytes[2..].chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// What of a header that the guest wrote before a frame of so many bytes may reach the tap; none where it makes no
    /// sense. Flags that mean nothing here are passed over (section 5.1.6.2.2).
    pub(super) fn for_tap(&self, frame: usize, features: u64) -> Option<Self> {
        let needs_checksum = self.flags & NEEDS_CHECKSUM != 0;
        let mut clean = Self::default();
        if needs_checksum {
            let (start, end) = (usize::from(self.csum_start), self.checksum_end());
            if !has(features, VIRTIO_NET_F_CSUM) || start < ETHERNET || end > frame {
                return None;
            }
            clean.flags = NEEDS_CHECKSUM;
            (clean.csum_start, clean.csum_offset) = (self.csum_start, self.csum_offset);
        }
        if self.gso_type != WHOLE {
            let agreed = match self.gso_type {
                TCP4 => has(features, VIRTIO_NET_F_HOST_TSO4),
                TCP6 => has(features, VIRTIO_NET_F_HOST_TSO6),
                _ => false,
            };
            if !agreed || !needs_checksum || self.gso_size == 0 {
                return None;
            }
            (clean.gso_type, clean.gso_size) = (self.gso_type, self.gso_size);
            // A hint of how much belongs to headers, which the tap refuses where it lies.
            clean.hdr_len = usize::from(self.hdr_len).clamp(self.checksum_end(), frame) as u16;
        }
        Some(clean)
    }

    fn checksum_end(&self) -> usize {
        usize::from(self.csum_start) + usize::from(self.csum_offset) + size_of::<u16>()
    }

    /// What of a header that the tap gave may reach the guest; none where the guest has not agreed to do that work. Where
    /// the driver takes all that is offered, as Linux does, it always has.
    pub(super) fn for_guest(self, features: u64) -> Option<Self> {
        let takes_checksums = has(features, VIRTIO_NET_F_GUEST_CSUM);
        let agreed = match self.gso_type {
            WHOLE => true,
            TCP4 => has(features, VIRTIO_NET_F_GUEST_TSO4),
            TCP6 => has(features, VIRTIO_NET_F_GUEST_TSO6),
            _ => false,
        };
        if !agreed || self.flags & NEEDS_CHECKSUM != 0 && !takes_checksums {
            return None;
        }
        let known = if takes_checksums { NEEDS_CHECKSUM | CHECKSUM_VALID } else { 0 };
        Some(Self { flags: self.flags & known, ..self })
    }
}

/// Whether a feature was agreed on.
pub(super) fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}

#[cfg(test)]
mod tests {
    use super::{ETHERNET, Header, NEEDS_CHECKSUM, TCP4, TCP6, tap_offloads};

    const ALL: u64 = u64::MAX;
    /// A TCP segment over IPv4, to be cut.
    const SEGMENT: Header = Header {
        flags: NEEDS_CHECKSUM,
        gso_type: TCP4,
        hdr_len: 54,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };

    #[test]
    fn a_header_has_the_layout_of_the_specification() {
        let bytes = [1, 4, 0x36, 0, 0xb4, 5, 0x22, 0, 0x10, 0, 7, 0];
        let header = Header { gso_type: TCP6, num_buffers: 7, ..SEGMENT };
        assert_eq!(Header::decode(bytes), header);
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn the_tap_is_asked_for_checksums_and_tcp() {
        assert_eq!(tap_offloads(), 7);
    }

    #[test]
    fn what_fits_the_frame_reaches_the_tap() {
        assert_eq!(SEGMENT.for_tap(60_000, ALL), Some(SEGMENT));
        assert_eq!(Header::default().for_tap(ETHERNET, 0), Some(Header::default()));
        let checksum = Header { gso_type: 0, ..SEGMENT };
        let clean = checksum.for_tap(1000, ALL).unwrap();
        assert_eq!((clean.flags, clean.csum_start, clean.csum_offset), (NEEDS_CHECKSUM, 34, 16));
    }

    #[test]
    fn what_means_nothing_is_cleared() {
        let strange = Header { flags: 0xfe, num_buffers: 9, hdr_len: 5, csum_start: 9, ..Header::default() };
        assert_eq!(strange.for_tap(100, ALL), Some(Header::default()));
        assert_eq!(Header { hdr_len: 60_000, ..SEGMENT }.for_tap(1000, ALL).unwrap().hdr_len, 1000);
        assert_eq!(Header { hdr_len: 1, ..SEGMENT }.for_tap(1000, ALL).unwrap().hdr_len, 52);
    }

    #[test]
    fn what_does_not_fit_the_frame_or_the_agreement_is_refused() {
        let bad = [
            Header { csum_start: 13, ..SEGMENT },
            Header { csum_start: 983, ..SEGMENT },
            Header { csum_start: u16::MAX, csum_offset: u16::MAX, ..SEGMENT },
            Header { gso_size: 0, ..SEGMENT },
            Header { flags: 0, ..SEGMENT },
            Header { gso_type: 2, ..SEGMENT },
            Header { gso_type: 3, ..SEGMENT },
            Header { gso_type: 5, ..SEGMENT },
            Header { gso_type: TCP4 | 0x80, ..SEGMENT },
        ];
        for header in bad {
            assert_eq!(header.for_tap(1000, ALL), None, "{header:?}");
        }
        assert_eq!(SEGMENT.for_tap(1000, 0), None);
        assert_eq!(SEGMENT.for_tap(1000, 1), None);
        assert!(SEGMENT.for_tap(1000, 1 | 1 << 11).is_some());
        assert_eq!(Header { gso_type: TCP6, ..SEGMENT }.for_tap(1000, 1 | 1 << 11), None);
    }

    #[test]
    fn a_guest_gets_only_the_work_that_it_takes() {
        assert_eq!(SEGMENT.for_guest(ALL), Some(SEGMENT));
        assert_eq!(SEGMENT.for_guest(1 << 1), None);
        assert_eq!(SEGMENT.for_guest(1 << 7), None);
        assert_eq!(Header { gso_type: 0, ..SEGMENT }.for_guest(0), None);
        let valid = Header { flags: 2, ..Header::default() };
        assert_eq!(valid.for_guest(1 << 1), Some(valid));
        assert_eq!(valid.for_guest(0), Some(Header::default()));
    }
}
