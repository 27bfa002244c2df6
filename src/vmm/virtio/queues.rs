//! Where a driver wants its queues: written register by register, checked here and nowhere else, and only then a queue.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::GuestMemoryMmap;

/// What the driver has written about a queue; nothing of it is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueSetup {
    /// Number of descriptors.
    pub(super) size: u32,
    /// The driver says that the rest is written.
    pub(super) ready: bool,
    /// Address of the descriptor table.
    pub(super) descriptors: u64,
    /// Address of the driver's ring.
    pub(super) driver: u64,
    /// Address of the device's ring.
    pub(super) device: u64,
}

/// How far a queue is worked off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Next entry of the driver's ring.
    pub(super) next_avail: u16,
    /// Next entry of the device's ring.
    pub(super) next_used: u16,
}

impl Progress {
    pub(super) fn of(queue: &Queue) -> Self {
        Self { next_avail: queue.next_avail(), next_used: queue.next_used() }
    }
}

impl QueueSetup {
    /// A queue with no more than `max` descriptors, all of it in the guest's memory. One that is not ready stays so.
    pub(super) fn queue(
        &self,
        max: u16,
        progress: Progress,
        event_idx: bool,
        memory: &GuestMemoryMmap,
    ) -> Result<Queue, String> {
        if !self.ready {
            return Queue::new(max).map_err(|error| error.to_string());
        }
        let size = u16::try_from(self.size).map_err(|_| format!("a size of {}", self.size))?;
        let state = QueueState {
            max_size: max,
            next_avail: progress.next_avail,
            next_used: progress.next_used,
            event_idx_enabled: event_idx,
            size,
            ready: true,
            desc_table: self.descriptors,
            avail_ring: self.driver,
            used_ring: self.device,
        };
        let queue = Queue::try_from(state).map_err(|error| format!("{error} (size {size}, at most {max})"))?;
        if queue.is_valid(memory) {
            Ok(queue)
        } else {
            Err(format!(
                "its rings at {:#x}, {:#x} and {:#x} with {size} entries are not all in memory",
                self.descriptors, self.driver, self.device
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use virtio_queue::QueueT;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::{Progress, QueueSetup};

    const GOOD: QueueSetup = QueueSetup { size: 16, ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };

    fn check(setup: QueueSetup) -> Result<virtio_queue::Queue, String> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        setup.queue(64, Progress { next_avail: 5, next_used: 4 }, true, &memory)
    }

    #[test]
    fn a_good_queue_goes_on_where_it_was() {
        let queue = check(GOOD).unwrap();
        assert_eq!((queue.size(), queue.next_avail(), queue.next_used()), (16, 5, 4));
        assert!(queue.ready() && queue.event_idx_enabled());
        assert!(!check(QueueSetup::default()).unwrap().ready());
    }

    #[test]
    fn what_the_driver_must_not_write_is_refused() {
        let bad = [
            QueueSetup { size: 0, ..GOOD },
            QueueSetup { size: 17, ..GOOD },
            QueueSetup { size: 128, ..GOOD },
            QueueSetup { size: 1 << 16, ..GOOD },
            QueueSetup { descriptors: 0x1008, ..GOOD },
            QueueSetup { driver: 0x2001, ..GOOD },
            QueueSetup { device: 0x3002, ..GOOD },
            QueueSetup { descriptors: 0xfff0, ..GOOD },
            QueueSetup { driver: u64::MAX - 1, ..GOOD },
            QueueSetup { device: 0x1_0000, ..GOOD },
        ];
        for setup in bad {
            assert!(check(setup).is_err(), "{setup:?}");
        }
    }
}
