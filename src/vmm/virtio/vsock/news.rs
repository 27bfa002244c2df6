//! What the guest must hear after a restore: that all of its connections are gone (section 5.10.6.7).
//!
//! ```text
//! restore ─► Due ── the event is put into a buffer ─► Told ── the buffer comes back ─► Known
//! ```
//!
//! Until it is known, no connection is opened, by neither side: Linux resets every socket that it finds when it comes to
//! the event, one that was made just before as well. It makes the buffer available again when it is done with that.

use std::sync::atomic::Ordering;

use virtio_queue::QueueT;

use super::device::{EVENT, Vsock};
use crate::virtio::chain::Chain;
use crate::virtio::device::DeviceError;
use crate::virtio::io::Io;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const TRANSPORT_RESET: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Known,
    Due,
    /// With the index of the available ring at that time.
    Told(u16),
}

impl Vsock {
    /// Goes on with telling the guest, as far as the event queue lets it.
    pub(super) fn announce(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if !io.queues[EVENT].ready() {
            return Ok(());
        }
        if self.news == News::Due {
            self.tell(io)?;
        }
        if let News::Told(then) = self.news
            && is_available_beyond(then, io)?
        {
            self.news = News::Known;
            return self.watch_gates(io);
        }
        Ok(())
    }

    fn tell(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        let (queue, memory) = (&mut io.queues[EVENT], &io.memory);
        let mut chain = loop {
            if let Some(chain) = Chain::next(queue, memory)? {
                break chain;
            }
            if !queue.enable_notification(memory)? {
                return Ok(());
            }
        };
        let then = queue.avail_idx(memory, Ordering::Acquire)?.0;
        chain.writer.write_all(&TRANSPORT_RESET.to_le_bytes())?;
        chain.finish(queue, memory)?;
        self.news = News::Told(then);
        io.signal_used(EVENT)
    }
}

/// Whether the driver has made buffers available since then. If not, it will notify when it does: for that the queue must
/// believe for a moment that it has taken all there are.
fn is_available_beyond(then: u16, io: &mut Io) -> Result<bool, DeviceError> {
    let (queue, memory) = (&mut io.queues[EVENT], &io.memory);
    let next = queue.next_avail();
    queue.set_next_avail(then);
    let has_more = queue.enable_notification(memory);
    queue.set_next_avail(next);
    Ok(has_more?)
}
