//! The end of a conversion: places for all inodes, then inodes, attributes and directories behind the data, the superblock last.
//!
//! ```text
//! block 0      data blocks …        inodes …            shared attributes   large directories
//! superblock   (written first)      ▲ meta_blkaddr      ▲ xattr_blkaddr
//! ```

use std::collections::HashMap;

use super::directory;
use super::format::{BLOCK, DiskInode, Layout, NULL_BLOCK, SLOT, SuperBlock};
use super::layer::Layer;
use super::reached::Reached;
use super::sparse_content::chunk_count;
use super::tree::{Content, Inode, InodeId, ROOT, Tree};
use super::xattrs::{IMPLIED_ROOT, InternError, MAY_HIDE, OPAQUE, PlacedXattrs};
use super::{LayerStats, image_writer::ImageWriter};
use crate::error::LayerError;

/// Blocks with room left that are tried for the next inode. Few, so that neighbours stay neighbours.
const OPEN_BLOCKS: usize = 32;

/// Everything that is decided before the first byte of metadata is written.
struct Plan {
    tree: Tree,
    reached: Reached,
    xattrs: PlacedXattrs,
    /// The time that compact inodes have.
    epoch: (i64, u32),
    /// Per inode, in slots from `meta_block`.
    nids: Vec<u32>,
    meta_block: u32,
    xattr_block: u32,
    /// First blocks of directories and link targets that do not fit behind their inodes.
    outside: HashMap<InodeId, u32>,
    end_block: u32,
    chunked: bool,
}

impl Layer<'_> {
    /// Writes the metadata of all that was applied.
    pub(super) fn finish(mut self) -> Result<LayerStats, LayerError> {
        let reached = Reached::new(&self.tree);
        self.mark_directories(&reached)?;
        self.writer.pad()?;
        let Layer { tree, xattrs, mut writer, mut stats, .. } = self;
        let mut uses = vec![0; xattrs.set_count()];
        for &id in &reached.order {
            uses[tree.inode(id).xattrs as usize] += 1;
        }
        let plan = Plan::new(tree, reached, xattrs.place(&uses), &writer)?;
        let root = plan.write(&mut writer)?;
        let first_block = plan.super_block(root, writer.uuid()).encode();
        stats.inodes = plan.reached.order.len() as u64;
        stats.image_bytes = writer.finish(&first_block)?;
        Ok(stats)
    }

    /// Turns what we know of directories into attributes that overlayfs and we find again.
    fn mark_directories(&mut self, reached: &Reached) -> Result<(), LayerError> {
        for &id in &reached.order {
            let mut set = self.tree.inode(id).xattrs;
            let opaque = self.tree.inode(id).opaque.then_some(OPAQUE);
            let implied = (id == ROOT && self.root_implied).then_some(IMPLIED_ROOT);
            let may_hide = reached.has_whiteouts(id).then_some(MAY_HIDE);
            for mark in opaque.into_iter().chain(implied).chain(may_hide) {
                set = self.xattrs.with(set, mark).map_err(|error| match error {
                    InternError::Entry(what) => LayerError::Entry { name: "(a directory)".to_owned(), what },
                    InternError::Limit(error) => error,
                })?;
            }
            self.tree.inode_mut(id).xattrs = set;
        }
        Ok(())
    }
}

impl Plan {
    fn new(tree: Tree, reached: Reached, xattrs: PlacedXattrs, writer: &ImageWriter<'_>) -> Result<Self, LayerError> {
        let mut plan = Self {
            epoch: majority(reached.order.iter().map(|&id| tree.inode(id).mtime)),
            nids: vec![0; tree.inodes.len()],
            meta_block: writer.block(),
            xattr_block: 0,
            outside: HashMap::new(),
            end_block: 0,
            chunked: false,
            tree,
            reached,
            xattrs,
        };
        plan.place(writer)?;
        Ok(plan)
    }

