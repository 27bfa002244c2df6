//! The superblock (`struct ext4_super_block`), its copy, and the journal's own superblock (`struct journal_superblock_s`).

use super::geometry::{BACKUP_GROUP, BLOCK, BLOCKS_PER_GROUP, DESCRIPTOR, Geometry, INODE, INODES_IN_USE};
use super::inode::{JOURNAL_INODE, journal_map};
use super::record::Record;
use super::{Identity, LABEL_BYTES};
use crate::checksum::crc32c;

/// Where it stands on the disk, and its length.
pub(super) const OFFSET: u64 = 1024;
pub(super) const LENGTH: usize = 1024;

const MAGIC: u16 = 0xEF53;
const REVISION_WITH_FEATURES: u32 = 1;
const STATE_CLEAN: u16 = 1;
/// What the kernel does about a damaged file system: it stops writing to it.
const ON_ERROR_READ_ONLY: u16 = 2;
const NEVER: u16 = u16::MAX;
/// The inode numbers below it have a purpose.
const FIRST_FREE_INODE: u32 = INODES_IN_USE;
/// Every inode has room for this many bytes of new fields, and gets them.
const EXTRA_INODE_BYTES: u16 = 32;
const HASH_HALF_MD4: u8 = 1;
/// How the directories' hash sees a byte above 127: as x86 always did, whatever the machine.
const FLAG_SIGNED_HASH: u32 = 1;
const MOUNT_USER_XATTR_AND_ACL: u32 = 0x4 | 0x8;
const CHECKSUM_CRC32C: u8 = 1;
const JOURNAL_MAP_BACKED_UP: u8 = 1;
/// Groups that the allocator sees as one, as a power of two.
const LOG_GROUPS_PER_FLEX: u8 = 4;

/// has_journal, ext_attr, dir_index, sparse_super2.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20 | 0x200;
/// filetype, extents, 64bit, flex_bg.
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const READ_ONLY_COMPATIBLE: u32 = 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

const JOURNAL_MAGIC: u32 = 0xC03B_3998;
const JOURNAL_SUPERBLOCK_V2: u32 = 4;

const AT_UUID: usize = 0x68;
const AT_LABEL: usize = 0x78;
const AT_HASH_SEED: usize = 0xEC;
const AT_CREATED: usize = 0x108;
const AT_CREATED_HIGH: usize = 0x276;
const AT_CHECKSUM: usize = 0x3FC;

/// The superblock, or its copy in `group`.
pub(super) fn encode(geometry: &Geometry, identity: &Identity, group: u64) -> Vec<u8> {
    let mut out = Record::new(LENGTH);
    counts(&mut out, geometry);
    out.u32(0x18, BLOCK.ilog2() - 10).u32(0x1C, BLOCK.ilog2() - 10);
    out.u16(0x36, NEVER).u16(0x38, MAGIC).u16(0x3A, STATE_CLEAN).u16(0x3C, ON_ERROR_READ_ONLY);
    out.u32(0x4C, REVISION_WITH_FEATURES).u32(0x54, FIRST_FREE_INODE);
    out.u16(0x58, INODE as u16).u16(0x5A, group as u16);
    out.u32(0x5C, COMPATIBLE).u32(0x60, INCOMPATIBLE).u32(0x64, READ_ONLY_COMPATIBLE);
    out.put(AT_UUID, &identity.uuid).put(AT_LABEL, &identity.label).put(AT_HASH_SEED, &identity.hash_seed);
    // Last written, last checked, made. The high bytes of the three are one each.
    let (low, high) = (identity.created as u32, (identity.created >> 32) as u8);
    out.u32(0x30, low).u32(0x40, low).u32(AT_CREATED, low);
    out.u8(0x274, high).u8(AT_CREATED_HIGH, high).u8(0x277, high);
    out.u8(0xFC, HASH_HALF_MD4).u8(0xFD, JOURNAL_MAP_BACKED_UP).u16(0xFE, DESCRIPTOR as u16);
    out.u32(0xE0, JOURNAL_INODE).u32(0x100, MOUNT_USER_XATTR_AND_ACL);
    let bytes = geometry.journal_blocks * BLOCK;
    out.put(0x10C, &journal_map(geometry)).split64(0x10C + 64, 0x10C + 60, bytes);
    out.u16(0x15C, EXTRA_INODE_BYTES).u16(0x15E, EXTRA_INODE_BYTES).u32(0x160, FLAG_SIGNED_HASH);
    out.u8(0x174, LOG_GROUPS_PER_FLEX).u8(0x175, CHECKSUM_CRC32C);
    if geometry.groups > BACKUP_GROUP {
        out.u32(0x24C, BACKUP_GROUP as u32);
    }
    let sum = crc32c(u32::MAX, &out.bytes()[..AT_CHECKSUM]);
    out.u32(AT_CHECKSUM, sum);
    out.finish()
}

fn counts(out: &mut Record, geometry: &Geometry) {
    out.u32(0x00, geometry.inodes()).split64(0x04, 0x150, geometry.blocks);
    out.split64(0x0C, 0x158, geometry.free_blocks()).u32(0x10, geometry.inodes() - INODES_IN_USE);
    out.u32(0x20, BLOCKS_PER_GROUP as u32).u32(0x24, BLOCKS_PER_GROUP as u32).u32(0x28, geometry.inodes_per_group);
    // What df(1) never counts: all that is in use but the two directories. Not written down, it is summed up at each mount.
    let used = geometry.blocks - geometry.free_blocks();
    out.u32(0x248, (used - 2) as u32);
}

/// What identifies the file system whose superblock this is, whatever else it says.
pub(super) fn identity(superblock: &[u8; LENGTH]) -> Identity {
    let array = |at: usize| -> [u8; 16] { std::array::from_fn(|index| superblock[at + index]) };
    let created: [u8; 4] = std::array::from_fn(|index| superblock[AT_CREATED + index]);
    Identity {
        uuid: array(AT_UUID),
        hash_seed: array(AT_HASH_SEED),
        label: std::array::from_fn::<u8, LABEL_BYTES, _>(|index| superblock[AT_LABEL + index]),
        created: u64::from(u32::from_le_bytes(created)) | u64::from(superblock[AT_CREATED_HIGH]) << 32,
    }
}

/// The first block of an empty journal.
pub(super) fn encode_journal(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    let mut out = Record::new(BLOCK as usize);
    out.be32(0x00, JOURNAL_MAGIC).be32(0x04, JOURNAL_SUPERBLOCK_V2);
    out.be32(0x0C, BLOCK as u32).be32(0x10, geometry.journal_blocks as u32);
    // The first block of the log, and the number that its first transaction will have; it starts nowhere, so it is empty.
    out.be32(0x14, 1).be32(0x18, 1);
    out.put(0x30, &identity.uuid).be32(0x40, 1);
    out.finish()
}
