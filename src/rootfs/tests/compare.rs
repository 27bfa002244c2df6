//! All that can be seen of a tree of files, to be compared with another.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::scratch::{get_xattr, list_xattrs};

/// Files beyond this are not read.
const READ_MAX: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    /// Of everything but directories.
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) device: u64,
    pub(crate) content: u64,
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of this inode.
    pub(crate) first_name: Vec<u8>,
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// Everything below `top`, which is the empty name.
pub(crate) fn tree(top: &Path) -> Tree {
    let mut nodes = Tree::new();
    let mut first_names = HashMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(name) = todo.pop() {
        let path = top.join(std::ffi::OsStr::from_bytes(&name));
        let node = node(&path, &name, &mut first_names);
        if node.mode & libc::S_IFMT == libc::S_IFDIR {
            let mut children: Vec<Vec<u8>> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| {
                    let child = entry.unwrap().file_name();
                    let separator: &[u8] = if name.is_empty() { b"" } else { b"/" };
                    [&name, separator, child.as_bytes()].concat()
                })
                .collect();
            children.sort_unstable_by(|a, b| b.cmp(a));
            todo.extend(children);
        }
        nodes.insert(name, node);
    }
    // Which name came first depends on the order of the walk; make it the smallest.
    let mut smallest: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for (name, node) in &nodes {
        smallest.entry(node.first_name.clone()).or_insert_with(|| name.clone());
    }
    for node in nodes.values_mut() {
        node.first_name = smallest[&node.first_name].clone();
    }
    nodes
}

fn node(path: &Path, name: &[u8], first_names: &mut HashMap<(u64, u64), Vec<u8>>) -> Node {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = metadata.file_type();
    let mut hash = DefaultHasher::new();
    if kind.is_file() && metadata.len() <= READ_MAX {
        let mut file = fs::File::open(path).unwrap();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                length => hash.write(&buffer[..length]),
            }
        }
    }
    let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let xattrs = list_xattrs(&c_path).into_iter().map(|name| {
        let value = get_xattr(&c_path, &CString::new(name.clone()).unwrap()).unwrap();
        (name, value)
    });
    let is_device = kind.is_char_device() || kind.is_block_device();
    Node {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        links: if kind.is_dir() { 0 } else { metadata.nlink() },
        size: if kind.is_dir() { 0 } else { metadata.len() },
        device: if is_device { metadata.rdev() } else { 0 },
        content: hash.finish(),
        target: if kind.is_symlink() {
            fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        },
        xattrs: xattrs.collect(),
        first_name: first_names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.to_vec()).clone(),
    }
}

/// Fails with the first differences only: trees are large.
#[track_caller]
pub(crate) fn assert_same(left: &Tree, right: &Tree) {
    let mut differences = Vec::new();
    for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
        if left.get(name) != right.get(name) {
            differences.push(format!(
                "{}\n  left  {:?}\n  right {:?}",
                name.escape_ascii(),
                left.get(name),
                right.get(name)
            ));
        }
    }
    let count = differences.len();
    differences.truncate(5);
    assert!(count == 0, "{count} differences:\n{}", differences.join("\n"));
}
