//! Sparse files become chunk-based inodes: a table of chunks behind the inode, where a hole costs four bytes and no block.
//!
//! The chunk size follows from the file: a table must not outgrow its use (a header of 512 bytes may not make megabytes of table), so a file
//! with few segments gets large chunks. What a chunk has of holes stays a hole in the image file.

use super::format::BLOCK;
use super::layer::Layer;
use super::tree::{Content, Run};
use crate::error::LayerError;
use sbx_archive::{Entry, Reader, Segment, printable};

/// Largest `EROFS_CHUNK_FORMAT_BLKBITS_MASK`.
const MAX_BITS: u8 = 31;
/// Longest table (256 KiB), and what a file may have with how many segments.
const MAX_CHUNKS: u64 = 65536;
const FREE_CHUNKS: u64 = 1024;
const CHUNKS_PER_SEGMENT: u64 = 64;

/// The exponent of the chunk size in blocks.
fn chunk_bits(size: u64, segments: usize) -> Option<u8> {
    let most = (FREE_CHUNKS + CHUNKS_PER_SEGMENT.saturating_mul(segments as u64)).min(MAX_CHUNKS);
    (0..=MAX_BITS).find(|&bits| size.div_ceil(BLOCK << bits) <= most)
}

/// Chunks of `size` bytes of file.
pub(super) fn chunk_count(size: u64, bits: u8) -> u64 {
    size.div_ceil(BLOCK << bits)
}

impl Layer<'_> {
    pub(super) fn sparse_content(
        &mut self,
        entry: &Entry,
        map: &[Segment],
        reader: &mut Reader<'_>,
    ) -> Result<Content, LayerError> {
        let Some(bits) = chunk_bits(entry.size, map.len()) else {
            let what = format!("sparse file of {} bytes, more than EROFS can hold", entry.size);
            return Err(LayerError::Entry { name: printable(&entry.path), what });
        };
        let chunk_bytes = BLOCK << bits;
        let first_run = self.tree.runs.len();
        for segment in map {
            let (first, last) = (segment.offset / chunk_bytes, (segment.offset + segment.length - 1) / chunk_bytes);
            let run = self.extend_runs(first_run, first, last, chunk_bytes, entry.size)?;
            let position = u64::from(run.block) * BLOCK + (segment.offset - u64::from(run.chunk) * chunk_bytes);
            self.writer.skip_to(position)?;
            self.stats.data_bytes += segment.length;
            self.copy(segment.length, reader)?;
        }
        self.close_run(first_run, chunk_bytes, entry.size)?;
        let count = self.tree.runs.len() - first_run;
        Ok(Content::Chunks { first: first_run as u32, count: count as u32, bits })
    }

    /// The run that holds the chunks `first..=last`: the current one if they follow it, else a new one.
    fn extend_runs(
        &mut self,
        first_run: usize,
        first: u64,
        last: u64,
        chunk_bytes: u64,
        size: u64,
    ) -> Result<Run, LayerError> {
        if let Some(run) = self.tree.runs[first_run..].last().copied()
            && first <= u64::from(run.chunk) + u64::from(run.count)
        {
            let count = last + 1 - u64::from(run.chunk);
            let end = u64::from(run.block) * BLOCK + count * chunk_bytes;
            self.writer.reserve(end.saturating_sub(self.writer.position()))?;
            let at = self.tree.runs.len() - 1;
            self.tree.runs[at].count = count as u32;
            return Ok(run);
        }
        self.close_run(first_run, chunk_bytes, size)?;
        let count = last + 1 - first;
        self.writer.reserve(count.saturating_mul(chunk_bytes).saturating_add(BLOCK))?;
        let run = Run { chunk: first as u32, count: count as u32, block: self.writer.block() };
        self.tree.runs.push(run);
        Ok(run)
    }

    /// Moves behind the last run of this file; behind the file itself where that ends inside of the run.
    fn close_run(&mut self, first_run: usize, chunk_bytes: u64, size: u64) -> Result<(), LayerError> {
        let Some(run) = self.tree.runs[first_run..].last().copied() else {
            return Ok(());
        };
        let start = u64::from(run.chunk) * chunk_bytes;
        let bytes = (u64::from(run.count) * chunk_bytes).min((size - start).next_multiple_of(BLOCK));
        self.writer.skip_to(u64::from(run.block) * BLOCK + bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, chunk_bits, chunk_count};

    #[test]
    fn a_table_is_never_larger_than_its_segments_justify() {
        assert_eq!(chunk_bits(4096 * 1024, 0), Some(0));
        assert_eq!(chunk_bits(10 << 30, 0), Some(12));
        for (size, segments) in [(10u64 << 30, 1), (10 << 30, 1000), (1 << 50, 3), (1 << 20, 256), (300 << 20, 40000)] {
            let bits = chunk_bits(size, segments).unwrap();
            assert!(chunk_count(size, bits) <= (1024 + 64 * segments as u64).min(65536));
            assert!(bits == 0 || size.div_ceil(BLOCK << (bits - 1)) > 1024);
        }
        assert_eq!(chunk_bits(i64::MAX as u64, 0), None);
    }
}