    fn place(&mut self, writer: &ImageWriter<'_>) -> Result<(), LayerError> {
        let mut slots = Slots::new();
        let mut outside: Vec<(InodeId, u64)> = Vec::new();
        for &id in &self.reached.order {
            if self.tree.inode(id).is_dir() {
                let entries = self.reached.entries(&self.tree, id, |_| 0);
                self.tree.inode_mut(id).size = directory::size(entries.iter().map(|entry| entry.name.len()));
            }
            let inode = self.tree.inode(id);
            let header = DiskInode::bytes(self.is_compact(id, inode)) + self.xattrs.bytes(inode.xattrs);
            let behind = match inode.content {
                Content::Packed(_) | Content::Directory if header + inode.size <= BLOCK => inode.size,
                Content::Packed(_) | Content::Directory => {
                    outside.push((id, inode.size.div_ceil(BLOCK)));
                    0
                }
                Content::Chunks { bits, .. } => {
                    self.chunked = true;
                    4 * chunk_count(inode.size, bits)
                }
                Content::Empty | Content::Blocks(_) | Content::Device(_) => 0,
            };
            let offset = slots.place(header + behind);
            // Checked here, before the numbers are cut to 32 bits.
            writer.reserve(slots.blocks * BLOCK)?;
            self.nids[id as usize] = u32::try_from(offset / SLOT)
                .map_err(|_| LayerError::Limit { of: "bytes of inodes", limit: u64::from(u32::MAX) * SLOT })?;
        }
        let shared = (self.xattrs.shared.len() as u64).div_ceil(BLOCK);
        let blocks = slots.blocks + shared + outside.iter().map(|&(_, blocks)| blocks).sum::<u64>();
        writer.reserve(blocks * BLOCK)?;
        self.xattr_block = self.meta_block + slots.blocks as u32;
        let mut next = self.xattr_block + shared as u32;
        for (id, blocks) in outside {
            self.outside.insert(id, next);
            next += blocks as u32;
        }
        if next == self.xattr_block && slots.last_is_full() {
            // fsck.erofs 1.5 reads the attributes' header behind every inode, also behind the last one that has none.
            writer.reserve((blocks + 1) * BLOCK)?;
            next += 1;
        }
        self.end_block = next;
        Ok(())
    }

    fn is_compact(&self, id: InodeId, inode: &Inode) -> bool {
        let links = self.reached.link_counts[id as usize];
        inode.mtime == self.epoch && DiskInode::fits_compact(inode.size, inode.uid, inode.gid, links)
    }

    fn nid(&self, id: InodeId) -> u64 {
        u64::from(self.nids[id as usize])
    }

    /// Writes all metadata in the order it has in the image; returns the root's number.
    fn write(&self, writer: &mut ImageWriter<'_>) -> Result<u16, LayerError> {
        let mut order = self.reached.order.clone();
        order.sort_unstable_by_key(|&id| self.nids[id as usize]);
        let mut buffer = Vec::new();
        for (number, &id) in order.iter().enumerate() {
            writer.skip_to(u64::from(self.meta_block) * BLOCK + self.nid(id) * SLOT)?;
            self.write_inode(id, number as u32 + 1, &mut buffer, writer)?;
        }
        writer.skip_to(u64::from(self.xattr_block) * BLOCK)?;
        writer.put(&self.xattrs.shared)?;
        let mut outside: Vec<(u32, InodeId)> = self.outside.iter().map(|(&id, &block)| (block, id)).collect();
        outside.sort_unstable();
        for (block, id) in outside {
            writer.skip_to(u64::from(block) * BLOCK)?;
            self.content(id, &mut buffer);
            writer.put(&buffer)?;
        }
        writer.skip_to(u64::from(self.end_block) * BLOCK)?;
        Ok(self.nids[ROOT as usize] as u16)
    }

    fn write_inode(
        &self,
        id: InodeId,
        number: u32,
        buffer: &mut Vec<u8>,
        writer: &mut ImageWriter<'_>,
    ) -> Result<(), LayerError> {
        let inode = self.tree.inode(id);
        let outside = self.outside.get(&id);
        let (layout, location) = match inode.content {
            Content::Blocks(first) => (Layout::Plain, first),
            Content::Empty => (Layout::Plain, 0),
            Content::Device(device) => (Layout::Plain, device),
            Content::Chunks { bits, .. } => (Layout::Chunked, u32::from(bits)),
            Content::Packed(_) | Content::Directory => match outside {
                Some(&first) => (Layout::Plain, first),
                None => (Layout::Inline, 0),
            },
        };
        let disk = DiskInode {
            compact: self.is_compact(id, inode),
            layout,
            xattr_bytes: self.xattrs.bytes(inode.xattrs),
            mode: inode.mode,
            nlink: self.reached.link_counts[id as usize],
            size: inode.size,
            location,
            number,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
        };
        let (bytes, length) = disk.encode();
        writer.put(&bytes[..length])?;
        writer.put(&self.xattrs.encode(inode.xattrs))?;
        match inode.content {
            Content::Chunks { first, count, bits } => {
                let runs = &self.tree.runs[first as usize..][..count as usize];
                let mut chunk = 0;
                for run in runs {
                    put_blocks(writer, (chunk..u64::from(run.chunk)).map(|_| NULL_BLOCK))?;
                    put_blocks(writer, (0..run.count).map(|i| run.block + (i << bits)))?;
                    chunk = u64::from(run.chunk) + u64::from(run.count);
                }
                put_blocks(writer, (chunk..chunk_count(inode.size, bits)).map(|_| NULL_BLOCK))
            }
            _ if layout == Layout::Inline => {
                self.content(id, buffer);
                writer.put(buffer)
            }
            _ => Ok(()),
        }
    }

