//! An empty ext4 file system in a sparse file, written without any program and never mounted by this host.
//!
//! A file system of 64 GiB is about 24 blocks that are not zero, at four places. All that a kernel could take over from holes stays a
//! hole: inode tables are zero, and the groups' flags say that they are (`INODE_ZEROED`) and that the bitmaps were never needed, so that the
//! kernel neither reads nor initialises anything of them, also not later and in the background.
//!
//! Sources: Linux `Documentation/filesystems/ext4/`, `fs/ext4/ext4.h`, `include/linux/jbd2.h`; e2fsck(8) is asked by the tests. Features:
//! has_journal, ext_attr, dir_index, sparse_super2, filetype, extents, 64bit, flex_bg, large_file, huge_file, dir_nlink, extra_isize,
//! metadata_csum. Any Linux since 3.18 can mount it.

mod geometry;
mod group;
mod inode;
mod record;
mod superblock;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::checksum::crc32c;
use geometry::{BACKUP_GROUP, BLOCK, Geometry};

/// Bytes of the smallest disk that can be formatted, 32 MiB.
pub const LEAST_BYTES: u64 = 32 << 20;
/// Bytes of the largest disk that can be formatted, 16 TiB.
pub const MOST_BYTES: u64 = 16 << 40;
/// Bytes that a label can have.
pub const LABEL_BYTES: usize = 16;

/// What tells a file system from others. The rest of it follows from its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Of the file system; random.
    pub uuid: [u8; 16],
    /// What the order of names in large directories depends on; random, so that nobody can choose names that collide.
    pub hash_seed: [u8; 16],
    /// The name in `blkid`; padded with zeroes.
    pub label: [u8; LABEL_BYTES],
    /// When it was made, in seconds since 1970; below 2^34.
    pub created: u64,
}

impl Identity {
    /// Where every checksum of the file system begins.
    fn seed(&self) -> u32 {
        crc32c(u32::MAX, &self.uuid)
    }
}

/// A disk cannot be formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No file system of that size is made here.
    #[error("a disk of {bytes} bytes cannot be formatted; choose between 32 MiB and 16 TiB")]
    Size {
        /// The size.
        bytes: u64,
    },
    /// The file system below does not hold a file of that size.
    #[error("the host's file system does not hold a file of {bytes} bytes; choose a smaller disk")]
    TooLarge {
        /// The size.
        bytes: u64,
    },
    /// Writing failed.
    #[error("write the disk: {0}")]
    Write(#[source] io::Error),
}

/// Makes `file` a sparse disk of `bytes` with an empty file system in it. Whatever was in the file is gone.
///
/// `/` belongs to 0:0 and has mode 0755. Nothing is synced.
///
/// # Errors
/// [`FormatError::Size`] before anything is changed; else the file is left as far as it was written.
pub fn format(file: &File, bytes: u64, identity: &Identity) -> Result<(), FormatError> {
    let geometry = Geometry::of(bytes)?;
    file.set_len(0).map_err(FormatError::Write)?;
    file.set_len(bytes).map_err(|error| match error.raw_os_error() {
        Some(libc::EFBIG | libc::EINVAL) => FormatError::TooLarge { bytes },
        _ => FormatError::Write(error),
    })?;
    for (block, content) in pieces(&geometry, identity) {
        file.write_all_at(&content, block * BLOCK).map_err(FormatError::Write)?;
    }
    Ok(())
}

/// Everything that is not zero: runs of blocks and where they begin.
fn pieces(geometry: &Geometry, identity: &Identity) -> Vec<(u64, Vec<u8>)> {
    let descriptors = group::descriptors(geometry, identity.seed());
    let mut first = vec![0; superblock::OFFSET as usize];
    first.extend(superblock::encode(geometry, identity, 0));
    first.resize(BLOCK as usize, 0);
    first.extend_from_slice(&descriptors);
    first.extend(group::block_bitmap(geometry, 0));
    first.extend(group::inode_bitmap(geometry));
    first.extend(inode::table(geometry, identity));
    let mut second = inode::root_directory(identity);
    second.extend(inode::lost_and_found(identity));
    second.extend(superblock::encode_journal(geometry, identity));
    let mut pieces = vec![(0, first), (geometry.root_directory(), second)];
    if geometry.groups > BACKUP_GROUP {
        let mut backup = superblock::encode(geometry, identity, BACKUP_GROUP);
        backup.resize(BLOCK as usize, 0);
        backup.extend(descriptors);
        pieces.push((geometry.start(BACKUP_GROUP), backup));
        let last = geometry.groups - 1;
        pieces.push((geometry.block_bitmap(last), group::block_bitmap(geometry, last)));
    }
    pieces
}

/// Whether nobody has mounted the file system of `bytes` in `file` since it was formatted: its superblock is as [`format`] wrote it, or
/// was lost with its copy before it reached the disk. The first mount changes it, and waits until all of it has reached the disk.
pub fn is_untouched(file: &File, bytes: u64) -> Result<bool, FormatError> {
    let geometry = Geometry::of(bytes)?;
    let found = read_superblock(file, superblock::OFFSET)?;
    if found == [0; superblock::LENGTH] {
        let backup = geometry.start(BACKUP_GROUP) * BLOCK;
        return Ok(geometry.groups == 1 || read_superblock(file, backup)? == [0; superblock::LENGTH]);
    }
    Ok(superblock::encode(&geometry, &superblock::identity(&found), 0) == found)
}

fn read_superblock(file: &File, offset: u64) -> Result<[u8; superblock::LENGTH], FormatError> {
    let mut found = [0; superblock::LENGTH];
    file.read_exact_at(&mut found, offset).map_err(FormatError::Write)?;
    Ok(found)
}
