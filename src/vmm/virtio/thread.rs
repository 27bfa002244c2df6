//! A device's thread: waits for its queues, for the files that the device watches, and for orders of the transport.
//!
//! ```text
//!            activate                     the device fails
//!   idle ───────────────▶ running ───────────────────────────▶ failed
//!    ▲  ◀─────────────────   │ ▲                                  │
//!    │        reset    pause │ │ resume                           │
//!    │                       ▼ │                                  │
//!    │                      paused                                │
//!    └────────────────────────────────────────────────────────────┘ reset
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::error::{Error, Result};
use crate::log::Log;
use crate::sys::borrow;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{FIRST_OWN_TOKEN, INTERRUPT_CONFIG, Interest, Interrupt, Io};
use crate::virtio::queues::Progress;
use crate::virtio::registers::{NEEDS_RESET, STATUS};

const ORDERS: u64 = u64::MAX;
/// Files whose readiness is learned at once.
const BATCH: usize = 32;

/// What the thread and the transport share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) device: Mutex<Box<dyn Device>>,
    pub(super) interrupt: Interrupt,
    /// The device cannot go on: `DEVICE_NEEDS_RESET`.
    pub(super) failed: AtomicBool,
    pub(super) log: Log,
}

impl Shared {
    pub(super) fn device(&self) -> MutexGuard<'_, Box<dyn Device>> {
        // A panic in a device ends the machine; until then its last state is as good as any.
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device cannot go on. Tells owner and driver.
    pub(super) fn fail(&self, error: &DeviceError) {
        self.failed.store(true, Ordering::SeqCst);
        self.interrupt.page().write().add(STATUS, NEEDS_RESET);
        self.log.say(&format!("device {} needs a reset: {error}", self.name));
        if let Err(error) = self.interrupt.raise(INTERRUPT_CONFIG) {
            self.log.say(&format!("device {}: {error}", self.name));
        }
    }
}

/// A driver's wish to use the device.
pub(super) struct Activation {
    pub(super) queues: Vec<Queue>,
    pub(super) features: u64,
    /// The machine was restored: nobody will tell of buffers that were made available before.
    pub(super) restored: bool,
}

enum Order {
    Activate(Activation),
    Reset(SyncSender<()>),
    Pause(SyncSender<Vec<Progress>>),
    Resume,
    Stop,
}

/// The transport's end of the thread.
pub(super) struct Orders {
    sender: Sender<Order>,
    wake: EventFd,
}

impl Orders {
    pub(super) fn activate(&self, activation: Activation) -> Result<()> {
        self.send(Order::Activate(activation))
    }

    /// Comes back when the thread has let go of queues and files and the device is reset.
    pub(super) fn reset(&self) -> Result<()> {
        let (reply, answer) = sync_channel(1);
        self.send(Order::Reset(reply))?;
        answer.recv().map_err(|_| gone())
    }

    /// Comes back when the thread stands still, with how far the queues are worked off (empty where it is idle).
    pub(super) fn pause(&self) -> Result<Vec<Progress>> {
        let (reply, answer) = sync_channel(1);
        self.send(Order::Pause(reply))?;
        answer.recv().map_err(|_| gone())
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.send(Order::Resume)
    }

    pub(super) fn stop(&self) -> Result<()> {
        self.send(Order::Stop)
    }

    fn send(&self, order: Order) -> Result<()> {
        self.sender.send(order).map_err(|_| gone())?;
        self.wake.write(1).map_err(Error::host("wake a device's thread"))
    }
}

fn gone() -> Error {
    Error::Config("a device's thread has ended".into())
}

/// A device's thread before it runs.
pub struct Worker {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    wake: EventFd,
    kicks: Vec<EventFd>,
    memory: GuestMemoryMmap,
    running: Option<Running>,
}

struct Running {
    io: Io,
    poll: Arc<Epoll>,
}

