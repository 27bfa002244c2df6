//! Reading and writing the bytes of a chain. Nothing here can leave the memory that [`super::Chain::next`] has checked,
//! and nothing makes a Rust slice of it: the guest may change it at any instant.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::{ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

use super::sys;
use crate::virtio::device::DeviceError;

/// Where in a file a transfer takes place.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// At an offset in bytes (`preadv`, `pwritev`).
    Offset(u64),
    /// At an offset in bytes with `RWF_*` flags (`pwritev2`).
    OffsetWith(u64, i32),
    /// At the file's own position, or in a stream (`readv`, `writev`).
    Position,
}

#[derive(Debug, Default)]
struct Buffers<'m> {
    slices: VecDeque<VolatileSlice<'m>>,
    left: usize,
    done: usize,
}

impl<'m> Buffers<'m> {
    fn new(slices: Vec<VolatileSlice<'m>>) -> Self {
        Self { left: slices.iter().map(VolatileSlice::len).sum(), slices: slices.into(), done: 0 }
    }

    /// Takes the next piece of at most `most` bytes, none at the end.
    fn pop(&mut self, most: usize) -> Option<VolatileSlice<'m>> {
        if most == 0 {
            return None;
        }
        let slice = self.slices.pop_front()?;
        let piece = match slice.split_at(most) {
            Ok((piece, rest)) => {
                if !rest.is_empty() {
                    self.slices.push_front(rest);
                }
                piece
            }
            Err(_) => slice,
        };
        self.left -= piece.len();
        self.done += piece.len();
        Some(piece)
    }

    fn skip(&mut self, mut count: usize) {
        while let Some(piece) = self.pop(count) {
            count -= piece.len();
        }
    }

    fn split_to(&mut self, count: usize) -> Self {
        let mut front = Vec::new();
        let (mut left, done) = (count, self.done);
        while let Some(piece) = self.pop(left) {
            left -= piece.len();
            front.push(piece);
        }
        self.done = done;
        Self::new(front)
    }

    fn transfer(
        &mut self,
        most: usize,
        call: impl FnOnce(&mut dyn Iterator<Item = VolatileSlice<'m>>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut left = most;
        let mut pieces = self.slices.iter().map_while(|slice| {
            let piece = slice.subslice(0, left.min(slice.len())).ok().filter(|piece| !piece.is_empty())?;
            left -= piece.len();
            Some(piece)
        });
        let count = call(&mut pieces)?;
        self.skip(count);
        Ok(count)
    }
}

/// What a device may read of a chain, front to back.
#[derive(Debug, Default)]
pub struct Reader<'m>(Buffers<'m>);

impl<'m> Reader<'m> {
    pub(super) fn new(slices: Vec<VolatileSlice<'m>>) -> Self {
        Self(Buffers::new(slices))
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// Reads an object as it lies in memory; integers of the wire are `Le32` and the like.
    ///
    /// # Errors
    /// Fewer bytes are left than the object has.
    pub fn read_object<T: ByteValued + Default>(&mut self) -> Result<T, DeviceError> {
        let mut object = T::default();
        self.read_exact(object.as_mut_slice())?;
        Ok(object)
    }

    /// Fills a buffer.
    ///
    /// # Errors
    /// Fewer bytes are left; nothing is read then.
    pub fn read_exact(&mut self, into: &mut [u8]) -> Result<(), DeviceError> {
        if self.left() < into.len() {
            return Err(short("reads", into.len(), self.left()));
        }
        self.read_some(into);
        Ok(())
    }

    /// Fills a buffer as far as there are bytes, and says how far.
    pub fn read_some(&mut self, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(piece) = self.0.pop(into.len() - filled) {
            filled += piece.copy_to(&mut into[filled..filled + piece.len()]);
        }
        filled
    }

    /// Passes over `count` bytes, or what is left.
    pub fn skip(&mut self, count: usize) {
        self.0.skip(count);
    }

    /// The memory of what is left, front to back, for a call that takes more than this chain. [`Self::skip`] what it took.
    pub fn pieces(&self) -> impl Iterator<Item = VolatileSlice<'m>> {
        self.0.slices.iter().copied()
    }

    /// Splits off the next `count` bytes (or what is left); this reader goes on behind them.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        Self(self.0.split_to(count))
    }

    /// Writes at most `most` bytes to a file at an offset, straight from the guest's memory; says how many. May be fewer,
    /// as with `pwritev(2)`.
    pub fn write_to_file_at(&mut self, file: BorrowedFd<'_>, offset: u64, most: usize) -> io::Result<usize> {
        self.0.transfer(most, |pieces| sys::write(file, At::Offset(offset), pieces))
    }

    /// As [`Reader::write_to_file_at`], with `RWF_*` flags of `pwritev2(2)`.
    pub fn write_to_file_with(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        flags: i32,
        most: usize,
    ) -> io::Result<usize> {
        self.0.transfer(most, |pieces| sys::write(file, At::OffsetWith(offset, flags), pieces))
    }

    /// Writes at most `most` bytes to a stream (`writev(2)`), straight from the guest's memory; says how many.
    pub fn write_to_stream(&mut self, stream: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.0.transfer(most, |pieces| sys::write(stream, At::Position, pieces))
    }
}

