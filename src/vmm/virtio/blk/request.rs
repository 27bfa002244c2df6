//! One request of a disk's driver: its header, what it asks for, what it is answered (virtio specification 1.3, section
//! 5.2.6).
//!
//! A request has the driver's data and then room for the device's, in any number of buffers (section 2.7.4.3):
//!
//! ```text
//! readable   type u32, reserved u32, sector u64 │ data of a write, or segments of a discard or write-zeroes
//! writable   data of a read, or the serial      │ status u8
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::counters::Counters;
use super::disk::{Clear, Disk, SECTOR};
use super::throttle::{Kind, Throttle};
use crate::virtio::chain::{Chain, Reader, Writer};
use crate::virtio::device::DeviceError;

/// Longest buffer of a request that the device offers (`size_max`), in bytes.
pub(super) const LONGEST_SEGMENT: u32 = 1 << 17;
/// Most buffers of a request that the device offers (`seg_max`): the queue's size less header and status, since a driver
/// without indirect descriptors has no more.
pub(super) const MOST_SEGMENTS: u32 = 254;
/// Most bytes of a read or a write, which follows from the two. More is an error, so that no request takes for ever.
const MOST_BYTES: u64 = LONGEST_SEGMENT as u64 * MOST_SEGMENTS as u64;
/// Most sectors in one segment of a discard: 2 GiB.
pub(super) const MOST_DISCARDED_SECTORS: u32 = 1 << 22;
/// Most sectors in one segment of a write-zeroes: 64 MiB, since it may have to be written out.
pub(super) const MOST_ZEROED_SECTORS: u32 = 1 << 17;
/// Most segments in a discard. A write-zeroes has one.
pub(super) const MOST_DISCARD_SEGMENTS: u32 = 16;
/// Length of the serial, in bytes (section 5.2.6: `VIRTIO_BLK_T_GET_ID`).
pub(super) const SERIAL_LENGTH: usize = 20;

const STATUS_OK: u8 = VIRTIO_BLK_S_OK as u8;
const STATUS_FAILED: u8 = VIRTIO_BLK_S_IOERR as u8;
const STATUS_UNSUPPORTED: u8 = VIRTIO_BLK_S_UNSUPP as u8;

/// What answers requests.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) disk: Disk,
    pub(super) serial: [u8; SERIAL_LENGTH],
    pub(super) throttle: Throttle,
    pub(super) counters: Arc<Counters>,
    /// Each write is made durable by itself, since the driver does not know of flushes (section 5.2.6.2).
    pub(super) write_through: bool,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// It is answered; so many bytes were written to the driver's memory, and so many were moved in all.
    Answered { written: usize, moved: u64 },
    /// It falls under a limit and has to wait so long.
    Throttled(Duration),
}

/// Why a request has a status other than "ok".
enum Refusal {
    /// The driver asked for what the device does not do.
    Unsupported,
    /// The driver asked for what cannot be: off the disk, too much, a write to what is read-only.
    Wrong,
    /// The host's kernel refused.
    Failed(&'static str, io::Error),
    /// Not now.
    Wait(Duration),
}

/// One range of a discard or a write-zeroes.
struct Segment {
    start: u64,
    length: u64,
    unmap: bool,
}

impl Server {
    /// Answers a request.
    ///
    /// # Errors
    /// It has no header, or no room for the status.
    pub(super) fn serve(&mut self, chain: &mut Chain<'_>, now: Duration) -> Result<Served, DeviceError> {
        let mut header = [0; 16];
        chain.reader.read_exact(&mut header)?;
        let (kind, sector) = header.split_at(8);
        let kind = u32::from_le_bytes([kind[0], kind[1], kind[2], kind[3]]);
        let sector = u64::from_le_bytes(sector.try_into().unwrap_or_default());
        let Some(room) = chain.writer.left().checked_sub(1) else {
            return Err(DeviceError::Driver("a disk request has no room for its status".into()));
        };
        let mut answer = chain.writer.split_to(room);
        let moved = chain.reader.left() as u64 + room as u64;
        let result = self.act(kind, sector, &mut chain.reader, &mut answer, now);
        let status = match result {
            Ok(()) => STATUS_OK,
            Err(Refusal::Wait(wait)) => return Ok(Served::Throttled(wait)),
            Err(Refusal::Unsupported) => STATUS_UNSUPPORTED,
            Err(Refusal::Wrong) => STATUS_FAILED,
            Err(Refusal::Failed(step, error)) => {
                self.counters.failed(step, &error);
                if error.raw_os_error() == Some(libc::EOPNOTSUPP) { STATUS_UNSUPPORTED } else { STATUS_FAILED }
            }
        };
        chain.writer.write_all(&[status])?;
        // "The device must have written all of the first `len` bytes" (2.7.8.2): the status counts only behind full data.
        let written = if answer.left() == 0 { room + 1 } else { answer.written() };
        Ok(Served::Answered { written, moved })
    }

