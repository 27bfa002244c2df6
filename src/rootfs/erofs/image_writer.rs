//! Sequential, buffered writing of the image file.
//!
//! Large writes only: the page cache is filled a mebibyte at a time. Holes are left by moving on, so that they stay holes on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::BLOCK;
use crate::error::LayerError;

const BUFFER: usize = 1 << 20;

/// The image file and the end of what is in it.
pub(super) struct ImageWriter<'a> {
    file: &'a File,
    limit: u64,
    buffer: Box<[u8]>,
    used: usize,
    /// Where in the file the buffer belongs.
    start: u64,
    fingerprint: Fingerprint,
}

impl<'a> ImageWriter<'a> {
    /// Starts behind the first block, which [`Self::finish`] writes.
    pub(super) fn new(file: &'a File, limit: u64) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        // Block numbers have 32 bits, and the last one means "none".
        let limit = limit.min((u64::from(u32::MAX) - 1) * BLOCK);
        Self { file, limit, buffer, used: 0, start: BLOCK, fingerprint: Fingerprint::default() }
    }

    pub(super) fn position(&self) -> u64 {
        self.start + self.used as u64
    }

    /// The number of the next block; the position must be at its start.
    pub(super) fn block(&self) -> u32 {
        debug_assert_eq!(self.position() % BLOCK, 0);
        (self.position() / BLOCK) as u32
    }

    /// Refuses to grow beyond the limit.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), LayerError> {
        match self.position().checked_add(bytes) {
            Some(end) if end <= self.limit => Ok(()),
            _ => Err(LayerError::Limit { of: "bytes in the image", limit: self.limit }),
        }
    }

    /// Lets `read` fill some of `count` more bytes in place; says how many it did.
    pub(super) fn fill(
        &mut self,
        count: u64,
        read: impl FnOnce(&mut [u8]) -> Result<usize, LayerError>,
    ) -> Result<usize, LayerError> {
        if self.used == BUFFER {
            self.flush()?;
        }
        let room = &mut self.buffer[self.used..];
        let room = match usize::try_from(count) {
            Ok(count) if count < room.len() => &mut room[..count],
            _ => room,
        };
        let got = read(room)?;
        self.used += got;
        Ok(got)
    }

    /// Writes metadata, and takes note of it for the image's identity.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        self.fingerprint.add(bytes);
        while !bytes.is_empty() {
            let count = bytes.len() as u64;
            let done = self.fill(count, |room| {
                let done = room.len();
                room.copy_from_slice(&bytes[..done]);
                Ok(done)
            })?;
            bytes = &bytes[done..];
        }
        Ok(())
    }

    /// Moves on to `position`, leaving zeroes; a hole where that is worth a write of its own.
    pub(super) fn skip_to(&mut self, position: u64) -> Result<(), LayerError> {
        debug_assert!(position >= self.position());
        let mut gap = position - self.position();
        if gap > BUFFER as u64 / 4 {
            self.flush()?;
            self.start = position;
            return Ok(());
        }
        while gap > 0 {
            gap -= self.fill(gap, |room| {
                room.fill(0);
                Ok(room.len())
            })? as u64;
        }
        Ok(())
    }

    /// Moves on to the next start of a block.
    pub(super) fn pad(&mut self) -> Result<(), LayerError> {
        self.skip_to(self.position().next_multiple_of(BLOCK))
    }

    /// An identity of all metadata written so far.
    pub(super) fn uuid(&self) -> [u8; 16] {
        self.fingerprint.uuid()
    }

    /// Writes what is left, then the first block: without it the file is no image.
    pub(super) fn finish(mut self, first_block: &[u8]) -> Result<u64, LayerError> {
        let end = self.position();
        self.flush()?;
        self.file.set_len(end).map_err(LayerError::Write)?;
        self.file.write_all_at(first_block, 0).map_err(LayerError::Write)?;
        Ok(end)
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        let result: io::Result<()> = self.file.write_all_at(&self.buffer[..self.used], self.start);
        result.map_err(LayerError::Write)?;
        self.start += self.used as u64;
        self.used = 0;
        Ok(())
    }
}

/// Two multiply-and-fold lanes: tells images apart by chance, not against an adversary (that is the DiffID's work).
#[derive(Default)]
struct Fingerprint {
    lanes: [u64; 2],
}

impl Fingerprint {
    fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            self.lanes[0] = (self.lanes[0] ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            self.lanes[1] = (self.lanes[1] ^ word.rotate_left(17)).wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(31);
        }
    }

    /// As a version 8 ("custom") UUID of RFC 9562.
    fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&self.lanes[0].to_le_bytes());
        uuid[8..].copy_from_slice(&self.lanes[1].to_le_bytes());
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}
