//! Group descriptors (`struct ext4_group_desc`) and the bitmaps that have to be written.

use super::geometry::{BLOCK, DESCRIPTOR, Geometry, INODES_IN_USE};
use super::record::Record;
use crate::checksum::crc32c;

/// No inode of the group was ever used: its bitmap and its table are not read.
const INODE_UNINIT: u16 = 1;
/// Nothing is used but the group's own tables: its block bitmap is not read.
const BLOCK_UNINIT: u16 = 2;
/// The inode table is zeroed already: the kernel need not do that behind the first mount's back.
const INODE_ZEROED: u16 = 4;

/// `/` and `lost+found`.
const DIRECTORIES: u16 = 2;
const AT_CHECKSUM: usize = 0x1E;

/// Whether the group's block bitmap is on the disk: the first group's because more than tables is in it, the last one's because it may end
/// before its bitmap does, which e2fsck wants to see written down.
pub(super) fn has_block_bitmap(geometry: &Geometry, group: u64) -> bool {
    group == 0 || group + 1 == geometry.groups
}

/// A group's block bitmap: the first blocks are in use, and so are those behind the end.
pub(super) fn block_bitmap(geometry: &Geometry, group: u64) -> Vec<u8> {
    bitmap(geometry.used(group), geometry.group_blocks(group))
}

/// The first group's inode bitmap, the only one.
pub(super) fn inode_bitmap(geometry: &Geometry) -> Vec<u8> {
    bitmap(u64::from(INODES_IN_USE), u64::from(geometry.inodes_per_group))
}

/// A block of bits: set below `used`, clear up to `end`, set from there on.
fn bitmap(used: u64, end: u64) -> Vec<u8> {
    let bits = |byte: u64| {
        (0..8).fold(0, |bits, bit| {
            let number = byte * 8 + bit;
            bits | u8::from(number < used || number >= end) << bit
        })
    };
    (0..BLOCK).map(bits).collect()
}

/// All descriptors, as they stand behind the superblock and behind its copy, padded to whole blocks.
pub(super) fn descriptors(geometry: &Geometry, seed: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity((geometry.descriptor_blocks * BLOCK) as usize);
    for group in 0..geometry.groups {
        out.extend_from_slice(&descriptor(geometry, group, seed));
    }
    out.resize((geometry.descriptor_blocks * BLOCK) as usize, 0);
    out
}

fn descriptor(geometry: &Geometry, group: u64, seed: u32) -> Vec<u8> {
    let mut out = Record::new(DESCRIPTOR as usize);
    out.split64(0x00, 0x20, geometry.block_bitmap(group));
    out.split64(0x04, 0x24, geometry.inode_bitmap(group));
    out.split64(0x08, 0x28, geometry.inode_table(group));
    out.split32(0x0C, 0x2C, geometry.free(group) as u32);
    let mut flags = INODE_ZEROED;
    let mut free_inodes = geometry.inodes_per_group;
    if group == 0 {
        free_inodes -= INODES_IN_USE;
        out.u16(0x10, DIRECTORIES);
        let bits = inode_bitmap(geometry);
        out.split32(0x1A, 0x3A, crc32c(seed, &bits[..geometry.inodes_per_group as usize / 8]));
    } else {
        flags |= INODE_UNINIT;
    }
    if has_block_bitmap(geometry, group) {
        out.split32(0x18, 0x38, crc32c(seed, &block_bitmap(geometry, group)));
    } else {
        flags |= BLOCK_UNINIT;
    }
    // The free inodes are the last ones, so as many are unused at the table's end.
    out.split32(0x0E, 0x2E, free_inodes).split32(0x1C, 0x32, free_inodes).u16(0x12, flags);
    let sum = crc32c(crc32c(seed, &(group as u32).to_le_bytes()), out.bytes());
    out.u16(AT_CHECKSUM, sum as u16);
    out.finish()
}
