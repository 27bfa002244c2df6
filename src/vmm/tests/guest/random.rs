//! The smallest device that Linux has a driver for: it fills buffers with bytes (virtio specification, 5.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sbx_vmm::virtio::{Device, DeviceError, Io};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::Bytes;

/// Fills buffers with ones and counts them.
pub(crate) struct Random {
    pub(crate) filled: Arc<AtomicUsize>,
}

impl Device for Random {
    fn kind(&self) -> u32 {
        4
    }

    fn name(&self) -> &str {
        "random"
    }

    fn features(&self) -> u64 {
        1 << 32
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        while let Some(chain) = io.queues[queue].iter(&io.memory)?.next() {
            let head = chain.head_index();
            let mut written = 0;
            for buffer in chain.writable() {
                io.memory.write_slice(&vec![1; buffer.len() as usize], buffer.addr())?;
                written += buffer.len();
            }
            io.queues[queue].add_used(&io.memory, head, written)?;
            self.filled.fetch_add(1, Ordering::SeqCst);
        }
        io.signal_used(queue)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }
}
