//! For tests: a driver that does everything that it must not, again and again, to any device.
//!
//! `SBX_HOSTILE_OPERATIONS` says how many operations each device has to bear (a short run without it), `SBX_HOSTILE_SEED`
//! where the random numbers begin; a failure names both numbers, and the same two bring it back:
//!
//! ```text
//! SBX_HOSTILE_OPERATIONS=10000000 cargo test --release -p sbx-vmm hostile
//! ```
//!
//! A test for another device is a few lines:
//!
//! ```ignore
//! #[test]
//! fn a_hostile_driver_does_no_harm() {
//!     attack(&Hostile { requests: &[(0, &header)], ..Hostile::default() }, || Box::new(MyDevice::new(...).unwrap()));
//! }
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use virtio_bindings::virtio_ring::VRING_DESC_F_INDIRECT;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BUFFERS, Driver, END, NEXT, SECOND, WRITE, memory, sys};
use crate::virtio::chain::RING_FEATURES;
use crate::virtio::{Device, DeviceError};

const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// Operations of a device in a normal run of the tests.
const SHORT: u64 = 20_000;
/// A device that works on one operation for so long hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// What a test knows about a device, so that the attack gets past its front door.
pub(crate) struct Hostile<'a> {
    /// Beginnings of requests that the device understands, with the queue they go to. They are sent as they are, changed, cut.
    pub(crate) requests: &'a [(usize, &'a [u8])],
    /// The host's side of the device, if it has one: called now and then with a random number.
    pub(crate) host: &'a dyn Fn(u64),
    /// The most memory that the device may hold at once, in bytes, with that of the attack (less than 1 MiB).
    pub(crate) most_memory: usize,
}

impl Default for Hostile<'_> {
    fn default() -> Self {
        Self { requests: &[], host: &|_| {}, most_memory: 8 << 20 }
    }
}

/// Random numbers that a seed brings back (xorshift64*, Vigna 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Attacks the devices that `make` makes, all the same: a state saved by one is given to the next.
pub(crate) fn attack(hostile: &Hostile<'_>, mut make: impl FnMut() -> Box<dyn Device>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let operations = number("SBX_HOSTILE_OPERATIONS").unwrap_or(SHORT);
    let seed = number("SBX_HOSTILE_SEED").unwrap_or(0x5b_d1e9_955b);
    let watch = Watch::new(seed);
    sys::begin();
    let mut attack = Attack::new(hostile, make(), Random::new(seed));
    for operation in 0..operations {
        watch.0.store(operation + 1, Ordering::Relaxed);
        if let Err(error) = attack.operation() {
            attack.failures += 1;
            // What a guest can bring about is its own fault or the host's trouble, never a bad state of the host.
            assert!(!matches!(error, DeviceError::State(_)), "seed {seed} operation {operation}: {error}");
            attack.reset();
        }
        if attack.renew {
            attack.renew = false;
            attack.renew(make());
        }
        let held = sys::most_held();
        assert!(held <= hostile.most_memory, "seed {seed} operation {operation}: the device holds {held} bytes");
    }
    assert!(attack.failures < operations / 2, "the device refuses nearly everything: the attack does not reach it");
    assert!(attack.used > 0, "no request was ever answered: the attack does not reach the device");
}

/// Ends the tests where a device does not come back.
struct Watch(Arc<AtomicU64>);

