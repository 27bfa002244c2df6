//! What threads of the machine tell its main thread, which waits for it together with its sockets.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::error::{Error, Result};
use crate::machine::Exit;
use crate::machine::maker::Made;

/// News of a thread.
pub(super) enum Event {
    /// A vCPU saw the machine's end.
    Ended(Exit),
    /// A vCPU cannot go on, for a reason that is not the guest's.
    Failed(Error),
    /// A device that was ordered is there, or cannot be made.
    Made(Made),
}

/// The news, in order.
pub(super) struct Events {
    queue: Mutex<VecDeque<Event>>,
    wake: EventFd,
}

impl Events {
    pub(super) fn new() -> Result<Self> {
        let wake = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
        Ok(Self { queue: Mutex::default(), wake })
    }

    /// Readable when there are news.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    pub(super) fn push(&self, event: Event) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        // Fails only where it was written 2^64 - 2 times without being read.
        let _full = self.wake.write(1);
    }

    pub(super) fn pop(&self) -> Option<Event> {
        let _count = self.wake.read();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
