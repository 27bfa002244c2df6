//! The thread that makes devices while the guest runs. The main thread may not any more: it is confined, and a device needs
//! timers, events and a thread; so this one, which is confined to that, waits for orders from before the guest's start on.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::confine::{Role, Threads};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::machine::STACK;
use crate::machine::events::{Event, Events};
use crate::machine::run::{confine, start_device};
use crate::virtio::thread::panic_text;
use crate::virtio::{Device, Transport};

/// Makes a device out of a description (see [`super::Remote::plug`]) and the descriptors that came with it, or says why not.
/// It is called on a confined thread ([`Role::Maker`]): it opens nothing by name but below directories that it was given.
pub type Maker = Box<dyn Fn(&[u8], Vec<OwnedFd>) -> std::result::Result<Box<dyn Device>, String> + Send>;

/// What is to be made.
pub(super) struct Job {
    /// For whom.
    pub(super) party: u64,
    pub(super) description: Vec<u8>,
    pub(super) files: Vec<OwnedFd>,
}

/// What was made.
pub(super) struct Made {
    /// For whom.
    pub(super) party: u64,
    pub(super) device: Result<NewDevice>,
}

/// A device with its thread, which waits for a driver.
pub(super) struct NewDevice {
    pub(super) transport: Arc<Transport>,
    pub(super) thread: JoinHandle<()>,
}

impl NewDevice {
    /// Ends the thread, and waits for that. No guest may reach the device any more.
    pub(super) fn end(self) {
        // It has ended already after a panic, which was caught and told.
        let _ended = self.transport.stop();
        let _told = self.thread.join();
    }
}

/// What new devices are made with.
pub(super) struct Materials {
    pub(super) memory: GuestMemoryMmap,
    pub(super) log: Log,
    pub(super) events: Arc<Events>,
    pub(super) threads: Option<Threads>,
}

/// The thread, as the main one has it.
pub(super) struct Workshop {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
    confined: Receiver<Result<()>>,
    /// Jobs that are not done.
    open: usize,
}

impl Workshop {
    /// Starts the thread, without waiting for it.
    pub(super) fn start(maker: Maker, materials: Materials) -> Result<Self> {
        let (jobs, ordered) = channel();
        let (reply, confined) = sync_channel(1);
        let body = move || {
            let entered = confine(materials.threads.as_ref(), Role::Maker);
            let stop = entered.is_err();
            // Who waits for it holds the other end.
            let _held = reply.send(entered);
            if !stop {
                work(&maker, &materials, &ordered);
            }
        };
        let step = "start the thread that makes devices";
        let thread = thread::Builder::new().name("maker".into()).stack_size(STACK).spawn(body);
        Ok(Self { jobs, thread: thread.map_err(Error::host(step))?, confined, open: 0 })
    }

    /// Comes back when the thread is confined.
    pub(super) fn wait_confined(&self) -> Result<()> {
        self.confined.recv().map_err(|_| gone())?
    }

    /// Orders a device. It comes as [`Event::Made`].
    pub(super) fn order(&mut self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| gone())?;
        self.open += 1;
        Ok(())
    }

    /// A device that was ordered has come.
    pub(super) fn delivered(&mut self) {
        self.open -= 1;
    }

    /// Ends the thread. One that is making a device, which may wait for a file, is left alone.
    pub(super) fn end(self) {
        drop(self.jobs);
        if self.open == 0 {
            // A panic while it makes devices was caught.
            let _told = self.thread.join();
        }
    }
}

fn gone() -> Error {
    Error::Panic { thread: "maker".into(), message: "it has ended".into() }
}

fn work(maker: &Maker, materials: &Materials, jobs: &Receiver<Job>) {
    for Job { party, description, files } in jobs {
        let made = catch_unwind(AssertUnwindSafe(|| make(maker, materials, &description, files)));
        let message = |panic: Box<dyn std::any::Any + Send>| panic_text(panic.as_ref());
        let device = made.unwrap_or_else(|panic| Err(Error::Panic { thread: "maker".into(), message: message(panic) }));
        materials.events.push(Event::Made(Made { party, device }));
    }
}

fn make(maker: &Maker, materials: &Materials, description: &[u8], files: Vec<OwnedFd>) -> Result<NewDevice> {
    let device = maker(description, files).map_err(Error::Config)?;
    let line = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
    let (transport, worker) = Transport::new(device, &materials.memory, line, &materials.log)?;
    let thread = start_device(worker, &materials.events, materials.threads.clone())?;
    Ok(NewDevice { transport, thread })
}
