//! What a running device works with: the guest's memory, its queues, the way to interrupt, and the files it watches.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::error::{self, Error};
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::page::{CONFIG_BYTES, RegisterPage};
use crate::virtio::registers::{CONFIG_GENERATION, INTERRUPT_STATUS};

/// Flag of the available ring: the driver wants no interrupts.
const NO_INTERRUPT: u16 = VRING_AVAIL_F_NO_INTERRUPT as u16;

/// Bit of `InterruptStatus`: a used buffer (virtio specification 4.2.2).
pub const INTERRUPT_USED: u32 = 1;
/// Bit of `InterruptStatus`: the configuration has changed.
pub const INTERRUPT_CONFIG: u32 = 2;

/// The interrupt line of a device, the reasons it was raised for, and the page that shows them, shared with the transport.
///
/// Where KVM swallows what the driver acknowledges, it is only counted. Then the reason "a used buffer" stays until a reset:
/// a driver only reads the reasons when the line was raised, and looks at its queues, where there is something or nothing.
/// "The configuration has changed" goes when the driver has acknowledged twice after it was shown, since the first may have
/// been of what was read before.
#[derive(Clone, Debug)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    generation: Arc<AtomicU32>,
    line: Arc<EventFd>,
    page: Arc<RegisterPage>,
    acknowledged: Arc<EventFd>,
    /// How often, since the configuration has changed for the last time.
    times: Arc<AtomicU64>,
}

impl Interrupt {
    /// An interrupt that writes to `line`, which KVM turns into an interrupt of the guest (`KVM_IRQFD`).
    pub fn new(line: EventFd) -> error::Result<Self> {
        let acknowledged = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
        Ok(Self {
            status: Arc::default(),
            generation: Arc::default(),
            line: Arc::new(line),
            page: Arc::new(RegisterPage::new()?),
            acknowledged: Arc::new(acknowledged),
            times: Arc::default(),
        })
    }

    /// The eventfd that stands for the line.
    #[must_use]
    pub fn line(&self) -> &EventFd {
        &self.line
    }

    /// The registers as the guest can read them.
    #[must_use]
    pub fn page(&self) -> &RegisterPage {
        &self.page
    }

    /// Counts writes to the register `InterruptACK`, where KVM does not bring them to the transport.
    #[must_use]
    pub fn acknowledgements(&self) -> &EventFd {
        &self.acknowledged
    }

    /// The reasons not acknowledged yet.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// The driver has acknowledged these reasons.
    pub fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::SeqCst);
        self.show();
    }

    /// How often the configuration has changed: the register `ConfigGeneration`, by which a driver sees that what it read
    /// piece by piece belongs together.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Raises the line for these reasons.
    pub fn raise(&self, reasons: u32) -> Result<(), DeviceError> {
        let before = self.status.fetch_or(reasons, Ordering::SeqCst);
        let mut changed = before | reasons != before;
        if reasons & INTERRUPT_CONFIG != 0 {
            self.generation.fetch_add(1, Ordering::SeqCst);
            changed = true;
        } else if before & INTERRUPT_CONFIG != 0 && self.times_acknowledged() > 1 {
            self.status.fetch_and(!INTERRUPT_CONFIG, Ordering::SeqCst);
            changed = true;
        }
        if changed {
            self.show();
        }
        if reasons & INTERRUPT_CONFIG != 0 {
            // Counted from when the reason can be read.
            self.times_acknowledged();
            self.times.store(0, Ordering::SeqCst);
        }
        self.line.write(1).map_err(DeviceError::host("raise an interrupt"))
    }

    fn times_acknowledged(&self) -> u64 {
        // Nothing to read: not once.
        let more = self.acknowledged.read().unwrap_or(0);
        self.times.fetch_add(more, Ordering::SeqCst) + more
    }

    fn show(&self) {
        let page = self.page.write();
        page.set(INTERRUPT_STATUS, self.status());
        page.set(CONFIG_GENERATION, self.generation());
    }
}

/// What of a file a device waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bytes, a connection or the end can be read.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
    /// The other side is gone or the file failed. Always reported, never asked for.
    pub closed: bool,
}

impl Interest {
    /// Only reading.
    pub const READ: Self = Self { readable: true, writable: false, closed: false };
    /// Only writing.
    pub const WRITE: Self = Self { readable: false, writable: true, closed: false };

    /// As epoll(7) says it.
    #[must_use]
    pub fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.readable);
        flags.set(EpollFlags::EPOLLOUT, self.writable);
        flags
    }

    /// What epoll(7) has reported.
    #[must_use]
    pub fn of(flags: EpollFlags) -> Self {
        Self {
            readable: flags.contains(EpollFlags::EPOLLIN),
            writable: flags.contains(EpollFlags::EPOLLOUT),
            closed: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
        }
    }
}

/// First epoll token that is not a device's: the device's thread uses those from here for queues and control.
pub const FIRST_OWN_TOKEN: u64 = 1 << 63;