    fn act(
        &mut self,
        kind: u32,
        sector: u64,
        data: &mut Reader<'_>,
        answer: &mut Writer<'_>,
        now: Duration,
    ) -> Result<(), Refusal> {
        match kind {
            VIRTIO_BLK_T_IN => self.read(sector, answer, now),
            VIRTIO_BLK_T_OUT => self.write(sector, data, now),
            VIRTIO_BLK_T_FLUSH => self.flush(),
            VIRTIO_BLK_T_GET_ID => {
                answer.write_some(&self.serial);
                Ok(())
            }
            VIRTIO_BLK_T_DISCARD => self.discard(data, now),
            VIRTIO_BLK_T_WRITE_ZEROES => self.write_zeroes(data, now),
            _ => Err(Refusal::Unsupported),
        }
    }

    fn read(&mut self, sector: u64, answer: &mut Writer<'_>, now: Duration) -> Result<(), Refusal> {
        let bytes = answer.left() as u64;
        let start = self.transfer(sector, bytes)?;
        self.admit(Kind::Read, bytes, now)?;
        self.disk.read(start, answer).map_err(|error| Refusal::Failed("read", error))?;
        Counters::add(&self.counters.reads, 1);
        Counters::add(&self.counters.read_bytes, bytes);
        Ok(())
    }

    fn write(&mut self, sector: u64, data: &mut Reader<'_>, now: Duration) -> Result<(), Refusal> {
        let bytes = data.left() as u64;
        self.must_be_writable()?;
        let start = self.transfer(sector, bytes)?;
        self.admit(Kind::Write, bytes, now)?;
        self.disk.write(start, data).map_err(|error| Refusal::Failed("write", error))?;
        Counters::add(&self.counters.writes, 1);
        Counters::add(&self.counters.written_bytes, bytes);
        self.write_through()
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        self.disk.flush().map_err(|error| Refusal::Failed("flush", error))?;
        Counters::add(&self.counters.flushes, 1);
        Ok(())
    }

    fn discard(&mut self, data: &mut Reader<'_>, now: Duration) -> Result<(), Refusal> {
        self.must_be_writable()?;
        let segments = self.segments(data, MOST_DISCARD_SEGMENTS, MOST_DISCARDED_SECTORS)?;
        if segments.iter().any(|segment| segment.unmap) {
            // Reserved for write-zeroes (5.2.6.2).
            return Err(Refusal::Unsupported);
        }
        self.admit(Kind::Write, 0, now)?;
        self.clear(&segments, |_| Clear::Discard, &self.counters.clears)
    }

    fn write_zeroes(&mut self, data: &mut Reader<'_>, now: Duration) -> Result<(), Refusal> {
        self.must_be_writable()?;
        let segments = self.segments(data, 1, MOST_ZEROED_SECTORS)?;
        self.admit(Kind::Write, segments.iter().map(|segment| segment.length).sum(), now)?;
        let how = |segment: &Segment| if segment.unmap { Clear::ZeroAndUnmap } else { Clear::Zero };
        self.clear(&segments, how, &self.counters.clears)?;
        self.write_through()
    }

    fn clear(&self, segments: &[Segment], how: impl Fn(&Segment) -> Clear, counter: &AtomicU64) -> Result<(), Refusal> {
        for segment in segments.iter().filter(|segment| segment.length > 0) {
            let cleared = self.disk.clear(segment.start, segment.length, how(segment));
            cleared.map_err(|error| Refusal::Failed("give space back", error))?;
        }
        Counters::add(counter, 1);
        Ok(())
    }

    /// The segments of a discard or a write-zeroes: 16 bytes each, all checked before the first is acted on.
    fn segments(&self, data: &mut Reader<'_>, most: u32, most_sectors: u32) -> Result<Vec<Segment>, Refusal> {
        let count = data.left() / 16;
        if !data.left().is_multiple_of(16) || count == 0 || count > most as usize {
            return Err(Refusal::Wrong);
        }
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let mut bytes = [0; 16];
            data.read_some(&mut bytes);
            let [sector, rest] = [&bytes[..8], &bytes[8..]];
            let sector = u64::from_le_bytes(sector.try_into().unwrap_or_default());
            let sectors = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let flags = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]);
            if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
                return Err(Refusal::Unsupported);
            }
            let length = u64::from(sectors) * SECTOR;
            let start = self.disk.locate(sector, length).filter(|_| sectors <= most_sectors).ok_or(Refusal::Wrong)?;
            segments.push(Segment { start, length, unmap: flags != 0 });
        }
        Ok(segments)
    }

    /// Where a read or a write begins, in bytes.
    fn transfer(&self, sector: u64, bytes: u64) -> Result<u64, Refusal> {
        if bytes > MOST_BYTES || !bytes.is_multiple_of(SECTOR) {
            return Err(Refusal::Wrong);
        }
        self.disk.locate(sector, bytes).ok_or(Refusal::Wrong)
    }

    fn must_be_writable(&self) -> Result<(), Refusal> {
        if self.disk.is_writable() { Ok(()) } else { Err(Refusal::Wrong) }
    }

    fn admit(&mut self, kind: Kind, bytes: u64, now: Duration) -> Result<(), Refusal> {
        self.throttle.admit(kind, bytes, now).map_err(Refusal::Wait)
    }

    fn write_through(&mut self) -> Result<(), Refusal> {
        if self.write_through { self.flush() } else { Ok(()) }
    }
}