/// What a thread does after a round.
enum Next {
    Continue,
    Stop,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, kicks: Vec<EventFd>, memory: GuestMemoryMmap) -> Result<(Self, Orders)> {
        let (sender, orders) = channel();
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
        let wake = event.try_clone().map_err(Error::host("make an eventfd"))?;
        Ok((Self { shared, orders, wake: event, kicks, memory, running: None }, Orders { sender, wake }))
    }

    /// Name for the thread.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Kind of the device, as [`Device::kind`] says.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.shared.device().kind()
    }

    /// The thread's body. Ends when it is told to, or with what a panic said.
    pub fn run(mut self) -> std::result::Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| self.rounds())).map_err(|panic| panic_text(panic.as_ref()))
    }

    fn rounds(&mut self) {
        loop {
            let next = match self.running.take() {
                None => self.idle(),
                Some(running) => self.work(running),
            };
            if matches!(next, Next::Stop) {
                return;
            }
        }
    }

    /// Waits for an order and obeys it.
    fn idle(&mut self) -> Next {
        // The transport is gone where nobody can send any more: then nothing is left to do.
        let Ok(order) = self.orders.recv() else { return Next::Stop };
        self.obey(order, None)
    }

    /// One round of a running device: wait, and handle what is ready.
    fn work(&mut self, mut running: Running) -> Next {
        let mut events = [EpollEvent::empty(); BATCH];
        let count = match running.poll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return self.give_up(&DeviceError::Host { step: "wait for a device", source: error.into() }),
        };
        if events[..count].iter().any(|event| event.data() == ORDERS) {
            // Counts do not matter: the channel knows what there is to do.
            let _count = self.wake.read();
            if let Ok(order) = self.orders.try_recv() {
                let next = self.obey(order, Some(running));
                // More orders may lie behind this one; the next round must see them.
                let _full = self.wake.write(1);
                return next;
            }
        }
        for event in &events[..count] {
            if let Err(error) = self.handle(*event, &mut running.io) {
                return self.give_up(&error);
            }
            if running.io.take_changed() {
                break;
            }
        }
        self.running = Some(running);
        Next::Continue
    }

    fn handle(&self, event: EpollEvent, io: &mut Io) -> std::result::Result<(), DeviceError> {
        let token = event.data();
        if token < FIRST_OWN_TOKEN {
            return self.shared.device().source_ready(token, Interest::of(event.events()), io);
        }
        let queue = (token - FIRST_OWN_TOKEN) as usize;
        let Some(kick) = self.kicks.get(queue) else { return Ok(()) };
        // How often it was kicked does not matter, and another kick from here on is another event.
        let _count = kick.read();
        self.kicked(queue, io)
    }

    fn kicked(&self, queue: usize, io: &mut Io) -> std::result::Result<(), DeviceError> {
        if io.queues[queue].ready() { self.shared.device().queue_ready(queue, io) } else { Ok(()) }
    }

    fn give_up(&mut self, error: &DeviceError) -> Next {
        self.shared.fail(error);
        Next::Continue
    }

    fn obey(&mut self, order: Order, running: Option<Running>) -> Next {
        match order {
            Order::Activate(activation) => match self.activate(activation) {
                Ok(running) => self.running = Some(running),
                Err(error) => self.shared.fail(&error),
            },
            Order::Reset(reply) => {
                drop(running);
                self.shared.device().reset();
                // Whoever asked may be gone with the machine.
                let _gone = reply.send(());
            }
            Order::Pause(reply) => {
                let queues = running.as_ref().map(|running| running.io.queues.iter().map(Progress::of).collect());
                let _gone = reply.send(queues.unwrap_or_default());
                return self.paused(running);
            }
            Order::Resume => self.running = running,
            Order::Stop => return Next::Stop,
        }
        Next::Continue
    }

    /// Stands still until it is told to go on. Whatever else is ordered waits.
    fn paused(&mut self, running: Option<Running>) -> Next {
        self.running = running;
        loop {
            match self.orders.recv() {
                Ok(Order::Resume) => return Next::Continue,
                Ok(Order::Stop) | Err(_) => return Next::Stop,
                Ok(order) => {
                    let running = self.running.take();
                    self.obey(order, running);
                }
            }
        }
    }

    fn activate(&self, activation: Activation) -> std::result::Result<Running, DeviceError> {
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(DeviceError::host("make an epoll"))?;
        let watch = |file: &EventFd, token: u64| {
            poll.add(borrow(file), EpollEvent::new(EpollFlags::EPOLLIN, token))
                .map_err(DeviceError::host("watch a queue"))
        };
        watch(&self.wake, ORDERS)?;
        for (index, kick) in self.kicks.iter().enumerate() {
            watch(kick, FIRST_OWN_TOKEN + index as u64)?;
        }
        let poll = Arc::new(poll);
        let Activation { queues, features, restored } = activation;
        let count = queues.len();
        let mut io = Io::new(self.memory.clone(), queues, features, self.shared.interrupt.clone(), poll.clone());
        self.shared.device().start(&mut io)?;
        if restored {
            (0..count).try_for_each(|queue| self.kicked(queue, &mut io))?;
        }
        Ok(Running { io, poll })
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "nothing".into())
}