/// What a running device works with.
#[derive(Debug)]
pub struct Io {
    /// The guest's memory.
    pub memory: GuestMemoryMmap,
    /// Its queues, in the order of [`crate::virtio::Device::queue_sizes`].
    pub queues: Vec<Queue>,
    /// The features that driver and device have agreed on.
    pub features: u64,
    interrupt: Interrupt,
    poll: Arc<Epoll>,
    /// For each queue, how many buffers it had used when the driver was told last, or could have been.
    told: Vec<u16>,
    /// What is watched has changed, so that readiness that was reported before may be of a file that is gone.
    changed: Cell<bool>,
}

impl Io {
    /// For the device's thread, and for tests that play the driver.
    #[must_use]
    pub fn new(
        memory: GuestMemoryMmap,
        queues: Vec<Queue>,
        features: u64,
        interrupt: Interrupt,
        poll: Arc<Epoll>,
    ) -> Self {
        let told = queues.iter().map(QueueT::next_used).collect();
        Self { memory, queues, features, interrupt, poll, told, changed: Cell::new(false) }
    }

    /// Tells the driver that buffers of the queue were used, if there are new ones, unless it has asked not to be told
    /// (section 2.7.10). Not `Queue::needs_notification`: that counts what went through `Queue::add_used` alone, not
    /// buffers given back together, and does not know the flag of drivers without `VIRTIO_F_EVENT_IDX`.
    pub fn signal_used(&mut self, queue: usize) -> Result<(), DeviceError> {
        let (old, new) = (self.told[queue], self.queues[queue].next_used());
        self.told[queue] = new;
        if new != old && self.wants_interrupt(&self.queues[queue], old)? {
            self.interrupt.raise(INTERRUPT_USED)?;
        }
        Ok(())
    }

    fn wants_interrupt(&self, queue: &Queue, old: u16) -> Result<bool, DeviceError> {
        let ring = GuestAddress(queue.avail_ring());
        // The driver writes its wish, then looks at the used ring: here it is the other way round.
        fence(Ordering::SeqCst);
        if !queue.event_idx_enabled() {
            let flags = u16::from_le(self.memory.load(ring, Ordering::Relaxed)?);
            return Ok(flags & NO_INTERRUPT == 0);
        }
        let at = ring.checked_add(4 + 2 * u64::from(queue.size())).ok_or(virtio_queue::Error::AddressOverflow)?;
        let event = u16::from_le(self.memory.load(at, Ordering::Relaxed)?);
        let new = queue.next_used();
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// Tells the driver that the configuration space of `device` has changed, and shows it.
    pub fn signal_config(&self, device: &dyn Device) -> Result<(), DeviceError> {
        let mut space = [0; CONFIG_BYTES];
        device.read_config(0, &mut space);
        self.interrupt.page.write().set_config(&space);
        self.interrupt.raise(INTERRUPT_CONFIG)
    }

    /// Watches a file (level triggered); its readiness comes to [`crate::virtio::Device::source_ready`] with the token,
    /// which must be less than [`FIRST_OWN_TOKEN`].
    pub fn watch(&self, file: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), DeviceError> {
        debug_assert!(token < FIRST_OWN_TOKEN);
        self.poll.add(file, EpollEvent::new(interest.flags(), token)).map_err(watching)
    }

    /// Changes what of a watched file is waited for.
    pub fn rewatch(&self, file: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), DeviceError> {
        self.changed.set(true);
        self.poll.modify(file, &mut EpollEvent::new(interest.flags(), token)).map_err(watching)
    }

    /// Stops watching a file. Must come before the last descriptor of it is closed.
    pub fn unwatch(&self, file: BorrowedFd<'_>) -> Result<(), DeviceError> {
        self.changed.set(true);
        self.poll.delete(file).map_err(watching)
    }

    /// For the device's thread: whether something was unwatched or changed since the last time it asked.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.take()
    }
}

fn watching(error: nix::Error) -> DeviceError {
    DeviceError::Host { step: "watch a file", source: io::Error::from(error) }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::{INTERRUPT_CONFIG, INTERRUPT_USED, Interrupt};
    use crate::virtio::registers::INTERRUPT_STATUS;

    #[test]
    fn a_changed_configuration_is_shown_until_it_was_seen_for_sure() {
        let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap()).unwrap();
        let raise = |reason| {
            interrupt.raise(reason).unwrap();
            assert_eq!(interrupt.page().get(INTERRUPT_STATUS), interrupt.status());
            interrupt.status()
        };
        assert_eq!(raise(INTERRUPT_USED), INTERRUPT_USED);
        // KVM counts for us from here on.
        interrupt.acknowledgements().write(5).unwrap();
        let both = INTERRUPT_USED | INTERRUPT_CONFIG;
        assert_eq!(raise(INTERRUPT_CONFIG), both);
        assert_eq!(raise(INTERRUPT_USED), both, "what came before does not count");
        interrupt.acknowledgements().write(1).unwrap();
        assert_eq!(raise(INTERRUPT_USED), both, "it may have been of what was read before");
        interrupt.acknowledgements().write(1).unwrap();
        assert_eq!(raise(INTERRUPT_USED), INTERRUPT_USED);
        assert_eq!(raise(INTERRUPT_CONFIG), both, "another change");
    }
}
