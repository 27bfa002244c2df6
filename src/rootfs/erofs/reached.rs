//! What of the tree can be reached from its root, and so is written: directories' names in order, and link counts.

use std::collections::HashSet;

use super::directory::Dirent;
use super::format;
use super::tree::{InodeId, Link, ROOT, Tree};

/// The tree as it will be in the image.
pub(super) struct Reached {
    /// Every inode once, the children of a directory next to each other.
    pub(super) order: Vec<InodeId>,
    /// Per inode; 0 is one that is not reached.
    pub(super) link_counts: Vec<u32>,
    /// All links, by directory and then by name.
    sorted: Vec<u32>,
    /// Where a directory's links start in `sorted`; one more than there are inodes.
    starts: Vec<u32>,
    /// Of directories.
    parents: Vec<InodeId>,
    /// Directories with whiteouts.
    hiding: HashSet<InodeId>,
    /// Nothing of lower layers shows in it, because it or one above it is opaque.
    alone: Vec<bool>,
}

impl Reached {
    pub(super) fn new(tree: &Tree) -> Self {
        let (sorted, starts) = sort_links(tree);
        let count = tree.inodes.len();
        let mut reached = Self {
            order: Vec::with_capacity(count),
            link_counts: vec![0; count],
            sorted,
            starts,
            parents: vec![ROOT; count],
            hiding: HashSet::new(),
            alone: vec![false; count],
        };
        reached.walk(tree);
        reached
    }

    fn walk(&mut self, tree: &Tree) {
        self.order.push(ROOT);
        self.link_counts[ROOT as usize] = 2;
        self.alone[ROOT as usize] = tree.inode(ROOT).opaque;
        let mut next = 0;
        while let Some(&directory) = self.order.get(next) {
            next += 1;
            if !tree.inode(directory).is_dir() {
                continue;
            }
            for at in self.starts[directory as usize]..self.starts[directory as usize + 1] {
                let link = tree.links[self.sorted[at as usize] as usize];
                if !self.shows(tree, directory, &link) {
                    continue;
                }
                if tree.inode(link.inode).is_whiteout() {
                    self.hiding.insert(directory);
                }
                let (child, inode) = (link.inode as usize, tree.inode(link.inode));
                if self.link_counts[child] == 0 {
                    self.order.push(link.inode);
                }
                if inode.is_dir() {
                    self.link_counts[child] = 2;
                    self.link_counts[directory as usize] += 1;
                    self.parents[child] = directory;
                    self.alone[child] = inode.opaque || self.alone[directory as usize];
                } else {
                    self.link_counts[child] += 1;
                }
            }
        }
    }

    /// Are there whiteouts in this directory?
    pub(super) fn has_whiteouts(&self, directory: InodeId) -> bool {
        self.hiding.contains(&directory)
    }

    /// A whiteout where there is nothing to hide is left out: overlayfs lists it when it reads a directory of a single layer.
    fn shows(&self, tree: &Tree, directory: InodeId, link: &Link) -> bool {
        !(self.alone[directory as usize] && tree.inode(link.inode).is_whiteout())
    }

    /// The directory's entries, `.` and `..` among them, in the order they have on disk.
    pub(super) fn entries<'t>(
        &self,
        tree: &'t Tree,
        directory: InodeId,
        nid: impl Fn(InodeId) -> u64,
    ) -> Vec<Dirent<'t>> {
        let entry =
            |name, id: InodeId| Dirent { name, inode: nid(id), file_type: format::dirent_type(tree.inode(id).mode) };
        let range = self.starts[directory as usize] as usize..self.starts[directory as usize + 1] as usize;
        let mut entries: Vec<Dirent<'t>> = Vec::with_capacity(range.len() + 2);
        for &index in &self.sorted[range] {
            let link = &tree.links[index as usize];
            if self.shows(tree, directory, link) {
                entries.push(entry(tree.name(link), link.inode));
            }
        }
        for (name, id) in [(&b"."[..], directory), (b"..", self.parents[directory as usize])] {
            let at = entries.partition_point(|known| known.name < name);
            entries.insert(at, entry(name, id));
        }
        entries
    }
}

fn sort_links(tree: &Tree) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; tree.inodes.len() + 1];
    for link in &tree.links {
        starts[link.parent as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut sorted = vec![0u32; tree.links.len()];
    for (index, link) in tree.links.iter().enumerate() {
        let at = &mut next[link.parent as usize];
        sorted[*at as usize] = index as u32;
        *at += 1;
    }
    for range in starts.windows(2) {
        let group = &mut sorted[range[0] as usize..range[1] as usize];
        group.sort_unstable_by(|&a, &b| tree.name(&tree.links[a as usize]).cmp(tree.name(&tree.links[b as usize])));
    }
    (sorted, starts)
}
