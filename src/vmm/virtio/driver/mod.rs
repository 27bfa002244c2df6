//! For tests: a driver that speaks to a device as a guest would, without machine, transport or thread.
//!
//! ```text
//!  0 ...... 1 MiB   rings, 64 KiB for each queue        4 MiB .. 8 MiB   nothing
//!  1 MiB .. 4 MiB   buffers                             8 MiB .. 9 MiB   more memory, for what crosses regions
//! ```
//!
//! The mock queue of `virtio-queue` stops where its ring is full once; this one goes round.

pub(crate) mod board;
mod hostile;
mod sys;

pub(crate) use hostile::{Hostile, attack};

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::virtio::{Device, DeviceError, Interest, Interrupt, Io};

pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;

const RINGS: u64 = 64 << 10;
const BUFFERS: u64 = 1 << 20;
const END: u64 = 4 << 20;
/// Start of the second region of memory.
pub(crate) const SECOND: u64 = 8 << 20;
const SECOND_LENGTH: usize = 1 << 20;

/// One buffer of a request.
pub(crate) enum Buffer<'a> {
    /// The device may read these bytes.
    Bytes(&'a [u8]),
    /// The device may write so many bytes.
    Room(u32),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its first descriptor.
    pub(crate) head: u16,
    room: Vec<(u64, u32)>,
}

/// A device's surroundings, and the driver's side of its queues.
pub(crate) struct Driver {
    pub(crate) io: Io,
    pub(crate) interrupt: Interrupt,
    poll: Arc<Epoll>,
    seen: Vec<u16>,
    next: Vec<u16>,
    free: u64,
}

impl Driver {
    /// A driver that has agreed to `features`, with all queues at their full size, and has started the device.
    pub(crate) fn new(device: &mut dyn Device, features: u64) -> Self {
        let mut driver = Self::prepared(device, features);
        device.start(&mut driver.io).unwrap();
        driver
    }

    /// As [`Driver::new`], with a device that is not started.
    pub(crate) fn prepared(device: &dyn Device, features: u64) -> Self {
        Self::prepared_in(memory(), device, features)
    }

