//! The layer's files in memory: inodes, and names that lead to them.
//!
//! Made for millions: names live in one array and are found through one table of numbers, so a file costs about 110 bytes and its name.
//! Nothing is ever removed. What a later entry replaces is no longer reached from the root, and only what is reached is written.

use std::hash::{BuildHasher, RandomState};

use super::xattrs::SetId;
use crate::error::LayerError;

/// An inode's place in the tree.
pub(super) type InodeId = u32;
/// The root directory.
pub(super) const ROOT: InodeId = 0;

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// There is none.
    Empty,
    /// In the image, from this block on.
    Blocks(u32),
    /// In memory, to be written behind the inode.
    Packed(u32),
    /// In the image, with holes: runs of chunks of `BLOCK << bits` bytes.
    Chunks { first: u32, count: u32, bits: u8 },
    /// A device's number.
    Device(u32),
    /// A directory's.
    Directory,
}

/// A file of any kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inode {
    /// Type and permissions.
    pub(super) mode: u16,
    /// A directory that hides those of the same name in lower layers.
    pub(super) opaque: bool,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) size: u64,
    pub(super) content: Content,
    pub(super) xattrs: SetId,
}

impl Inode {
    pub(super) fn is(&self, kind: u32) -> bool {
        u32::from(self.mode) & libc::S_IFMT == kind
    }

    pub(super) fn is_dir(&self) -> bool {
        self.is(libc::S_IFDIR)
    }

    /// overlayfs's mark for "there is no such name": a character device 0:0.
    pub(super) fn is_whiteout(&self) -> bool {
        self.is(libc::S_IFCHR) && self.content == Content::Device(0)
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) parent: InodeId,
    pub(super) inode: InodeId,
    name: u32,
    length: u8,
}

/// Some chunks of a sparse file that follow each other in the file and in the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) chunk: u32,
    pub(super) count: u32,
    pub(super) block: u32,
}

/// All files of the layer.
pub(super) struct Tree {
    pub(super) inodes: Vec<Inode>,
    pub(super) links: Vec<Link>,
    pub(super) runs: Vec<Run>,
    /// Link targets and small files.
    packed: Vec<u8>,
    names: Vec<u8>,
    name_limit: u64,
    name_bytes: u64,
    table: Vec<u32>,
    hasher: RandomState,
}

const VACANT: u32 = u32::MAX;

impl Tree {
    pub(super) fn new(root: Inode, name_limit: u64) -> Self {
        Self {
            inodes: vec![root],
            links: Vec::new(),
            runs: Vec::new(),
            packed: Vec::new(),
            names: Vec::new(),
            name_limit,
            name_bytes: 0,
            table: vec![VACANT; 1024],
            // Random keys: names come from whoever wrote the layer. The order of the table shows nowhere.
            hasher: RandomState::new(),
        }
    }

    pub(super) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id as usize]
    }

    pub(super) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id as usize]
    }

    pub(super) fn add_inode(&mut self, inode: Inode) -> InodeId {
        self.inodes.push(inode);
        (self.inodes.len() - 1) as InodeId
    }

    pub(super) fn name(&self, link: &Link) -> &[u8] {
        &self.names[link.name as usize..][..usize::from(link.length)]
    }

    /// The index in `links` of a name, if the directory has it.
    pub(super) fn find(&self, parent: InodeId, name: &[u8]) -> Option<usize> {
        match self.table[self.slot(parent, name)] {
            VACANT => None,
            index => Some(index as usize),
        }
    }

    /// Makes `name` lead to `inode`, whether it exists or not. A name has 1 to 255 bytes.
    pub(super) fn link(&mut self, parent: InodeId, name: &[u8], inode: InodeId) -> Result<(), LayerError> {
        if let Some(index) = self.find(parent, name) {
            self.links[index].inode = inode;
            return Ok(());
        }
        self.count_name(name.len())?;
        let length = u8::try_from(name.len()).map_err(|_| LayerError::Entry {
            name: String::from_utf8_lossy(name).into_owned(),
            what: "name longer than 255 bytes".to_owned(),
        })?;
        self.links.push(Link { parent, inode, name: self.names.len() as u32, length });
        self.names.extend_from_slice(name);
        if self.links.len() * 4 > self.table.len() * 3 {
            self.grow();
        }
        let slot = self.slot(parent, name);
        self.table[slot] = (self.links.len() - 1) as u32;
        Ok(())
    }

    /// Keeps a link's target in memory.
    pub(super) fn pack_target(&mut self, target: &[u8]) -> Result<Content, LayerError> {
        self.count_name(target.len())?;
        let at = self.packed.len() as u32;
        self.packed.extend_from_slice(target);
        Ok(Content::Packed(at))
    }

    /// Room in memory for a small file; the caller fills it.
    pub(super) fn pack_file(&mut self, size: usize) -> (Content, &mut [u8]) {
        let at = self.packed.len();
        self.packed.resize(at + size, 0);
        (Content::Packed(at as u32), &mut self.packed[at..])
    }

    pub(super) fn packed(&self, at: u32, size: u64) -> &[u8] {
        &self.packed[at as usize..][..size as usize]
    }

    fn count_name(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.name_bytes += bytes as u64;
        // Both arrays are addressed by 32 bits; a quarter of that is kept for small files.
        let limit = self.name_limit.min(u64::from(u32::MAX) / 4 * 3);
        if self.name_bytes > limit {
            return Err(LayerError::Limit { of: "bytes of names", limit });
        }
        Ok(())
    }

    /// Where the name is in the table, or would go.
    fn slot(&self, parent: InodeId, name: &[u8]) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one((parent, name)) as usize & mask;
        loop {
            match self.table[slot] {
                VACANT => return slot,
                index => {
                    let link = &self.links[index as usize];
                    if link.parent == parent && self.name(link) == name {
                        return slot;
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        self.table = vec![VACANT; size];
        for index in 0..self.links.len() - 1 {
            let link = self.links[index];
            let slot = self.slot(link.parent, self.name(&link));
            self.table[slot] = index as u32;
        }
    }
}
