//! virtio-balloon: memory that the guest does not need goes back to the host (virtio specification 1.3, section 5.5).
//!
//! Two ways: the guest's kernel reports runs of free pages by itself, after a second or two (free page reporting; this is
//! what keeps an idle guest small), and the host can ask for a number of pages, which the kernel then takes from its own
//! programs and caches (the balloon), and takes back when it runs out of memory, if it may.
//!
//! A page is given back by `madvise`: it costs nothing until the guest touches it again. The device believes nothing of
//! what the guest says but the addresses, and these only within memory that the guest may write; a page that the guest gave
//! up and uses all the same reads as zero, or as the file that its memory was restored from.
//!
//! Which queue is which: the specification numbers five, Linux and every device count only those that were agreed on. So
//! does this one: after inflate and deflate comes the queue of statistics, if agreed on, then that of reports, if agreed on.
//! (Hints of free pages, the fifth queue, are not offered.)

mod control;
mod sys;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::QueueT;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress, VolatileSlice,
};

pub use control::{BalloonControl, MemoryStatistics};

use crate::virtio::chain::{RING_FEATURES, Reader, Turn, serve};
use crate::virtio::config_space;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};
use control::Shared;
use sys::Advice;

// Section 5.5.3, `include/uapi/linux/virtio_balloon.h`.
const FEATURE_STATISTICS: u64 = 1 << 1;
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
const FEATURE_PAGE_POISON: u64 = 1 << 4;
const FEATURE_REPORTING: u64 = 1 << 5;

/// A page of the balloon, in bytes, whatever the pages of guest and host are.
const PAGE: u64 = 4096;
/// Most pages in one request to inflate; Linux sends 256. More is an error, so that no request takes for ever.
const MOST_PAGES: usize = 4096;
/// Most entries of statistics that are looked at; Linux 6.12 knows 16.
const MOST_STATISTICS: usize = 64;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// Reports come in chains of 32 (`PAGE_REPORTING_CAPACITY`), and Linux wants a queue that holds one.
const QUEUE_SIZES: [u16; 4] = [128; 4];
const AGAIN: u64 = 0;

/// What a balloon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonConfig {
    /// Name of the device's thread, at most 15 bytes.
    pub name: String,
    /// Pages of 4 KiB that the guest should give up from the start.
    pub target: u32,
    /// Whether the guest may take pages back by itself before it kills a program for want of memory.
    pub deflate_on_oom: bool,
}

/// The device.
#[derive(Debug)]
pub struct Balloon {
    config: BalloonConfig,
    shared: Arc<Shared>,
    poison: u32,
    /// The buffer of statistics that the driver has given, by its first descriptor: it comes back used when new ones are
    /// wanted.
    statistics: Option<u16>,
    page: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    target: u32,
    actual: u32,
    poison: u32,
    statistics: Option<u16>,
}

