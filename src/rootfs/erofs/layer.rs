//! From entries of a tar to files of the tree: what replaces what, what hides what.
//!
//! The rules are Docker's for a layer (moby `pkg/archive/diff.go`) with an overlay as the target, and OCI's `layer.md`:
//! - a directory over a directory changes its attributes; anything else over anything replaces it;
//! - `.wh.NAME` hides NAME of the layers below, never NAME of this layer: beside a directory of this layer it makes that one opaque;
//! - `.wh..wh..opq` makes its directory opaque; other `.wh..wh.*` are AUFS's own and are skipped;
//! - a character device 0:0 is what overlayfs takes for a whiteout, and so do we: its author could have written `.wh.NAME`;
//! - directories that no entry describes are 0755 and root's.

use std::fs::File;

use super::format::{self, BLOCK};
use super::image_writer::ImageWriter;
use super::path::{self, Missing};
use super::tree::{Content, Inode, InodeId, ROOT, Tree};
use super::xattrs::{InternError, SetId, Xattrs};
use super::{LayerStats, Limits};
use crate::error::LayerError;
use sbx_archive::{Entry, Kind, Reader, printable};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// Linux's longest target of a symbolic link.
const TARGET_MAX: usize = 4095;

/// A layer on its way from tar to image.
pub(super) struct Layer<'a> {
    pub(super) limits: &'a Limits,
    pub(super) tree: Tree,
    pub(super) xattrs: Xattrs,
    pub(super) writer: ImageWriter<'a>,
    pub(super) stats: LayerStats,
    /// No entry described the root.
    pub(super) root_implied: bool,
    /// What is left for small files in memory.
    packed_left: u64,
    /// All whiteouts are one inode.
    whiteout: Option<InodeId>,
    /// The directory of the last entry, by its name as it stood there: most entries follow their neighbours.
    last_parent: Option<(Vec<u8>, InodeId)>,
}

impl<'a> Layer<'a> {
    pub(super) fn new(image: &'a File, limits: &'a Limits) -> Self {
        let root = directory_inode(0o755, (0, 0));
        Self {
            limits,
            tree: Tree::new(root, limits.name_bytes),
            xattrs: Xattrs::new(limits.xattr_bytes),
            writer: ImageWriter::new(image, limits.image_bytes),
            stats: LayerStats::default(),
            root_implied: true,
            packed_left: limits.packed_bytes.min(u64::from(u32::MAX) / 4),
            whiteout: None,
            last_parent: None,
        }
    }

    /// Takes one entry and its content.
    pub(super) fn apply(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), LayerError> {
        self.stats.entries += 1;
        self.check_count()?;
        let bad = |what: String| LayerError::Entry { name: printable(&entry.path), what };
        let parts = path::components(&entry.path, self.limits.path_bytes).map_err(bad)?;
        let Some((&name, parents)) = parts.split_last() else {
            return self.describe_root(entry);
        };
        if parents.iter().chain([&name]).any(|part| part.starts_with(AUFS) && *part != OPAQUE) {
            return Ok(());
        }
        if let Some(part) = parents.iter().find(|part| part.starts_with(WHITEOUT)) {
            return Err(bad(format!("{} is reserved for whiteouts and cannot be a directory", printable(part))));
        }
        let parent = self.parent(entry, parents, name)?;
        if name == OPAQUE {
            self.stats.whiteouts += 1;
            self.tree.inode_mut(parent).opaque = true;
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return match hidden {
                b"" | b"." | b".." => Err(bad("whiteout of nothing".to_owned())),
                _ => self.hide(parent, hidden),
            };
        }
        match entry.kind {
            Kind::CharDevice if entry.device == (0, 0) => self.hide(parent, name),
            Kind::Directory => self.make_directory(entry, parent, name),
            Kind::HardLink => self.hard_link(entry, parent, name),
            _ => {
                let inode = self.file(entry, reader)?;
                let inode = self.tree.add_inode(inode);
                self.replace(parent, name, inode)
            }
        }
    }

    /// A directory that the tar has entries in but does not describe.
    pub(super) fn implied_directory(
        &mut self,
        parent: InodeId,
        name: &[u8],
        mtime: (i64, u32),
        over_whiteout: bool,
        entry: &[u8],
    ) -> Result<InodeId, LayerError> {
        self.check_count()?;
        if name.starts_with(WHITEOUT) {
            let what = format!("{} on the way is reserved for whiteouts", printable(name));
            return Err(LayerError::Entry { name: printable(entry), what });
        }
        let mut inode = directory_inode(0o755, mtime);
        inode.opaque = over_whiteout;
        let inode = self.tree.add_inode(inode);
        self.replace(parent, name, inode)?;
        Ok(inode)
    }

