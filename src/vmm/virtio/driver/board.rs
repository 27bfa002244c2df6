//! For tests: a driver as strict as Linux is (`drivers/virtio/virtio_ring.c`), for devices that speak of themselves. With
//! `VIRTIO_F_EVENT_IDX` it notifies the device only where the device has asked for it, and asks to be interrupted at the
//! next used buffer, so that a device that forgets to ask, or to interrupt, stands still here too. It uses descriptors again
//! in the order in which they come back, and sees a device that is called again and again for nothing.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Interrupt, Io};

/// A piece of memory in a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) writable: bool,
}

impl Piece {
    pub(crate) fn readable(address: u64, length: usize) -> Self {
        Self { address, length: length as u32, writable: false }
    }

    pub(crate) fn writable(address: u64, length: usize) -> Self {
        Self { address, length: length as u32, writable: true }
    }
}

/// The driver's side of a queue.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: GuestMemoryMmap,
    descriptors: u64,
    available: u64,
    used: u64,
    size: u16,
    event_idx: bool,
    pub(crate) next_available: u16,
    next_used: u16,
    kicked_at: u16,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
}

impl Ring {
    /// Bytes that a ring of `size` takes.
    pub(crate) fn bytes(size: u16) -> u64 {
        (u64::from(size) * 26 + 64).next_multiple_of(4096)
    }

    fn new(memory: &GuestMemoryMmap, at: u64, size: u16, event_idx: bool) -> Self {
        let available = at + u64::from(size) * 16;
        Self {
            memory: memory.clone(),
            descriptors: at,
            available,
            used: (available + 6 + 2 * u64::from(size)).next_multiple_of(8),
            size,
            event_idx,
            next_available: 0,
            next_used: 0,
            kicked_at: 0,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
        }
    }

    /// The device's side, as the transport makes it.
    fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_desc_table_address(Some(self.descriptors as u32), Some(0));
        queue.set_avail_ring_address(Some(self.available as u32), Some(0));
        queue.set_used_ring_address(Some(self.used as u32), Some(0));
        queue.set_event_idx(self.event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        queue
    }

    /// Descriptors that are in no chain.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Makes a chain available, and says its head.
    pub(crate) fn offer(&mut self, pieces: &[Piece]) -> u16 {
        let chain: Vec<u16> = pieces.iter().map(|_| self.free.pop().expect("no descriptor is free")).collect();
        for (place, piece) in pieces.iter().enumerate() {
            let next = chain.get(place + 1).copied();
            let write = if piece.writable { VRING_DESC_F_WRITE } else { 0 };
            let flags = write | next.map_or(0, |_| VRING_DESC_F_NEXT);
            self.write_descriptor(chain[place], piece.address, piece.length, (flags as u16, next.unwrap_or(0)));
        }
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        self.offer_head(head);
        head
    }

    /// Writes one descriptor, whatever it says.
    pub(crate) fn write_descriptor(&self, index: u16, address: u64, length: u32, (flags, next): (u16, u16)) {
        let at = GuestAddress(self.descriptors + u64::from(index) * 16);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// Makes a head available, whatever it is.
    pub(crate) fn offer_head(&mut self, head: u16) {
        let place = u64::from(self.next_available % self.size);
        self.memory.write_obj(head.to_le(), GuestAddress(self.available + 4 + 2 * place)).unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        self.write_index(self.next_available);
    }

    /// Writes the index of the available ring, whatever it is.
    pub(crate) fn write_index(&self, index: u16) {
        self.memory.store(index.to_le(), GuestAddress(self.available + 2), Ordering::Release).unwrap();
    }

    /// Whether the device wants to be told of what was made available since this was asked last.
    fn wants_kick(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let (old, new) = (self.kicked_at, self.next_available);
        self.kicked_at = new;
        if !self.event_idx {
            let flags: u16 = self.memory.load(GuestAddress(self.used), Ordering::Acquire).unwrap();
            return flags & 1 == 0;
        }
        let event: u16 = self.read(self.used + 4 + 8 * u64::from(self.size));
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// The next chain that the device has used: its head and how much was written.
    pub(crate) fn take_used(&mut self) -> Option<(u16, usize)> {
        let index: u16 = self.read(self.used + 2);
        if index == self.next_used {
            return None;
        }
        let at = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        // used_event: interrupt me at the next one.
        let event = GuestAddress(self.available + 4 + 2 * u64::from(self.size));
        self.memory.store(self.next_used.to_le(), event, Ordering::Release).unwrap();
        let (head, length): (u32, u32) = (self.read(at), self.read(at + 4));
        let chain = std::mem::take(&mut self.chains[head as usize]);
        assert!(!chain.is_empty(), "the device has used descriptor {head}, which was not available");
        self.free.extend(chain);
        Some((head as u16, length as usize))
    }

    fn read<T: vm_memory::ByteValued + vm_memory::AtomicAccess>(&self, at: u64) -> T {
        self.memory.load(GuestAddress(at), Ordering::Acquire).unwrap()
    }
}

/// A device with its queues, in the hands of a test.
pub(crate) struct Board<D: Device> {
    pub(crate) device: D,
    pub(crate) io: Io,
    pub(crate) rings: Vec<Ring>,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) interrupt: Interrupt,
    poll: Arc<Epoll>,
}

/// Most calls of a device for one cause. One that is called more often than this spins.
const MOST_ROUNDS: usize = 20_000;

impl<D: Device> Board<D> {
    /// Sets the device up as a driver that takes every feature, with `room` bytes of memory behind the rings.
    pub(crate) fn new(device: D, room: u64) -> Self {
        let features = device.features();
        Self::with_features(device, room, features)
    }

