//! Where everything of a file system is: a pure function of its size.
//!
//! ```text
//! group 0      super | descriptors | block bitmap | inode bitmap | inode table | / | lost+found | journal | free …
//! group 1      super | descriptors | block bitmap | inode bitmap | inode table | free …         (the only backup)
//! every other                        block bitmap | inode bitmap | inode table | free …
//! ```
//!
//! `flex_bg` would allow the tables of 16 groups to stand together. They do not: a group whose only blocks in use are its own can say
//! so by a flag (`BLOCK_UNINIT`), and then nothing of it has to be written, or read when the file system is mounted. One that holds
//! the tables of others needs a bitmap on disk.

use super::FormatError;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// As many as a bitmap of one block has bits.
pub(super) const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode.
pub(super) const INODE: u64 = 256;
/// Bytes of a group descriptor with the feature `64bit`.
pub(super) const DESCRIPTOR: u64 = 64;
/// Inodes 1 to 10 have a purpose; `lost+found` has the one after them.
pub(super) const INODES_IN_USE: u32 = 11;
/// The group that has the copy of superblock and descriptors.
pub(super) const BACKUP_GROUP: u64 = 1;

/// A disk for every 16 KiB of which there is an inode, as Debian's mke2fs has it.
const BYTES_PER_INODE: u64 = 16 << 10;
/// A last group with fewer free blocks than this is left out.
const LEAST_FREE: u64 = 50;

/// What is where, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes_per_group: u32,
    pub(super) descriptor_blocks: u64,
    pub(super) journal_blocks: u64,
}

impl Geometry {
    /// For a disk of `bytes`. What is too little for another group is left over at its end.
    pub(super) fn of(bytes: u64) -> Result<Self, FormatError> {
        if !(super::LEAST_BYTES..=super::MOST_BYTES).contains(&bytes) {
            return Err(FormatError::Size { bytes });
        }
        let this = Self::with(bytes / BLOCK);
        let last = this.groups - 1;
        if last > 0 && this.group_blocks(last) < this.used(last) + LEAST_FREE {
            return Ok(Self::with(last * BLOCKS_PER_GROUP));
        }
        Ok(this)
    }

    fn with(blocks: u64) -> Self {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inodes = blocks.min(BLOCKS_PER_GROUP) * BLOCK / BYTES_PER_INODE;
        Self {
            blocks,
            groups,
            // Whole blocks of inodes; far below a bitmap's bits.
            inodes_per_group: inodes.next_multiple_of(BLOCK / INODE) as u32,
            descriptor_blocks: (groups * DESCRIPTOR).div_ceil(BLOCK),
            journal_blocks: journal_blocks(blocks),
        }
    }

    pub(super) fn inodes(&self) -> u32 {
        // At most 2^17 groups of 2^13.
        self.groups as u32 * self.inodes_per_group
    }

    pub(super) fn start(&self, group: u64) -> u64 {
        group * BLOCKS_PER_GROUP
    }

    /// Blocks of a group: only the last may have fewer than the others.
    pub(super) fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - self.start(group)).min(BLOCKS_PER_GROUP)
    }

    pub(super) fn block_bitmap(&self, group: u64) -> u64 {
        let copy = if matches!(group, 0 | BACKUP_GROUP) { 1 + self.descriptor_blocks } else { 0 };
        self.start(group) + copy
    }

    pub(super) fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 1
    }

    pub(super) fn inode_table(&self, group: u64) -> u64 {
        self.inode_bitmap(group) + 1
    }

    fn after_table(&self, group: u64) -> u64 {
        self.inode_table(group) + u64::from(self.inodes_per_group) * INODE / BLOCK
    }

    pub(super) fn root_directory(&self) -> u64 {
        self.after_table(0)
    }

    pub(super) fn lost_and_found(&self) -> u64 {
        self.root_directory() + 1
    }

    pub(super) fn journal(&self) -> u64 {
        self.lost_and_found() + 1
    }

    /// Blocks in use; they are the first of the group.
    pub(super) fn used(&self, group: u64) -> u64 {
        match group {
            0 => self.journal() + self.journal_blocks,
            _ => self.after_table(group) - self.start(group),
        }
    }

    pub(super) fn free(&self, group: u64) -> u64 {
        self.group_blocks(group) - self.used(group)
    }

    pub(super) fn free_blocks(&self) -> u64 {
        (0..self.groups).map(|group| self.free(group)).sum()
    }
}

/// The journal wraps around, so all of its blocks become real ones on the host sooner or later: it ends at 64 MiB, where mke2fs would go on to
/// 1 GiB. The kernel wants 1024 blocks at least.
fn journal_blocks(blocks: u64) -> u64 {
    match (blocks * BLOCK) >> 20 {
        0..128 => 1024,
        128..1024 => 4096,
        1024..2048 => 8192,
        _ => 16384,
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, BLOCKS_PER_GROUP, Geometry};
    use crate::ext4::{LEAST_BYTES, MOST_BYTES};

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_sizes_that_hold_a_file_system_are_taken() {
        for bytes in [0, 1, LEAST_BYTES - 1, MOST_BYTES + 1, u64::MAX] {
            let said = Geometry::of(bytes).unwrap_err().to_string();
            assert!(said.contains(&bytes.to_string()) && said.contains("32 MiB"), "{said}");
        }
    }

    #[test]
    fn everything_fits_into_its_group() {
        for bytes in [LEAST_BYTES, 33 * MIB + 5, 127 * MIB, 128 * MIB, 1023 * MIB, 64 << 30, (1 << 40) - 1, MOST_BYTES]
        {
            let geometry = Geometry::of(bytes).unwrap();
            for group in 0..geometry.groups {
                assert!(geometry.used(group) < geometry.group_blocks(group), "group {group} of {bytes} bytes");
            }
            assert!(geometry.blocks * BLOCK <= bytes);
            assert_eq!(u64::from(geometry.inodes()), geometry.groups * u64::from(geometry.inodes_per_group));
        }
    }

    #[test]
    fn an_end_that_holds_no_group_is_left_out() {
        let whole = 128 * MIB;
        let blocks = |bytes| Geometry::of(bytes).unwrap().blocks;
        assert_eq!(blocks(whole + 4096), BLOCKS_PER_GROUP);
        assert_eq!(blocks(2 * whole + 2 * MIB), 2 * BLOCKS_PER_GROUP);
        // Two bitmaps and a table of 512 blocks, and what must be free.
        let least = 2 + 512 + 50;
        assert_eq!(blocks(2 * whole + least * BLOCK - 1), 2 * BLOCKS_PER_GROUP);
        assert_eq!(blocks(2 * whole + least * BLOCK), 2 * BLOCKS_PER_GROUP + least);
    }
}
