//! The one place where descriptor chains are read: everything a guest says about lengths, addresses and order is checked
//! here, once, and what comes out is a [`Reader`] and a [`Writer`] over memory that is known to be the guest's.
//!
//! How a device uses it:
//!
//! ```ignore
//! fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
//!     serve(io, queue, &self.again, |chain| {
//!         let header: Header = chain.reader.read_object()?;        // DeviceError where the chain is too short
//!         chain.writer.write_all(&answer(header))?;
//!         Ok(Turn::Done)                                           // used, with the length that was written
//!     })
//! }
//! ```
//!
//! A device that waits (for a peer, for room) takes chains with [`Chain::next`] and gives them back with
//! [`Chain::finish`] or [`Chain::put_back`] itself.
//!
//! The limits (virtio specification 1.3, section 2.7.5): a chain ends within the size of its queue, or, in an indirect
//! table, within [`MAX_DESCRIPTORS`]; at most one indirect table, none inside another; at most 2^32 - 1 bytes in all; what
//! the device may write comes after what it may only read; every byte lies in the guest's memory, and what is written, in
//! memory that is mapped writable here (a file in the guest's memory may be a *source* of a request, as with `O_DIRECT` from
//! a file mapped with DAX; whether it may be a target, its mapping says). A chain that breaks one of these is an error of the driver:
//! the device stops and asks to be reset. The crate `virtio-queue` has a reader and a writer too; they take a broken chain
//! for a short one, walk the guest's descriptors once for each, and show no memory to `preadv`.

mod buffers;
mod serve;
mod sys;
#[cfg(test)]
mod tests;

pub use buffers::{Reader, Writer};
pub use serve::{Again, Turn, serve};
pub use sys::MOST_PIECES;

use std::io;
use std::os::fd::BorrowedFd;

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
    VolatileSlice,
};

use crate::virtio::device::DeviceError;

/// Largest number of descriptors in a chain, an indirect table included. As many as `preadv(2)` takes (`IOV_MAX`).
pub const MAX_DESCRIPTORS: usize = 1024;

/// The features that chains and queues give to every device: `VIRTIO_F_VERSION_1`, `VIRTIO_F_EVENT_IDX`,
/// `VIRTIO_F_INDIRECT_DESC` (section 6). A device offers these and its own.
pub const RING_FEATURES: u64 = 1 << virtio_bindings::virtio_config::VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// One request of the driver: what it wants read, and where it wants the answer.
#[derive(Debug)]
pub struct Chain<'m> {
    head: u16,
    /// What the device may read.
    pub reader: Reader<'m>,
    /// Where the device may write.
    pub writer: Writer<'m>,
}

impl<'m> Chain<'m> {
    /// Takes the next available chain of a queue, none where there is none.
    ///
    /// # Errors
    /// The queue or the chain breaks the specification. The chain is not given back then.
    pub fn next(queue: &mut Queue, memory: &'m GuestMemoryMmap) -> Result<Option<Self>, DeviceError> {
        let Some(descriptors) = queue.iter(memory)?.next() else { return Ok(None) };
        let head = descriptors.head_index();
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let mut more = true;
        for (count, descriptor) in descriptors.enumerate() {
            if count == MAX_DESCRIPTORS {
                return Err(broken(head, "has more descriptors than the device takes"));
            }
            let (start, length) = (descriptor.addr(), descriptor.len() as usize);
            if descriptor.is_write_only() {
                slices(memory, start, length, true, &mut writable)?;
            } else if writable.is_empty() {
                slices(memory, start, length, false, &mut readable)?;
            } else {
                return Err(broken(head, "has a readable buffer after a writable one"));
            }
            more = descriptor.has_next();
        }
        // The iterator ends in silence where it cannot go on: at a loop, at an index beyond the table, at a descriptor
        // outside of the memory, at a second indirect table, at 2^32 bytes. Then the last one seen had a successor.
        if more {
            return Err(broken(head, "does not end, or leads out of its table"));
        }
        Ok(Some(Self { head, reader: Reader::new(readable), writer: Writer::new(writable) }))
    }