/// A request that lies in our own memory: for transports that are not a queue, and for tests.
impl<'m> From<&'m mut [u8]> for Reader<'m> {
    fn from(bytes: &'m mut [u8]) -> Self {
        Self::new(vec![VolatileSlice::from(bytes)])
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_some(into))
    }
}

/// Where a device may write in a chain, front to back.
#[derive(Debug, Default)]
pub struct Writer<'m>(Buffers<'m>);

impl<'m> Writer<'m> {
    pub(super) fn new(slices: Vec<VolatileSlice<'m>>) -> Self {
        Self(Buffers::new(slices))
    }

    /// Bytes that still have room.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// Bytes written by this writer, without those that were split off.
    #[must_use]
    pub fn written(&self) -> usize {
        self.0.done
    }

    /// Writes an object as it lies in memory.
    ///
    /// # Errors
    /// There is less room.
    pub fn write_object<T: ByteValued>(&mut self, object: T) -> Result<(), DeviceError> {
        self.write_all(object.as_slice())
    }

    /// Writes a buffer.
    ///
    /// # Errors
    /// There is less room; nothing is written then.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        if self.left() < bytes.len() {
            return Err(short("writes", bytes.len(), self.left()));
        }
        self.write_some(bytes);
        Ok(())
    }

    /// Writes as much of a buffer as there is room for, and says how much.
    pub fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(piece) = self.0.pop(bytes.len() - taken) {
            piece.copy_from(&bytes[taken..taken + piece.len()]);
            taken += piece.len();
        }
        taken
    }

    /// Writes `count` zero bytes, or as many as there is room for.
    pub fn write_zeroes(&mut self, mut count: usize) {
        const ZEROES: [u8; 4096] = [0; 4096];
        while let Some(piece) = self.0.pop(count.min(ZEROES.len())) {
            piece.copy_from(&ZEROES[..piece.len()]);
            count -= piece.len();
        }
    }

    /// The memory of the room that is left, front to back, for a call that fills more than this chain.
    pub fn pieces(&self) -> impl Iterator<Item = VolatileSlice<'m>> {
        self.0.slices.iter().copied()
    }

    /// Splits off the next `count` bytes (or what is left); this writer goes on behind them.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        Self(self.0.split_to(count))
    }

    /// Where the next `most` bytes (or what is left) lie in the guest's memory: for an answer that is given when the chain is
    /// no longer at hand. Empty where a piece is not of this memory.
    #[must_use]
    pub fn locate(&self, memory: &GuestMemoryMmap, most: usize) -> Vec<(GuestAddress, usize)> {
        let mut left = most;
        let place = |piece: &VolatileSlice<'_>| {
            let start = piece.ptr_guard().as_ptr() as usize;
            memory.iter().find_map(|region| {
                let offset = start.checked_sub(region.as_ptr() as usize)? as u64;
                (offset < region.len()).then(|| GuestAddress(region.start_addr().0 + offset))
            })
        };
        let pieces = self.0.slices.iter().map_while(|piece| {
            let length = left.min(piece.len());
            left -= length;
            (length > 0).then(|| place(piece).map(|start| (start, length)))
        });
        pieces.collect::<Option<_>>().unwrap_or_default()
    }

    /// Reads at most `most` bytes of a file at an offset, straight into the guest's memory; says how many, none at the
    /// file's end. May be fewer, as with `preadv(2)`.
    pub fn read_from_file_at(&mut self, file: BorrowedFd<'_>, offset: u64, most: usize) -> io::Result<usize> {
        self.0.transfer(most, |pieces| sys::read(file, At::Offset(offset), pieces))
    }

    /// Reads at most `most` bytes of a stream (`readv(2)`), straight into the guest's memory; says how many.
    pub fn read_from_stream(&mut self, stream: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.0.transfer(most, |pieces| sys::read(stream, At::Position, pieces))
    }
}

/// Room for an answer in our own memory: for transports that are not a queue, and for tests.
impl<'m> From<&'m mut [u8]> for Writer<'m> {
    fn from(bytes: &'m mut [u8]) -> Self {
        Self::new(vec![VolatileSlice::from(bytes)])
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.write_some(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn short(what: &str, wanted: usize, left: usize) -> DeviceError {
    DeviceError::Driver(format!("a request is too short: the device {what} {wanted} bytes, {left} are left"))
}
