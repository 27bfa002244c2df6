//! The inodes in use (`struct ext4_inode`) and the blocks of the two directories (`struct ext4_dir_entry_2`).

use super::Identity;
use super::geometry::{BLOCK, Geometry, INODE};
use super::record::Record;
use crate::checksum::crc32c;

pub(super) const ROOT_INODE: u32 = 2;
pub(super) const JOURNAL_INODE: u32 = 8;
pub(super) const LOST_AND_FOUND_INODE: u32 = 11;

/// Bytes of an inode's own map of blocks: room for a header and four extents.
const MAP: usize = 60;
const EXTENT_MAGIC: u16 = 0xF30A;
const EXTENTS_IN_INODE: u16 = 4;
const FLAG_EXTENTS: u32 = 0x8_0000;
/// Bytes of the fields behind the first 128.
const EXTRA: u16 = 32;

const TYPE_DIRECTORY: u8 = 2;
const DIRECTORY_HEADER: usize = 8;
/// The entry that is none: it holds the block's checksum.
const TAIL: usize = 12;
const TYPE_TAIL: u8 = 0xDE;

/// A file in one run of blocks.
struct File {
    mode: u16,
    links: u16,
    first: u64,
    blocks: u64,
}

/// The first block of the first inode table, which holds every inode in use.
pub(super) fn table(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    let root = File { mode: 0o040_755, links: 3, first: geometry.root_directory(), blocks: 1 };
    let lost = File { mode: 0o040_700, links: 2, first: geometry.lost_and_found(), blocks: 1 };
    let journal = File { mode: 0o100_600, links: 1, first: geometry.journal(), blocks: geometry.journal_blocks };
    let mut out = Record::new(BLOCK as usize);
    for (number, file) in [(ROOT_INODE, root), (LOST_AND_FOUND_INODE, lost), (JOURNAL_INODE, journal)] {
        out.put((number as usize - 1) * INODE as usize, &encode(number, &file, identity));
    }
    out.finish()
}

/// The map of the journal's blocks, of which the superblock has a copy.
pub(super) fn journal_map(geometry: &Geometry) -> Vec<u8> {
    extent(geometry.journal(), geometry.journal_blocks)
}

/// An extent tree of one extent, which may have up to 2^15 blocks.
fn extent(first: u64, blocks: u64) -> Vec<u8> {
    let mut out = Record::new(MAP);
    out.u16(0, EXTENT_MAGIC).u16(2, 1).u16(4, EXTENTS_IN_INODE);
    out.u16(16, blocks as u16).u16(18, (first >> 32) as u16).u32(20, first as u32);
    out.finish()
}

fn encode(number: u32, file: &File, identity: &Identity) -> Vec<u8> {
    let mut out = Record::new(INODE as usize);
    let bytes = file.blocks * BLOCK;
    out.u16(0x00, file.mode).u16(0x1A, file.links).split64(0x04, 0x6C, bytes);
    out.u32(0x1C, (bytes / 512) as u32).u32(0x20, FLAG_EXTENTS).put(0x28, &extent(file.first, file.blocks));
    // Accessed, changed, modified, made; two bits beyond 2038 stand apart.
    let (low, epoch) = (identity.created as u32, time_epoch(identity.created));
    out.u32(0x08, low).u32(0x0C, low).u32(0x10, low).u32(0x90, low);
    out.u32(0x84, epoch).u32(0x88, epoch).u32(0x8C, epoch).u32(0x94, epoch);
    out.u16(0x80, EXTRA);
    let sum = crc32c(sum_of_number(number, identity), out.bytes());
    out.split32(0x7C, 0x82, sum);
    out.finish()
}

/// How often 2^32 seconds have passed for a signed 32-bit time that counts on from 1970.
fn time_epoch(seconds: u64) -> u32 {
    (((seconds + (1 << 31)) >> 32) & 3) as u32
}

/// Where the checksums of an inode and of its directory blocks begin: its number and its generation, which is 0.
fn sum_of_number(number: u32, identity: &Identity) -> u32 {
    crc32c(crc32c(identity.seed(), &number.to_le_bytes()), &[0; 4])
}

/// The block of `/`.
pub(super) fn root_directory(identity: &Identity) -> Vec<u8> {
    directory(ROOT_INODE, &[(ROOT_INODE, "."), (ROOT_INODE, ".."), (LOST_AND_FOUND_INODE, "lost+found")], identity)
}

/// The block of `/lost+found`.
pub(super) fn lost_and_found(identity: &Identity) -> Vec<u8> {
    directory(LOST_AND_FOUND_INODE, &[(LOST_AND_FOUND_INODE, "."), (ROOT_INODE, "..")], identity)
}

fn directory(number: u32, entries: &[(u32, &str)], identity: &Identity) -> Vec<u8> {
    let end = BLOCK as usize - TAIL;
    let mut out = Record::new(BLOCK as usize);
    let mut at = 0;
    for (index, (inode, name)) in entries.iter().enumerate() {
        let needed = (DIRECTORY_HEADER + name.len()).next_multiple_of(4);
        // The last entry has the rest of the block.
        let length = if index + 1 == entries.len() { end - at } else { needed };
        out.u32(at, *inode).u16(at + 4, length as u16).u8(at + 6, name.len() as u8).u8(at + 7, TYPE_DIRECTORY);
        out.put(at + DIRECTORY_HEADER, name.as_bytes());
        at += length;
    }
    let sum = crc32c(sum_of_number(number, identity), &out.bytes()[..end]);
    out.u16(end + 4, TAIL as u16).u8(end + 7, TYPE_TAIL).u32(end + 8, sum);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::time_epoch;

    #[test]
    fn times_go_on_after_2038() {
        assert_eq!([0, (1 << 31) - 1, 1 << 31, (1 << 32) + (1 << 31)].map(time_epoch), [0, 0, 1, 2]);
    }
}
