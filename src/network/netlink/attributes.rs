//! Type-length-value attributes of netlink (`struct nlattr`), written and read.

use super::HEADER;

/// Bit of an attribute's type that says its value is attributes.
const NESTED: u16 = 0x8000;
/// Type without `NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;
const ATTRIBUTE_HEADER: usize = 4;

/// One message in the making. Length and sequence number are filled in when it is sent.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A message of a type, with flags beyond `NLM_F_REQUEST` and its family's fixed header.
    pub(crate) fn message(kind: u16, flags: u16, fixed: &[u8]) -> Writer {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Writer { bytes }
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Writer {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// A string with its final NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Writer {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A number in network byte order, as all of nfnetlink has them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Writer {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) -> &mut Writer {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// An attribute that holds one other.
    pub(crate) fn wrap(&mut self, kind: u16, inner: u16, value: &[u8]) -> &mut Writer {
        self.nest(kind, |nested| {
            nested.attribute(inner, value);
        })
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Attributes and their values, in order. Ends at the first whose length does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..ATTRIBUTE_HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A string without its final NUL.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// A number in the machine's byte order.
pub(crate) fn native32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::message(1, 0, &[]);
        writer.text(1, "sbx").nest(2, |inner| {
            inner.be32(3, 7).attribute(4, &[1]);
        });
        let bytes = writer.finish();
        let body = &bytes[HEADER..];
        assert_eq!(find(body, 1).map(text).as_deref(), Some("sbx"));
        let inner = find(body, 2).unwrap();
        assert_eq!(find(inner, 3), Some(&[0, 0, 0, 7][..]));
        assert_eq!(find(inner, 4), Some(&[1][..]));
        assert_eq!(find(inner, 5), None);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn hostile_lengths_end_the_list() {
        for bytes in [&[0_u8, 0, 1, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 0], &[0xff, 0xff, 1, 0], &[5], &[]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
