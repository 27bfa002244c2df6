//! The virtio device (virtio specification 1.3, section 5.11): a queue for what must not wait, one for requests, and a
//! server that answers both.
//!
//! One thread serves a share, one request after the other: a slow disk holds up its own share and no other. What would wait
//! for somebody else, a lock, is put aside and answered when it can be had.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use virtio_queue::QueueT as _;
use vm_memory::{Bytes, GuestAddress};

use super::abi::{OutHeader, Wire};
use super::server::{Outcome, Server, Settled, Ticket};
use super::share::{Share, ShareError, TAG_MAX};
use crate::virtio::chain::{Again, Chain, RING_FEATURES};
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};

/// Sizes of the queues: for what has priority (forgetting), and for requests. A Linux driver makes its requests no longer
/// than the queue: 256 pages of data and some headers ask for 512.
const QUEUE_SIZES: [u16; 2] = [128, 512];
/// Most requests served before others (a pause, a reset) have their turn.
const TURN: usize = 64;
/// Length of the configuration space: the tag, and the number of request queues.
const CONFIG: usize = TAG_MAX + 4;

/// Longest name of a thread in bytes.
const THREAD_NAME: usize = 15;

const AGAIN: u64 = 0;
const TIMER: u64 = 1;

/// A request that waits for its answer: where that belongs.
#[derive(Debug)]
struct Pending {
    queue: usize,
    head: u16,
    room: Vec<(GuestAddress, usize)>,
}

/// A virtio-fs device.
#[derive(Debug)]
pub struct Fs {
    name: String,
    config: [u8; CONFIG],
    server: Server,
    again: Again,
    timer: TimerFd,
    pending: HashMap<Ticket, Pending>,
}

impl Fs {
    /// A device that shows a share.
    ///
    /// # Errors
    /// The share is none, or the host has no descriptor left.
    pub fn new(share: Share) -> Result<Self, ShareError> {
        let mut config = [0; CONFIG];
        let server = Server::new(share)?;
        config[..server.tag().len()].copy_from_slice(server.tag().as_bytes());
        config[TAG_MAX..].copy_from_slice(&1_u32.to_le_bytes());
        let failed = |source| ShareError::Descriptor { tag: server.tag().to_owned(), source };
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .map_err(DeviceError::host("make a timer"))
            .map_err(failed)?;
        let again = Again::new().map_err(failed)?;
        let name = format!("fs-{}", server.tag()).chars().filter(char::is_ascii).take(THREAD_NAME).collect();
        Ok(Self { name, config, server, again, timer, pending: HashMap::new() })
    }

    /// Serves what a queue has, at most [`TURN`] requests. Each answer is told of at once: the next request may
    /// take long, and the driver has better things to do than to wait for both.
    fn serve(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        if !io.queues[queue].ready() {
            return Ok(());
        }
        let memory = io.memory.clone();
        let mut budget = TURN;
        loop {
            io.queues[queue].disable_notification(&memory)?;
            while let Some(mut chain) = Chain::next(&mut io.queues[queue], &memory)? {
                match self.server.serve(&mut chain.reader, &mut chain.writer) {
                    Outcome::Done(written) => {
                        chain.finish_with(written, &mut io.queues[queue], &memory)?;
                        io.signal_used(queue)?;
                    }
                    Outcome::Waits(ticket, room) => {
                        let room = room.locate(&memory, OutHeader::SIZE);
                        self.pending.insert(ticket, Pending { queue, head: chain.head(), room });
                    }
                }
                budget -= 1;
                if budget == 0 {
                    return self.again.ask();
                }
            }
            if !io.queues[queue].enable_notification(&memory)? {
                return Ok(());
            }
        }
    }

    fn serve_all(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        (0..QUEUE_SIZES.len()).try_for_each(|queue| self.serve(queue, io))
    }

    /// Gives the answers that were waited for, and sets the timer for those that still are.
    fn settle(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        for Settled { ticket, answer } in self.server.settle(Instant::now()) {
            let Some(Pending { queue, head, room }) = self.pending.remove(&ticket) else { continue };
            let mut rest = answer.as_slice();
            for (start, length) in room {
                let (piece, behind) = rest.split_at(length.min(rest.len()));
                io.memory.write_slice(piece, start)?;
                rest = behind;
            }
            let written = (answer.len() - rest.len()) as u32;
            io.queues[queue].add_used(&io.memory, head, written)?;
            io.signal_used(queue)?;
        }
        self.set_timer()
    }

    fn set_timer(&self) -> Result<(), DeviceError> {
        let set = match self.server.next_settling(Instant::now()) {
            // A timer of zero is none.
            Some(pause) => {
                let pause = TimeSpec::from_duration(pause.max(Duration::from_micros(1)));
                self.timer.set(Expiration::OneShot(pause), TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
        set.map_err(DeviceError::host("set a timer"))
    }
}

impl Device for Fs {
    fn kind(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        crate::virtio::config_space::read(&self.config, offset, data);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.server.enter().map_err(DeviceError::host::<io::Error>("make a thread a share's own"))?;
        self.again.watch(io, AGAIN)?;
        io.watch(self.timer.as_fd(), TIMER, Interest::READ)
    }

    fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        if queue < QUEUE_SIZES.len() {
            self.serve(queue, io)?;
        }
        self.settle(io)
    }

    fn source_ready(&mut self, token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        match token {
            AGAIN => {
                self.again.hear();
                self.serve_all(io)?;
            }
            _ => {
                // Says how often it has run out, or that it was set anew in the meantime.
                let _ = self.timer.wait();
            }
        }
        self.settle(io)
    }

    fn reset(&mut self) {
        self.pending.clear();
        self.server.reset();
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        self.server.save()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        self.server.restore(state)
    }
}
