//! One request and its answer: everything that the guest says about lengths and names is checked here.

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::Result;
use crate::virtio::chain::{Reader, Writer};
use crate::virtio::fs::abi::{InHeader, NAME_MAX, OutHeader, Wire};

/// Longest fixed part of a request in bytes.
const LONGEST_MESSAGE: usize = 128;
/// Longest variable part but data to write: a name and the largest extended attribute, or two paths.
const LONGEST_TAIL: usize = 4096 + XATTR_MAX;
/// Largest value and list of names of extended attributes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub(super) const XATTR_MAX: usize = 65536;

/// What the guest wants.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) header: InHeader,
    pub(super) body: Reader<'m>,
}

impl<'m> Request<'m> {
    /// Reads the header and bounds the rest by the length that it says. None where there is no request: nothing can be
    /// answered then.
    pub(super) fn read(reader: &mut Reader<'m>) -> Option<Self> {
        let header: InHeader = take(reader)?;
        let length = (header.len as usize).checked_sub(InHeader::SIZE)?;
        let extensions = usize::from(header.total_extlen) * 8;
        if length > reader.left() || extensions > length {
            return None;
        }
        Some(Self { header, body: reader.split_to(length - extensions) })
    }

    /// The next message of the body.
    pub(super) fn take<T: Wire>(&mut self) -> Result<T> {
        take(&mut self.body).ok_or(Errno::EINVAL)
    }

    /// The rest of the body.
    pub(super) fn tail(&mut self) -> Result<Vec<u8>> {
        if self.body.left() > LONGEST_TAIL {
            return Err(Errno::E2BIG);
        }
        let mut bytes = vec![0; self.body.left()];
        self.body.read_some(&mut bytes);
        Ok(bytes)
    }

    /// The rest of the body as the name of a directory entry.
    pub(super) fn name(&mut self) -> Result<CString> {
        component(&mut self.tail()?.as_slice())
    }
}

fn take<T: Wire>(reader: &mut Reader<'_>) -> Option<T> {
    let mut bytes = [0; LONGEST_MESSAGE];
    let bytes = bytes.get_mut(..T::SIZE)?;
    reader.read_exact(bytes).ok()?;
    T::take(&mut &*bytes)
}

/// Takes a terminated string off the front.
pub(super) fn string(bytes: &mut &[u8]) -> Result<CString> {
    let string = CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::EINVAL)?.to_owned();
    *bytes = &bytes[string.as_bytes_with_nul().len()..];
    Ok(string)
}

/// Takes a name off the front that leads from a directory to nothing but one of its entries.
pub(super) fn component(bytes: &mut &[u8]) -> Result<CString> {
    let name = string(bytes)?;
    is_component(&name)?;
    Ok(name)
}

/// Whether a name leads from a directory to nothing but one of its entries.
pub(in super::super) fn is_component(name: &CStr) -> Result<()> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::EINVAL),
        name if name.contains(&b'/') => Err(Errno::EINVAL),
        name if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// Where the answer goes: its header is written last.
#[derive(Debug)]
pub(super) struct Reply<'m> {
    header: Writer<'m>,
    pub(super) body: Writer<'m>,
}

impl<'m> Reply<'m> {
    /// None where there is no room for an answer.
    pub(super) fn new(writer: &mut Writer<'m>) -> Option<Self> {
        let mut body = writer.split_to(writer.left());
        (body.left() >= OutHeader::SIZE).then(|| Self { header: body.split_to(OutHeader::SIZE), body })
    }

    /// Appends a message.
    pub(super) fn put<T: Wire>(&mut self, message: &T) -> Result<()> {
        let mut bytes = Vec::with_capacity(T::SIZE);
        message.put(&mut bytes);
        self.bytes(&bytes)
    }

    /// Appends bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.body.write_all(bytes).map_err(|_| Errno::EINVAL)
    }

    /// Writes the header, and says how long the answer is.
    pub(super) fn finish(mut self, unique: u64, result: Result<()>) -> usize {
        let length = OutHeader::SIZE + if result.is_ok() { self.body.written() } else { 0 };
        // There is room: `new` has seen it.
        let _ = self.header.write_all(&header(unique, result, length));
        length
    }

    /// Room for an answer that has only a header.
    pub(super) fn header_room(self) -> Writer<'m> {
        self.header
    }
}

/// The header of an answer of so many bytes.
pub(super) fn header(unique: u64, result: Result<()>, length: usize) -> Vec<u8> {
    let error = result.err().map_or(0, |errno| -(errno as i32));
    let mut bytes = Vec::with_capacity(OutHeader::SIZE);
    OutHeader { len: u32::try_from(length).unwrap_or(u32::MAX), error, unique }.put(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::component;

    #[test]
    fn a_name_is_one_step_down_and_nothing_else() {
        let check = |bytes: &[u8]| component(&mut &*bytes).map(std::ffi::CString::into_bytes);
        assert_eq!(check(b"name\0"), Ok(b"name".to_vec()));
        assert_eq!(check(b"..a\0rest"), Ok(b"..a".to_vec()));
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0", b"../etc\0", b"not terminated", b""] {
            assert_eq!(check(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        let long = [vec![b'a'; 256], vec![0]].concat();
        assert_eq!(check(&long), Err(Errno::ENAMETOOLONG));
        assert!(check(&long[1..]).is_ok());
    }
}