    /// The content of a directory, a link or a small file.
    fn content(&self, id: InodeId, out: &mut Vec<u8>) {
        out.clear();
        let inode = self.tree.inode(id);
        match inode.content {
            Content::Directory => directory::encode(&self.reached.entries(&self.tree, id, |id| self.nid(id)), out),
            Content::Packed(at) => out.extend_from_slice(self.tree.packed(at, inode.size)),
            _ => {}
        }
    }

    fn super_block(&self, root: u16, uuid: [u8; 16]) -> SuperBlock {
        SuperBlock {
            root,
            inodes: self.reached.order.len() as u64,
            epoch: self.epoch,
            blocks: self.end_block,
            meta_block: self.meta_block,
            xattr_block: self.xattr_block,
            uuid,
            chunked: self.chunked,
        }
    }
}

fn put_blocks(writer: &mut ImageWriter<'_>, blocks: impl Iterator<Item = u32>) -> Result<(), LayerError> {
    let mut buffer = Vec::with_capacity(4096);
    for block in blocks {
        buffer.extend(block.to_le_bytes());
        if buffer.len() == 4096 {
            writer.put(&buffer)?;
            buffer.clear();
        }
    }
    writer.put(&buffer)
}

/// Places for inodes. What stands behind one must not cross a block, and a good fit keeps small files small.
struct Slots {
    blocks: u64,
    /// Blocks with room, oldest first, and how much of them is used.
    open: Vec<(u64, u64)>,
}

impl Slots {
    fn new() -> Self {
        // Inode number 0 would look like "none" to readers of directories.
        Self { blocks: 1, open: vec![(0, SLOT)] }
    }

    fn place(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(SLOT);
        let fits = self.open.iter_mut().filter(|(_, used)| used + bytes <= BLOCK);
        if let Some((block, used)) = fits.max_by_key(|(_, used)| *used) {
            let offset = *block * BLOCK + *used;
            *used += bytes;
            return offset;
        }
        let offset = self.blocks * BLOCK;
        self.blocks += bytes.div_ceil(BLOCK);
        if !bytes.is_multiple_of(BLOCK) {
            self.open.push((self.blocks - 1, bytes % BLOCK));
        }
        self.open.retain(|(_, used)| used + SLOT <= BLOCK);
        if self.open.len() > OPEN_BLOCKS {
            self.open.remove(0);
        }
        offset
    }
}

impl Slots {
    fn last_is_full(&self) -> bool {
        !self.open.iter().any(|&(block, used)| block + 1 == self.blocks && used + SLOT <= BLOCK)
    }
}

/// The value that more than half of all have, if there is one (Boyer and Moore); any otherwise.
fn majority<T: PartialEq + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    let (mut candidate, mut lead) = (T::default(), 0u64);
    for value in values {
        match (lead, value == candidate) {
            (0, _) => (candidate, lead) = (value, 1),
            (_, true) => lead += 1,
            (_, false) => lead -= 1,
        }
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, SLOT, Slots, majority};

    #[test]
    fn nothing_that_fits_into_a_block_crosses_one() {
        let mut slots = Slots::new();
        let mut taken = std::collections::BTreeSet::new();
        for i in 0..2000u64 {
            let bytes = [32, 64, 100, 2000, 4096, 4000, 9000, 8192][(i * i % 8) as usize];
            let offset = slots.place(bytes);
            assert!(offset > 0 && offset.is_multiple_of(SLOT));
            assert!(bytes > BLOCK || offset / BLOCK == (offset + bytes - 1) / BLOCK);
            for slot in offset / SLOT..(offset + bytes).div_ceil(SLOT) {
                assert!(taken.insert(slot), "slot {slot} twice");
            }
        }
        assert!(taken.last().unwrap() * SLOT < slots.blocks * BLOCK);
    }

    #[test]
    fn the_commonest_time_is_found_if_it_is_the_majority() {
        assert_eq!(majority([1, 2, 2, 3, 2, 2].into_iter()), 2);
        assert_eq!(majority(std::iter::empty::<u8>()), 0);
    }
}
