//! The on-disk structures of EROFS that we write, and nothing else of it.
//!
//! Source: Linux `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`. All numbers are little-endian. We keep to what
//! Linux 5.15 can read: no 48-bit addresses, no xattr filter, no long prefixes.

use crate::checksum::crc32c;

/// Bytes of a block. Linux wants it no larger than its page.
pub(crate) const BLOCK: u64 = 4096;
/// Inode numbers count slots of this many bytes from `meta_blkaddr`.
pub(super) const SLOT: u64 = 32;
/// Where the superblock stands; also where its checksum starts, which ends with the block.
pub(super) const SUPER_OFFSET: usize = 1024;
/// Longest name in a directory.
pub(super) const NAME_MAX: usize = 255;
/// A hole in a chunk-based file.
pub(super) const NULL_BLOCK: u32 = u32::MAX;
/// Bytes of a directory entry without its name.
pub(super) const DIRENT: usize = 12;
/// Bytes in front of an inode's extended attributes.
pub(super) const XATTR_HEADER: u64 = 12;

const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED: u32 = 4;

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In consecutive blocks.
    Plain = 0,
    /// Behind the inode (we use it only for what is smaller than a block).
    Inline = 2,
    /// In chunks that a table behind the inode lists; the only layout with holes.
    Chunked = 4,
}

/// An inode as it goes to disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskInode {
    pub(super) compact: bool,
    pub(super) layout: Layout,
    /// Bytes of its extended attributes: 0, or the header and a multiple of 4.
    pub(super) xattr_bytes: u64,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    /// First block, device number or chunk format.
    pub(super) location: u32,
    /// Only for 32-bit `stat`.
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

impl DiskInode {
    /// Bytes of the inode itself.
    pub(super) const fn bytes(compact: bool) -> u64 {
        if compact { 32 } else { 64 }
    }

    /// Compact inodes have narrow fields and no time of their own.
    pub(super) fn fits_compact(size: u64, uid: u32, gid: u32, nlink: u32) -> bool {
        let narrow = |value: u32| value <= u32::from(u16::MAX);
        size <= u64::from(u32::MAX) && narrow(uid) && narrow(gid) && narrow(nlink)
    }

    pub(super) fn encode(&self) -> ([u8; 64], usize) {
        let mut out = [0; 64];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        let icount = if self.xattr_bytes == 0 { 0 } else { (self.xattr_bytes - XATTR_HEADER) / 4 + 1 };
        put(&((self.layout as u16) << 1 | u16::from(!self.compact)).to_le_bytes());
        put(&(icount as u16).to_le_bytes());
        put(&self.mode.to_le_bytes());
        if self.compact {
            put(&(self.nlink as u16).to_le_bytes());
            put(&(self.size as u32).to_le_bytes());
            put(&[0; 4]);
            put(&self.location.to_le_bytes());
            put(&self.number.to_le_bytes());
            put(&(self.uid as u16).to_le_bytes());
            put(&(self.gid as u16).to_le_bytes());
            put(&[0; 4]);
        } else {
            put(&[0; 2]);
            put(&self.size.to_le_bytes());
            put(&self.location.to_le_bytes());
            put(&self.number.to_le_bytes());
            put(&self.uid.to_le_bytes());
            put(&self.gid.to_le_bytes());
            put(&self.mtime.0.to_le_bytes());
            put(&self.mtime.1.to_le_bytes());
            put(&self.nlink.to_le_bytes());
            put(&[0; 16]);
        }
        (out, at)
    }
}

/// What the superblock says.
#[derive(Clone, Copy, Debug)]
pub(super) struct SuperBlock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    /// The time of compact inodes.
    pub(super) epoch: (i64, u32),
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) xattr_block: u32,
    pub(super) uuid: [u8; 16],
    pub(super) chunked: bool,
}

impl SuperBlock {
    /// The whole first block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SUPER_OFFSET];
        out.extend(MAGIC.to_le_bytes());
        out.extend([0; 4]);
        out.extend((COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        out.push(BLOCK.trailing_zeros() as u8);
        out.push(0);
        out.extend(self.root.to_le_bytes());
        out.extend(self.inodes.to_le_bytes());
        out.extend(self.epoch.0.to_le_bytes());
        out.extend(self.epoch.1.to_le_bytes());
        out.extend(self.blocks.to_le_bytes());
        out.extend(self.meta_block.to_le_bytes());
        out.extend(self.xattr_block.to_le_bytes());
        out.extend(self.uuid);
        out.extend([0; 16]);
        out.extend(if self.chunked { INCOMPAT_CHUNKED } else { 0 }.to_le_bytes());
        out.resize(BLOCK as usize, 0);
        let sum = crc32c(u32::MAX, &out[SUPER_OFFSET..]);
        out[SUPER_OFFSET + 4..SUPER_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// Bytes from the image's start to the end of the superblock's fields.
pub(crate) const SUPER_END: usize = SUPER_OFFSET + 128;

/// Bytes of the image that begins with `head`, as its superblock tells; `None` where it is no EROFS image of ours.
pub(crate) fn image_bytes(head: &[u8; SUPER_END]) -> Option<u64> {
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| head[SUPER_OFFSET + at + index]));
    (number(0) == MAGIC && head[SUPER_OFFSET + 12] == BLOCK.trailing_zeros() as u8)
        .then(|| u64::from(number(36)) * BLOCK)
}

/// The `file_type` of a directory entry.
pub(super) fn dirent_type(mode: u16) -> u8 {
    match u32::from(mode) & libc::S_IFMT {
        libc::S_IFREG => 1,
        libc::S_IFDIR => 2,
        libc::S_IFCHR => 3,
        libc::S_IFBLK => 4,
        libc::S_IFIFO => 5,
        libc::S_IFSOCK => 6,
        libc::S_IFLNK => 7,
        _ => 0,
    }
}

/// Linux's `new_encode_dev`.
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

#[cfg(test)]
mod tests {
    use super::device_number;

    #[test]
    fn device_numbers_are_split_as_linux_splits_them() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(0xfff, 0xf_ffff), u32::MAX);
        assert_eq!(device_number(8, 0x123), 0x0010_0823);
    }
}
