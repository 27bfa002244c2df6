//! The header of a vsock packet (virtio specification 1.3, section 5.10.6): what stands before every byte of a stream.

use crate::virtio::chain::{Reader, Writer};
use crate::virtio::device::DeviceError;

/// Bytes of a header on the wire.
pub(super) const HEADER_SIZE: usize = 44;

/// Context id of the host (`VMADDR_CID_HOST`, vsock(7)).
pub(super) const HOST_CID: u64 = 2;

/// Type of a stream socket (`VIRTIO_VSOCK_TYPE_STREAM`), the only one that is served.
pub(super) const TYPE_STREAM: u16 = 1;

/// Flag of `SHUTDOWN`: its sender receives no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// Flag of `SHUTDOWN`: its sender sends no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for (section 5.10.6, `VIRTIO_VSOCK_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
    /// A number that the specification does not know.
    Unknown(u16),
}

impl Op {
    fn of(number: u16) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            other => Self::Unknown(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
            Self::Unknown(number) => number,
        }
    }
}

/// The two ports of a connection: its name, since the two context ids are always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// A header, its fields as the specification names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of payload behind the header.
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: Op,
    pub(super) flags: u32,
    /// Bytes that the sender of the packet has set aside for the stream.
    pub(super) buf_alloc: u32,
    /// Bytes that the sender of the packet has taken out of them since the beginning, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Takes a header off the front of a chain.
    ///
    /// # Errors
    /// The chain has fewer bytes.
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DeviceError> {
        let mut bytes = [0; HEADER_SIZE];
        from.read_exact(&mut bytes)?;
        Ok(Self::decode(&bytes))
    }

    /// Writes the header at the front of a chain.
    ///
    /// # Errors
    /// The chain has less room.
    pub(super) fn write(&self, to: &mut Writer<'_>) -> Result<(), DeviceError> {
        to.write_all(&self.encode())
    }

    pub(super) fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: Op::of(u16::from_le_bytes(take(&mut rest))),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, &self.src_cid.to_le_bytes());
        put(&mut rest, &self.dst_cid.to_le_bytes());
        put(&mut rest, &self.src_port.to_le_bytes());
        put(&mut rest, &self.dst_port.to_le_bytes());
        put(&mut rest, &self.len.to_le_bytes());
        put(&mut rest, &self.kind.to_le_bytes());
        put(&mut rest, &self.op.number().to_le_bytes());
        put(&mut rest, &self.flags.to_le_bytes());
        put(&mut rest, &self.buf_alloc.to_le_bytes());
        put(&mut rest, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// RST for a connection, which is not one any more.
    pub(super) fn reset(ports: Ports, guest_cid: u64) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            kind: TYPE_STREAM,
            op: Op::Reset,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// The answer to a packet of no connection. It has no room to offer.
    pub(super) fn reset_of(packet: &Self) -> Self {
        Self {
            src_cid: packet.dst_cid,
            dst_cid: packet.src_cid,
            src_port: packet.dst_port,
            dst_port: packet.src_port,
            len: 0,
            kind: packet.kind,
            op: Op::Reset,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

/// Takes the next `N` bytes; the sizes of the fields add up to that of the header.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, behind) = rest.split_first_chunk().map_or(([0; N], [].as_slice()), |(field, behind)| (*field, behind));
    *rest = behind;
    field
}

fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (place, behind) = std::mem::take(rest).split_at_mut(field.len());
    place.copy_from_slice(field);
    *rest = behind;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HEADER_SIZE, Header, Op};

    #[test]
    fn every_field_lies_where_the_specification_puts_it() {
        let mut bytes = [0; HEADER_SIZE];
        for (place, byte) in (0u8..).zip(bytes.iter_mut()) {
            *byte = place;
        }
        (bytes[30], bytes[31]) = (5, 0);
        let header = Header::decode(&bytes);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.dst_cid, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(header.src_port, 0x1312_1110);
        assert_eq!(header.dst_port, 0x1716_1514);
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!(header.kind, 0x1d1c);
        assert_eq!(header.op, Op::Data);
        assert_eq!(header.flags, 0x2322_2120);
        assert_eq!(header.buf_alloc, 0x2726_2524);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_encoded_to_the_same_bytes(bytes in prop::array::uniform32(any::<u8>()), more in prop::array::uniform12(any::<u8>())) {
            let mut header = [0; HEADER_SIZE];
            header[..32].copy_from_slice(&bytes);
            header[32..].copy_from_slice(&more);
            prop_assert_eq!(Header::decode(&header).encode(), header);
        }
    }
}