impl Balloon {
    /// A balloon, and the handle on it.
    ///
    /// # Errors
    /// The kernel refuses an eventfd, or does not say how large its pages are.
    pub fn new(config: BalloonConfig) -> Result<(Self, BalloonControl), DeviceError> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .map_err(DeviceError::host("ask for the size of a page"))?
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(PAGE as usize);
        let shared = Arc::new(Shared::new(config.target)?);
        let control = BalloonControl(Arc::clone(&shared));
        Ok((Self { config, shared, poison: 0, statistics: None, page }, control))
    }

    fn turn(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        let statistics = (io.features & FEATURE_STATISTICS != 0).then_some(DEFLATE + 1);
        let reporting = (io.features & FEATURE_REPORTING != 0).then_some(statistics.unwrap_or(DEFLATE) + 1);
        self.inflate(io)?;
        serve(io, DEFLATE, &self.shared.again, |_| Ok(Turn::Done))?;
        if let Some(queue) = statistics {
            self.take_statistics(io, queue)?;
        }
        if let Some(queue) = reporting {
            self.take_reports(io, queue)?;
        }
        Ok(())
    }

    fn inflate(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        let memory = io.memory.clone();
        serve(io, INFLATE, &self.shared.again, |chain| {
            for (start, length) in runs(pages(&mut chain.reader)?) {
                each_piece(&memory, start, length, |region, piece| self.release(region, piece))?;
            }
            Ok(Turn::Done)
        })
    }

    fn take_reports(&self, io: &mut Io, queue: usize) -> Result<(), DeviceError> {
        let memory = io.memory.clone();
        let poison = (io.features & FEATURE_PAGE_POISON != 0).then_some(self.poison);
        serve(io, queue, &self.shared.again, |chain| {
            for piece in chain.writer.pieces() {
                if let Some(region) = region_of(&memory, &piece)
                    && may_change(region, poison)
                {
                    self.release(region, &piece);
                }
            }
            Ok(Turn::Wrote(0))
        })
    }

    fn release(&self, region: &GuestRegionMmap, piece: &VolatileSlice<'_>) {
        let shared = region.flags() & libc::MAP_SHARED != 0;
        match sys::release(piece, if shared { Advice::Remove } else { Advice::DontNeed }, self.page) {
            Ok(bytes) => {
                self.shared.released.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            // The guest has done nothing wrong, and loses nothing: the host keeps the memory.
            Err(error) => {
                let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(format!("give {} bytes of the guest's memory back: {error}", piece.len()));
            }
        }
    }

    fn take_statistics(&mut self, io: &mut Io, queue: usize) -> Result<(), DeviceError> {
        let mut surplus = Vec::new();
        serve(io, queue, &self.shared.again, |chain| {
            let statistics = statistics(&mut chain.reader);
            let mut last = self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (last.0.wrapping_add(1), statistics);
            // A driver has one buffer of statistics. The older of two goes back.
            surplus.extend(self.statistics.replace(chain.head()));
            Ok(Turn::Kept)
        })?;
        if self.shared.statistics_wanted.load(Ordering::SeqCst)
            && let Some(head) = self.statistics.take()
        {
            self.shared.statistics_wanted.store(false, Ordering::SeqCst);
            surplus.push(head);
        }
        for head in &surplus {
            io.queues[queue].add_used(&io.memory, *head, 0)?;
        }
        if surplus.is_empty() { Ok(()) } else { io.signal_used(queue) }
    }
}

/// The page numbers in a request to inflate, in order.
fn pages(reader: &mut Reader<'_>) -> Result<Vec<u32>, DeviceError> {
    let count = reader.left() / 4;
    if count > MOST_PAGES || !reader.left().is_multiple_of(4) {
        let problem = format!("a request to the balloon has {} bytes of page numbers", reader.left());
        return Err(DeviceError::Driver(problem));
    }
    let mut pages = vec![0; count];
    for page in &mut pages {
        let mut number = [0; 4];
        reader.read_exact(&mut number)?;
        *page = u32::from_le_bytes(number);
    }
    pages.sort_unstable();
    pages.dedup();
    Ok(pages)
}

/// Pages that follow each other, as ranges of addresses: one call to the kernel for each.
fn runs(pages: Vec<u32>) -> Vec<(GuestAddress, u64)> {
    let mut runs: Vec<(GuestAddress, u64)> = Vec::new();
    for page in pages {
        let start = u64::from(page) * PAGE;
        match runs.last_mut() {
            Some((first, length)) if first.0 + *length == start => *length += PAGE,
            _ => runs.push((GuestAddress(start), PAGE)),
        }
    }
    runs
}