impl Watch {
    fn new(seed: u64) -> Self {
        let counter = Arc::new(AtomicU64::new(0));
        let (watched, name) = (Arc::downgrade(&counter), std::thread::current().name().map(str::to_owned));
        std::thread::spawn(move || {
            let (mut seen, mut since) = (0, Instant::now());
            while let Some(counter) = watched.upgrade() {
                let now = counter.load(Ordering::Relaxed);
                drop(counter);
                if now != seen {
                    (seen, since) = (now, Instant::now());
                } else if since.elapsed() > LONGEST {
                    eprintln!("{name:?}: seed {seed} operation {}: the device hangs", now.saturating_sub(1));
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self(counter)
    }
}

struct Attack<'a> {
    hostile: &'a Hostile<'a>,
    device: Box<dyn Device>,
    driver: Driver,
    random: Random,
    failures: u64,
    used: u64,
    renew: bool,
}

impl<'a> Attack<'a> {
    fn new(hostile: &'a Hostile<'a>, mut device: Box<dyn Device>, mut random: Random) -> Self {
        let driver = start(memory(), device.as_mut(), &mut random);
        Self { hostile, device, driver, random, failures: 0, used: 0, renew: false }
    }

    fn operation(&mut self) -> Result<(), DeviceError> {
        match self.random.below(100) {
            0..30 => self.request(),
            30..42 => self.chain(),
            42..48 => self.indirect(),
            48..54 => self.scribble(),
            54..57 => self.available(),
            57..80 => return self.kick(),
            80..90 => return self.driver.report(self.device.as_mut(), 0).map(drop),
            90..94 => self.config(),
            94..98 => (self.hostile.host)(self.random.next()),
            98 => self.reset(),
            _ => self.renew = true,
        }
        Ok(())
    }

    fn queue(&mut self) -> usize {
        self.random.below(self.driver.io.queues.len() as u64) as usize
    }

    fn kick(&mut self) -> Result<(), DeviceError> {
        let queue = self.queue();
        let before = self.driver.io.queues[queue].next_used();
        let result = self.driver.kick(self.device.as_mut(), queue);
        self.used += u64::from(self.driver.io.queues[queue].next_used() != before);
        result
    }

    /// A request that is nearly right.
    fn request(&mut self) {
        let known = self.hostile.requests;
        let (queue, mut bytes) = if known.is_empty() || self.random.one_in(8) {
            let length = self.random.below(64) as usize;
            (self.queue(), (0..length).map(|_| self.random.next() as u8).collect())
        } else {
            let (queue, bytes) = known[self.random.below(known.len() as u64) as usize];
            (queue, bytes.to_vec())
        };
        for _ in 0..self.random.of(&[0, 0, 0, 1, 2, 8]) {
            if !bytes.is_empty() {
                let at = self.random.below(bytes.len() as u64) as usize;
                bytes[at] = self.random.of(&[0, 1, 2, 0x7f, 0x80, 0xff]);
            }
        }
        if self.random.one_in(8) {
            let length = self.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(length);
        }
        let mut descriptors = self.pieces(&bytes);
        for flags in [0, WRITE] {
            for _ in 0..self.random.of(&[0, 0, 1, 1, 2, 5]) {
                let length = self.random.of(&[0, 1, 4, 16, 20, 511, 512, 513, 4096, 8192, 65536, 1 << 20]);
                descriptors.push((self.good_address(u64::from(length)), length, flags));
            }
        }
        if self.random.one_in(16) && !descriptors.is_empty() {
            let at = self.random.below(descriptors.len() as u64) as usize;
            descriptors[at] = (self.address(), self.length(), self.random.of(&[0, WRITE]));
        }
        if !descriptors.is_empty() && descriptors.len() <= usize::from(self.driver.io.queues[queue].size()) {
            self.driver.send_descriptors(queue, &descriptors);
        }
    }

    /// Puts bytes into memory, in one piece or cut at any place.
    fn pieces(&mut self, bytes: &[u8]) -> Vec<(u64, u32, u16)> {
        let mut descriptors = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = if self.random.one_in(4) { self.random.below(rest.len() as u64) as usize } else { rest.len() };
            let at = self.good_address(count as u64);
            self.driver.io.memory.write_slice(&rest[..count], GuestAddress(at)).unwrap();
            descriptors.push((at, count as u32, 0));
            rest = &rest[count..];
            if descriptors.len() == 8 {
                break;
            }
        }
        descriptors
    }

    /// A chain that leads anywhere: loops, strange flags, descriptors outside of the table, lengths beyond memory.
    fn chain(&mut self) {
        let queue = self.queue();
        let size = u64::from(self.driver.io.queues[queue].size());
        for _ in 0..=self.random.below(4) {
            let index = self.random.below(size) as u16;
            let descriptor = self.descriptor(size);
            self.driver.write_descriptor(queue, index, descriptor);
            if self.random.one_in(2) {
                self.driver.make_available(queue, index);
            }
        }
    }

    fn indirect(&mut self) {
        let queue = self.queue();
        let entries = self.random.of(&[0, 1, 2, 3, 64, 1024, 1025, 4096]);
        let table = self.good_address(entries * 16);
        for entry in 0..entries.min(64) {
            let descriptor = self.descriptor(entries);
            let raw = virtio_queue::desc::RawDescriptor::from(descriptor);
            self.driver.io.memory.write_obj(raw, GuestAddress(table + entry * 16)).unwrap();
        }
        let length = entries as u32 * 16 + self.random.of(&[0, 0, 0, 8]);
        let size = u64::from(self.driver.io.queues[queue].size());
        let index = self.random.below(size) as u16;
        let flags = INDIRECT | self.random.of(&[0, 0, NEXT, WRITE]);
        self.driver.write_descriptor(queue, index, Descriptor::new(table, length, flags, index));
        self.driver.make_available(queue, index);
    }

    fn descriptor(&mut self, table: u64) -> Descriptor {
        let flags = self.random.of(&[0, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, 0xffff]);
        let next = if self.random.one_in(8) { self.random.next() as u16 } else { self.random.below(table) as u16 };
        Descriptor::new(self.address(), self.length(), flags, next)
    }

    /// Anything anywhere in memory, rings included.
    fn scribble(&mut self) {
        let at = if self.random.one_in(2) { self.random.below(BUFFERS) } else { self.good_address(64) };
        let bytes: Vec<u8> = (0..self.random.below(64)).map(|_| self.random.next() as u8).collect();
        self.driver.io.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// More, or many more, or fewer heads in the ring than there are.
    fn available(&mut self) {
        let queue = self.queue();
        let index = GuestAddress(self.driver.io.queues[queue].avail_ring() + 2);
        let now: u16 = self.driver.io.memory.read_obj(index).unwrap();
        let step = self.random.of(&[1, 2, 16, 255, 256, 257, 1024, 0x8000, 0xffff]);
        self.driver.io.memory.write_obj(now.wrapping_add(step), index).unwrap();
    }

    fn config(&mut self) {
        let offset = if self.random.one_in(4) { self.random.next() } else { self.random.below(64) };
        let mut bytes = vec![0xa5; self.random.of(&[0, 1, 2, 4, 8, 3, 100])];
        if self.random.one_in(2) {
            self.device.read_config(offset, &mut bytes);
        } else {
            bytes.iter_mut().for_each(|byte| *byte = self.random.next() as u8);
            self.device.write_config(offset, &bytes);
        }
    }

    /// In the middle of whatever there is.
    fn reset(&mut self) {
        self.device.reset();
        self.driver = start(self.driver.io.memory.clone(), self.device.as_mut(), &mut self.random);
    }

    /// Saves the device and restores it as another one, or does not.
    fn renew(&mut self, device: Box<dyn Device>) {
        // A device may refuse to be saved for what the guest has taken hold of, by an error and nothing else.
        let state = self.device.save().ok().filter(|_| self.random.one_in(2));
        let features = self.driver.io.features;
        self.device = device;
        if let Some(state) = state {
            self.device.restore(&state).unwrap();
            let memory = self.driver.io.memory.clone();
            let mut driver = Driver::prepared_in(memory, self.device.as_ref(), features);
            driver.take_over(&self.driver);
            self.driver = driver;
            self.device.start(&mut self.driver.io).unwrap();
        } else {
            self.driver = start(self.driver.io.memory.clone(), self.device.as_mut(), &mut self.random);
        }
    }

    fn address(&mut self) -> u64 {
        match self.random.below(8) {
            0 => self.random.next(),
            1 => u64::MAX - self.random.below(8192),
            2 => END - self.random.below(8192),
            3 => self.random.below(BUFFERS),
            _ => self.good_address(4096),
        }
    }

    fn length(&mut self) -> u32 {
        match self.random.below(8) {
            0 => self.random.next() as u32,
            1 => u32::MAX - self.random.below(4096) as u32,
            2 => 0,
            _ => self.random.below(8192) as u32,
        }
    }

    fn good_address(&mut self, length: u64) -> u64 {
        if self.random.one_in(4) && length < 1 << 20 {
            return SECOND + self.random.below((1 << 20) - length);
        }
        BUFFERS + self.random.below(END - BUFFERS - length)
    }
}

/// Starts a device as some driver: with some of its features, some of its queues, smaller ones, rings that overlap.
fn start(memory: GuestMemoryMmap, device: &mut dyn Device, random: &mut Random) -> Driver {
    let offered = device.features();
    let features = if random.one_in(2) { offered } else { offered & (random.next() | RING_FEATURES & 1 << 32) };
    let mut driver = Driver::prepared_in(memory, device, features);
    let event_idx = features & 1 << 29 != 0;
    for queue in &mut driver.io.queues {
        queue.set_event_idx(event_idx);
        if random.one_in(8) {
            queue.set_size(1 << random.below(u64::from(queue.max_size().ilog2()) + 1));
        }
        if random.one_in(16) {
            queue.set_used_ring_address(Some(random.below(BUFFERS / 4) as u32 & !3), Some(0));
        }
        if random.one_in(16) {
            queue.set_ready(false);
        }
        if random.one_in(16) {
            let index = random.next() as u16;
            queue.set_next_avail(index);
            queue.set_next_used(index);
        }
    }
    driver.follow();
    device.start(&mut driver.io).expect("a device starts whatever the driver is");
    driver
}

impl Driver {
    /// Goes on with the queues of a machine that was saved.
    fn take_over(&mut self, saved: &Self) {
        self.io.queues = saved.io.queues.iter().map(|queue| Queue::try_from(queue.state()).unwrap()).collect();
        (self.seen, self.next, self.free) = (saved.seen.clone(), saved.next.clone(), saved.free);
    }

    /// Makes the rings agree with where the queues begin.
    fn follow(&mut self) {
        for queue in &self.io.queues {
            for (ring, index) in [(queue.avail_ring(), queue.next_avail()), (queue.used_ring(), queue.next_used())] {
                self.io.memory.write_obj(index, GuestAddress(ring + 2)).unwrap();
            }
        }
        self.seen = self.io.queues.iter().map(QueueT::next_used).collect();
    }
}