    /// Index of the chain's first descriptor: its name in the used ring.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Gives the chain back as used, with the number of bytes that its writer has written.
    pub fn finish(self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        let written = self.writer.written();
        self.finish_with(written, queue, memory)
    }

    /// Gives the chain back as used, with a number of bytes written: for a writer that was split.
    pub fn finish_with(self, written: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        // A chain has less than 2^32 bytes, so this never saturates.
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        Ok(queue.add_used(memory, self.head, written)?)
    }

    /// Gives the chain back as not seen: it is the next one again. Only for the chain taken last.
    pub fn put_back(self, queue: &mut Queue) {
        queue.go_to_previous_position();
    }
}

/// Gives several chains back as used, `(head, bytes written)`, so that the driver sees all of them or none: for an answer
/// that is spread over them. A driver on another CPU may look at any instant (section 5.1.6.4.1: "all used buffers ... at
/// the same time").
pub fn finish_together(used: &[(u16, u32)], queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
    let Some(((last, last_written), rest)) = used.split_last() else { return Ok(()) };
    let (ring, size) = (GuestAddress(queue.used_ring()), queue.size());
    let start = queue.next_used();
    for (number, (head, written)) in (0..).zip(rest) {
        // Section 2.7.8: two bytes of flags, two of index, then eight for each entry.
        let place = start.wrapping_add(number) % size;
        let at = ring.checked_add(4 + 8 * u64::from(place)).ok_or(virtio_queue::Error::AddressOverflow)?;
        memory.write_obj([u32::from(*head).to_le(), written.to_le()], at)?;
    }
    queue.set_next_used(start.wrapping_add(rest.len() as u16));
    // Writes the last entry and then the index, which makes all of them visible.
    Ok(queue.add_used(memory, *last, *last_written)?)
}

/// Reads from a stream, a tap or the like into pieces of memory (`readv(2)`): for what takes more than one chain.
pub fn read_stream<'m>(
    stream: BorrowedFd<'_>,
    mut pieces: impl Iterator<Item = VolatileSlice<'m>>,
) -> io::Result<usize> {
    sys::read(stream, buffers::At::Position, &mut pieces)
}

/// Writes pieces of memory to a stream, a tap or the like (`writev(2)`).
pub fn write_stream<'m>(
    stream: BorrowedFd<'_>,
    mut pieces: impl Iterator<Item = VolatileSlice<'m>>,
) -> io::Result<usize> {
    sys::write(stream, buffers::At::Position, &mut pieces)
}

/// Whether all of a range is memory that a device may write to. The transport asks it of the used ring, and devices of
/// addresses that do not come in a chain.
#[must_use]
pub fn is_writable(memory: &GuestMemoryMmap, start: GuestAddress, length: usize) -> bool {
    slices(memory, start, length, true, &mut Vec::new()).is_ok()
}

/// The pieces of memory behind a range of addresses, one for each region that it touches.
fn slices<'m>(
    memory: &'m GuestMemoryMmap,
    mut start: GuestAddress,
    length: usize,
    written: bool,
    into: &mut Vec<VolatileSlice<'m>>,
) -> Result<(), DeviceError> {
    let mut left = length as u64;
    while left > 0 {
        let region = memory.find_region(start).ok_or(GuestMemoryError::InvalidGuestAddress(start))?;
        if written && region.prot() & libc::PROT_WRITE == 0 {
            return Err(DeviceError::Driver(format!("has a writable buffer in read-only memory, at {:#x}", start.0)));
        }
        let offset = start.unchecked_offset_from(region.start_addr());
        let count = left.min(region.len() - offset);
        into.push(region.get_slice(vm_memory::MemoryRegionAddress(offset), count as usize)?);
        left -= count;
        if left > 0 {
            start = start.checked_add(count).ok_or(GuestMemoryError::InvalidGuestAddress(start))?;
        }
    }
    Ok(())
}

fn broken(head: u16, what: &str) -> DeviceError {
    DeviceError::Driver(format!("the chain at descriptor {head} {what}"))
}