/// Calls `act` with each piece of a range, region by region.
fn each_piece(
    memory: &GuestMemoryMmap,
    mut start: GuestAddress,
    mut length: u64,
    mut act: impl FnMut(&GuestRegionMmap, &VolatileSlice<'_>),
) -> Result<(), DeviceError> {
    while length > 0 {
        let region = memory.find_region(start).filter(|region| region.prot() & libc::PROT_WRITE != 0);
        let Some(region) = region else {
            return Err(DeviceError::Driver(format!("the balloon holds {:#x}, which is no memory of it", start.0)));
        };
        let offset = start.unchecked_offset_from(region.start_addr());
        let count = length.min(region.len() - offset);
        act(region, &region.get_slice(MemoryRegionAddress(offset), count as usize)?);
        start = GuestAddress(start.0.saturating_add(count));
        length -= count;
    }
    Ok(())
}

/// The region that a piece of memory is a part of.
fn region_of<'m>(memory: &'m GuestMemoryMmap, piece: &VolatileSlice<'_>) -> Option<&'m GuestRegionMmap> {
    let address = piece.ptr_guard().as_ptr() as usize;
    memory.iter().find(|region| address.checked_sub(region.as_ptr() as usize).is_some_and(|at| at < region.size()))
}

/// Whether free pages may come back with other content. A guest that fills free pages (to find who writes to them, or to
/// hand them out as zeroes) says with what, and wants them untouched or filled so (section 5.5.6.5).
fn may_change(region: &GuestRegionMmap, poison: Option<u32>) -> bool {
    let zeroes = region.file_offset().is_none() || region.flags() & libc::MAP_SHARED != 0;
    match poison {
        None => true,
        Some(value) => value == 0 && zeroes,
    }
}

/// `struct virtio_balloon_stat` again and again: a tag of 16 bits, a value of 64 (section 5.5.6.4).
fn statistics(reader: &mut Reader<'_>) -> MemoryStatistics {
    let mut statistics = MemoryStatistics::default();
    for _ in 0..MOST_STATISTICS {
        let mut entry = [0; 10];
        if reader.read_exact(&mut entry).is_err() {
            break;
        }
        let [low, high, value @ ..] = entry;
        let place = match u16::from_le_bytes([low, high]) {
            0 => &mut statistics.swapped_in,
            1 => &mut statistics.swapped_out,
            2 => &mut statistics.major_faults,
            3 => &mut statistics.minor_faults,
            4 => &mut statistics.free,
            5 => &mut statistics.total,
            6 => &mut statistics.available,
            7 => &mut statistics.caches,
            _ => continue,
        };
        *place = Some(u64::from_le_bytes(value));
    }
    statistics
}

impl Device for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn features(&self) -> u64 {
        let features = RING_FEATURES | FEATURE_STATISTICS | FEATURE_PAGE_POISON | FEATURE_REPORTING;
        if self.config.deflate_on_oom { features | FEATURE_DEFLATE_ON_OOM } else { features }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 16];
        space[..4].copy_from_slice(&self.shared.target.load(Ordering::SeqCst).to_le_bytes());
        space[4..8].copy_from_slice(&self.shared.actual.load(Ordering::SeqCst).to_le_bytes());
        space[12..].copy_from_slice(&self.poison.to_le_bytes());
        config_space::read(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else { return };
        match offset {
            4 => self.shared.actual.store(value, Ordering::SeqCst),
            12 => self.poison = value,
            _ => {}
        }
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.shared.again.watch(io, AGAIN)
    }

    fn queue_ready(&mut self, _queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        self.turn(io)
    }

    fn source_ready(&mut self, _token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        self.shared.again.hear();
        if self.shared.target_changed.swap(false, Ordering::SeqCst) {
            io.signal_config(self)?;
        }
        self.turn(io)
    }

    fn reset(&mut self) {
        // The host's wish stays; what the driver has said is gone with it.
        self.shared.actual.store(0, Ordering::SeqCst);
        self.poison = 0;
        self.statistics = None;
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        let state = State {
            target: self.shared.target.load(Ordering::SeqCst),
            actual: self.shared.actual.load(Ordering::SeqCst),
            poison: self.poison,
            statistics: self.statistics,
        };
        postcard::to_stdvec(&state).map_err(|error| DeviceError::State(error.to_string()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let state: State = postcard::from_bytes(state).map_err(|error| DeviceError::State(error.to_string()))?;
        if let Some(head) = state.statistics.filter(|head| *head >= QUEUE_SIZES[0]) {
            return Err(DeviceError::State(format!("statistics at descriptor {head}, which no queue has")));
        }
        // The restored machine may want another balloon than the saved one had.
        let changed = state.target != self.config.target;
        self.shared.target_changed.store(changed, Ordering::SeqCst);
        self.shared.actual.store(state.actual, Ordering::SeqCst);
        self.poison = state.poison;
        self.statistics = state.statistics;
        Ok(())
    }
}