    fn check_count(&self) -> Result<(), LayerError> {
        let limit = self.limits.entries.min(u64::from(u32::MAX) / 4);
        let count = self.stats.entries.max(self.tree.inodes.len() as u64);
        if count > limit { Err(LayerError::Limit { of: "entries", limit }) } else { Ok(()) }
    }

    fn describe_root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Directory {
            let what = "the layer's root can only be a directory".to_owned();
            return Err(LayerError::Entry { name: printable(&entry.path), what });
        }
        self.root_implied = false;
        self.describe_directory(entry, ROOT)
    }

    fn describe_directory(&mut self, entry: &Entry, directory: InodeId) -> Result<(), LayerError> {
        let xattrs = self.intern(entry, libc::S_IFDIR)?;
        let inode = self.tree.inode_mut(directory);
        let opaque = inode.opaque;
        *inode = Inode { opaque, ..described(entry, libc::S_IFDIR, xattrs) };
        inode.content = Content::Directory;
        Ok(())
    }

    fn parent(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Result<InodeId, LayerError> {
        let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        // The text before the name stands for its parents only if nothing in the name itself was cleaned away.
        let text = path.strip_suffix(name);
        if let (Some(text), Some((known, parent))) = (text, &self.last_parent)
            && text == known
        {
            return Ok(*parent);
        }
        let missing = Missing::Create { mtime: (entry.mtime, entry.mtime_nsec) };
        let parent = self.directory(parents, missing, &entry.path)?.unwrap_or(ROOT);
        self.last_parent =
            text.filter(|text| text.is_empty() || text.ends_with(b"/")).map(|text| (text.to_vec(), parent));
        Ok(parent)
    }

    fn make_directory(&mut self, entry: &Entry, parent: InodeId, name: &[u8]) -> Result<(), LayerError> {
        let known = self.tree.find(parent, name).map(|index| self.tree.links[index].inode);
        let directory = match known {
            Some(known) if self.tree.inode(known).is_dir() => known,
            _ => {
                let mut inode = directory_inode(0, (0, 0));
                inode.opaque = known.is_some_and(|known| self.tree.inode(known).is_whiteout());
                let inode = self.tree.add_inode(inode);
                self.replace(parent, name, inode)?;
                inode
            }
        };
        self.describe_directory(entry, directory)
    }

    /// Docker's layers come from an overlay's upper directory, where linking a file copies it up: the target is always in the same layer.
    fn hard_link(&mut self, entry: &Entry, parent: InodeId, name: &[u8]) -> Result<(), LayerError> {
        let bad = |what: String| LayerError::Entry { name: printable(&entry.path), what };
        let parts =
            path::components(&entry.link, self.limits.path_bytes).map_err(|what| bad(format!("hard link: {what}")))?;
        let directory = || bad("hard link to a directory".to_owned());
        let (&target, parents) = parts.split_last().ok_or_else(directory)?;
        let found = self
            .directory(parents, Missing::Stop, &entry.path)?
            .and_then(|parent| self.tree.find(parent, target))
            .map(|index| self.tree.links[index].inode)
            .filter(|&id| !self.tree.inode(id).is_whiteout());
        let Some(found) = found else {
            let target = printable(&entry.link);
            return Err(bad(format!(
                "hard link to {target:?}, which this layer does not have (before this entry); rebuild the image so that the layer holds the file itself"
            )));
        };
        if self.tree.inode(found).is_dir() {
            return Err(directory());
        }
        self.replace(parent, name, found)
    }

    /// Hides what lower layers have under this name.
    fn hide(&mut self, parent: InodeId, name: &[u8]) -> Result<(), LayerError> {
        self.stats.whiteouts += 1;
        if let Some(index) = self.tree.find(parent, name) {
            let known = self.tree.links[index].inode;
            if self.tree.inode(known).is_dir() {
                self.tree.inode_mut(known).opaque = true;
            }
            return Ok(());
        }
        let whiteout = match self.whiteout {
            Some(whiteout) => whiteout,
            None => self.tree.add_inode(Inode {
                mode: libc::S_IFCHR as u16,
                content: Content::Device(0),
                ..directory_inode(0, (0, 0))
            }),
        };
        self.whiteout = Some(whiteout);
        self.tree.link(parent, name, whiteout)
    }

    fn replace(&mut self, parent: InodeId, name: &[u8], inode: InodeId) -> Result<(), LayerError> {
        if self.tree.find(parent, name).is_some() {
            // The name may have been part of how the last entry's directory was found.
            self.last_parent = None;
        }
        self.tree.link(parent, name, inode)
    }

    fn intern(&mut self, entry: &Entry, file_type: u32) -> Result<SetId, LayerError> {
        if entry.xattrs.is_empty() {
            return Ok(0);
        }
        let (set, dropped) = self.xattrs.intern(file_type, &entry.xattrs).map_err(|error| match error {
            InternError::Entry(what) => LayerError::Entry { name: printable(&entry.path), what },
            InternError::Limit(error) => error,
        })?;
        self.stats.dropped_xattrs += dropped;
        Ok(set)
    }

    fn file(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<Inode, LayerError> {
        let bad = |what: &str| LayerError::Entry { name: printable(&entry.path), what: what.to_owned() };
        let file_type = match entry.kind {
            Kind::File => libc::S_IFREG,
            Kind::Symlink => libc::S_IFLNK,
            Kind::CharDevice => libc::S_IFCHR,
            Kind::BlockDevice => libc::S_IFBLK,
            Kind::Fifo => libc::S_IFIFO,
            Kind::Directory | Kind::HardLink => return Err(bad("not a file of its own")),
        };
        let xattrs = self.intern(entry, file_type)?;
        let mut inode = described(entry, file_type, xattrs);
        match entry.kind {
            Kind::Symlink if entry.link.is_empty() => {
                return Err(bad("symbolic link without a target"));
            }
            Kind::Symlink if entry.link.len() > TARGET_MAX => {
                return Err(bad("symbolic link whose target is longer than 4095 bytes"));
            }
            Kind::Symlink => {
                inode.mode = libc::S_IFLNK as u16 | 0o777;
                inode.size = entry.link.len() as u64;
                inode.content = self.tree.pack_target(&entry.link)?;
            }
            Kind::CharDevice | Kind::BlockDevice => {
                inode.content = Content::Device(format::device_number(entry.device.0, entry.device.1));
            }
            _ => {
                inode.size = entry.size;
                inode.content = self.content(entry, xattrs, reader)?;
            }
        }
        Ok(inode)
    }

    fn content(&mut self, entry: &Entry, xattrs: SetId, reader: &mut Reader<'_>) -> Result<Content, LayerError> {
        let size = entry.size;
        if size == 0 {
            return Ok(Content::Empty);
        }
        if let Some(map) = &entry.sparse
            && !matches!(map[..], [one] if one.offset == 0 && one.length == size)
        {
            return self.sparse_content(entry, map, reader);
        }
        self.stats.data_bytes += size;
        // Beside its inode, if all of it fits into one block there.
        if size + format::DiskInode::bytes(false) + self.xattrs.most_bytes(xattrs) <= BLOCK && size <= self.packed_left
        {
            self.packed_left -= size;
            let (content, mut room) = self.tree.pack_file(size as usize);
            while !room.is_empty() {
                let got = reader.read(room)?;
                room = &mut room[got..];
            }
            return Ok(content);
        }
        self.writer.reserve(size.saturating_add(BLOCK))?;
        let first = self.writer.block();
        self.copy(size, reader)?;
        self.writer.pad()?;
        Ok(Content::Blocks(first))
    }

    /// Moves bytes of the current entry into the image.
    pub(super) fn copy(&mut self, mut bytes: u64, reader: &mut Reader<'_>) -> Result<(), LayerError> {
        while bytes > 0 {
            bytes -= self.writer.fill(bytes, |room| Ok(reader.read(room)?))? as u64;
        }
        Ok(())
    }
}

fn directory_inode(mode: u16, mtime: (i64, u32)) -> Inode {
    Inode {
        mode: libc::S_IFDIR as u16 | mode,
        opaque: false,
        uid: 0,
        gid: 0,
        mtime,
        size: 0,
        content: Content::Directory,
        xattrs: 0,
    }
}

fn described(entry: &Entry, kind: u32, xattrs: SetId) -> Inode {
    Inode {
        mode: kind as u16 | entry.mode,
        opaque: false,
        uid: entry.uid,
        gid: entry.gid,
        mtime: (entry.mtime, entry.mtime_nsec),
        size: 0,
        content: Content::Empty,
        xattrs,
    }
}