    pub(crate) fn with_features(device: D, room: u64, features: u64) -> Self {
        let rings: u64 = device.queue_sizes().iter().map(|size| Ring::bytes(*size)).sum();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), (rings + room) as usize)]).unwrap();
        let mut board = Self::idle(device, memory, features);
        board.device.start(&mut board.io).unwrap();
        board
    }

    fn idle(device: D, memory: GuestMemoryMmap, features: u64) -> Self {
        let event_idx = features & 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX != 0;
        let mut at = 0;
        let mut rings = Vec::new();
        for size in device.queue_sizes() {
            rings.push(Ring::new(&memory, at, *size, event_idx));
            at += Ring::bytes(*size);
        }
        let queues = rings.iter().map(Ring::queue).collect();
        let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap()).unwrap();
        let poll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let io = Io::new(memory.clone(), queues, features, interrupt.clone(), poll.clone());
        Self { device, io, rings, memory, interrupt, poll }
    }

    /// The same machine with another device in its place, which goes on with the queues: what a restore does.
    pub(crate) fn replace(self, device: D) -> Self {
        let features = self.io.features;
        let mut new = Self::idle(device, self.memory, features);
        new.rings = self.rings;
        new.io.queues = self.io.queues;
        new.device.start(&mut new.io).unwrap();
        for queue in 0..new.rings.len() {
            new.device.queue_ready(queue, &mut new.io).unwrap();
        }
        new
    }

    /// A driver that begins anew: the device is reset and set up again.
    pub(crate) fn reset(self) -> Self {
        let (mut device, memory, features) = (self.device, self.memory.clone(), self.io.features);
        drop(self.io);
        device.reset();
        let size = vm_memory::GuestMemoryBackend::last_addr(&memory).0 as usize + 1;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
        let mut new = Self::idle(device, memory, features);
        new.device.start(&mut new.io).unwrap();
        new
    }

    /// First address behind the rings.
    pub(crate) fn free_memory(&self) -> u64 {
        self.rings.iter().map(|ring| Ring::bytes(ring.size)).sum()
    }

    /// Tells the device of new buffers, where it has asked for that.
    pub(crate) fn kick(&mut self, queue: usize) -> Result<(), DeviceError> {
        if self.rings[queue].wants_kick() { self.device.queue_ready(queue, &mut self.io) } else { Ok(()) }
    }

    /// Lets the device work until nothing more happens of itself.
    ///
    /// # Panics
    /// Where it does not come to rest: it is called again and again for something that it does not handle.
    pub(crate) fn run(&mut self) -> Result<(), DeviceError> {
        for _ in 0..MOST_ROUNDS {
            let mut events = [EpollEvent::empty(); 32];
            let count = self.poll.wait(&mut events, EpollTimeout::ZERO).unwrap();
            if count == 0 {
                return Ok(());
            }
            for event in &events[..count] {
                self.device.source_ready(event.data(), Interest::of(event.events()), &mut self.io)?;
                if self.io.take_changed() {
                    break;
                }
            }
        }
        panic!("the device does not come to rest");
    }

    /// Whether the device has interrupted since this was asked last.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupt.line().read().is_ok()
    }

    pub(crate) fn write(&self, bytes: &[u8], at: u64) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(crate) fn read(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

/// Whether a descriptor can be read now.
pub(crate) fn is_readable(file: impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut files, PollTimeout::ZERO).unwrap() == 1
}