    fn prepared_in(memory: GuestMemoryMmap, device: &dyn Device, features: u64) -> Self {
        assert_eq!(features & !device.features(), 0, "the device does not offer this");
        let poll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let interrupt = Interrupt::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).unwrap()).unwrap();
        let queues: Vec<Queue> =
            device.queue_sizes().iter().enumerate().map(|(index, size)| ring(index, *size)).collect();
        let count = queues.len();
        let io = Io::new(memory, queues, features, interrupt.clone(), Arc::clone(&poll));
        Self { io, interrupt, poll, seen: vec![0; count], next: vec![0; count], free: BUFFERS }
    }

    /// Makes a request available, one descriptor after the other in the table.
    pub(crate) fn send(&mut self, queue: usize, buffers: &[Buffer<'_>]) -> Request {
        let mut descriptors = Vec::new();
        let mut room = Vec::new();
        for buffer in buffers {
            match buffer {
                Buffer::Bytes(bytes) => {
                    let at = self.place(bytes.len() as u64);
                    self.io.memory.write_slice(bytes, GuestAddress(at)).unwrap();
                    descriptors.push((at, bytes.len() as u32, 0));
                }
                Buffer::Room(length) => {
                    let at = self.place(u64::from(*length));
                    room.push((at, *length));
                    descriptors.push((at, *length, WRITE));
                }
            }
        }
        let head = self.send_descriptors(queue, &descriptors);
        Request { head, room }
    }

    /// Makes a chain of these descriptors available: address, length, flags without `NEXT`.
    pub(crate) fn send_descriptors(&mut self, queue: usize, descriptors: &[(u64, u32, u16)]) -> u16 {
        let size = self.io.queues[queue].size();
        let head = self.next[queue];
        for (index, (address, length, flags)) in descriptors.iter().enumerate() {
            let last = index + 1 == descriptors.len();
            let at = (head + index as u16) % size;
            let flags = if last { *flags } else { flags | NEXT };
            self.write_descriptor(queue, at, Descriptor::new(*address, *length, flags, (at + 1) % size));
        }
        self.next[queue] = (head + descriptors.len() as u16) % size;
        self.make_available(queue, head);
        head
    }

    pub(crate) fn write_descriptor(&self, queue: usize, index: u16, descriptor: Descriptor) {
        let at = self.io.queues[queue].desc_table() + 16 * u64::from(index);
        self.io.memory.write_obj(RawDescriptor::from(descriptor), GuestAddress(at)).unwrap();
    }

    /// Puts a first descriptor into the ring of what is available.
    pub(crate) fn make_available(&self, queue: usize, head: u16) {
        let (ring, size) = (self.io.queues[queue].avail_ring(), self.io.queues[queue].size());
        let index: u16 = self.io.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        self.io.memory.write_obj(head, GuestAddress(ring + 4 + 2 * u64::from(index % size))).unwrap();
        self.io.memory.write_obj(index.wrapping_add(1), GuestAddress(ring + 2)).unwrap();
    }

    /// What the device has given back since the last look: first descriptor and length.
    pub(crate) fn used(&mut self, queue: usize) -> Vec<(u16, u32)> {
        let (ring, size) = (self.io.queues[queue].used_ring(), self.io.queues[queue].size());
        let index: u16 = self.io.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        let mut used = Vec::new();
        while self.seen[queue] != index {
            let at = ring + 4 + 8 * u64::from(self.seen[queue] % size);
            let [head, length]: [u32; 2] =
                [0, 4].map(|offset| self.io.memory.read_obj(GuestAddress(at + offset)).unwrap());
            used.push((head as u16, length));
            self.seen[queue] = self.seen[queue].wrapping_add(1);
        }
        used
    }

    /// All that the device may write in a request.
    pub(crate) fn answer(&self, request: &Request) -> Vec<u8> {
        request.room.iter().flat_map(|(at, length)| self.bytes(*at, *length as usize)).collect()
    }

    pub(crate) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.io.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// Kicks a queue.
    pub(crate) fn kick(&mut self, device: &mut dyn Device, queue: usize) -> Result<(), DeviceError> {
        device.queue_ready(queue, &mut self.io)
    }

    /// Kicks a queue and reports files until nothing is ready any more.
    pub(crate) fn run(&mut self, device: &mut dyn Device, queue: usize) -> Result<(), DeviceError> {
        self.kick(device, queue)?;
        while self.report(device, 0)? > 0 {}
        Ok(())
    }

    /// Reports to the device which of its files are ready, after waiting at most so many milliseconds, and says how many.
    pub(crate) fn report(&mut self, device: &mut dyn Device, milliseconds: u16) -> Result<usize, DeviceError> {
        let mut events = [EpollEvent::empty(); 8];
        let count = self.poll.wait(&mut events, EpollTimeout::from(milliseconds)).unwrap();
        for event in &events[..count] {
            device.source_ready(event.data(), Interest::of(event.events()), &mut self.io)?;
        }
        Ok(count)
    }

    /// Sends one request and gives what was answered and the length that the device has claimed.
    pub(crate) fn ask(
        &mut self,
        device: &mut dyn Device,
        queue: usize,
        buffers: &[Buffer<'_>],
    ) -> Result<(Vec<u8>, u32), DeviceError> {
        let request = self.send(queue, buffers);
        self.run(device, queue)?;
        let used = self.used(queue);
        assert_eq!(used.len(), 1, "{used:?}");
        assert_eq!(used[0].0, request.head);
        Ok((self.answer(&request), used[0].1))
    }

    /// Gives the next piece of memory for buffers, from the beginning again where there is no more.
    fn place(&mut self, length: u64) -> u64 {
        assert!(length <= END - BUFFERS);
        if self.free + length > END {
            self.free = BUFFERS;
        }
        let at = self.free;
        self.free += length.next_multiple_of(16);
        at
    }
}

pub(crate) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), END as usize), (GuestAddress(SECOND), SECOND_LENGTH)]).unwrap()
}

fn ring(index: usize, size: u16) -> Queue {
    let base = RINGS * (index as u64 + 1);
    let used = base + 16 * u64::from(size) + (6 + 2 * u64::from(size)).next_multiple_of(4);
    assert!(used + 6 + 8 * u64::from(size) <= base + RINGS && base + RINGS <= BUFFERS, "no room for queue {index}");
    let mut queue = Queue::new(size).unwrap();
    queue.set_desc_table_address(Some(base as u32), Some(0));
    queue.set_avail_ring_address(Some((base + 16 * u64::from(size)) as u32), Some(0));
    queue.set_used_ring_address(Some(used as u32), Some(0));
    queue.set_ready(true);
    queue
}

/// A pipe: its reading end and its writing end.
pub(crate) fn pipe() -> (std::fs::File, std::fs::File) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// What can be read of a file without waiting.
pub(crate) fn drain(file: &std::fs::File) -> Vec<u8> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::io::Read;
    let (mut all, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, PollTimeout::ZERO).unwrap() == 0 {
            return all;
        }
        match (&*file).read(&mut piece).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}
