//! Names in a layer: cleaned as Docker cleans them, and resolved inside the layer only.
//!
//! A component that is a symbolic link of this layer is followed as in a chroot: that is what extracting the tar with GNU tar, Docker or
//! containerd does, and images rely on it. It cannot lead out: there is nothing outside of the tree in memory.

use std::borrow::Cow;

use super::format::NAME_MAX;
use super::layer::Layer;
use super::tree::{Content, InodeId, ROOT};
use crate::error::LayerError;
use sbx_archive::printable;

/// Linux's limit of links followed in one path.
const MAX_LINKS: usize = 40;

/// The components of a path; `.` and empty ones left out, `..` resolved by text as Go's `filepath.Clean` does. An absolute path
/// starts at the layer's root, as in Docker. What would leave the root is an error.
pub(super) fn components(path: &[u8], longest: u64) -> Result<Vec<&[u8]>, String> {
    if path.len() as u64 > longest {
        return Err(format!("path of {} bytes (the limit is {longest})", path.len()));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or("path that leaves the root by ..")?;
            }
            _ if part.len() > NAME_MAX => {
                return Err(format!("name of {} bytes (the limit is {NAME_MAX})", part.len()));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// May directories that the tar does not have be made up on the way?
#[derive(Clone, Copy)]
pub(super) enum Missing {
    /// Yes, dated as the entry that needs them.
    Create { mtime: (i64, u32) },
    /// No: the walk finds nothing.
    Stop,
}

impl Layer<'_> {
    /// The directory that the components lead to. `None` only where something is missing and must not be made up.
    pub(super) fn directory(
        &mut self,
        parts: &[&[u8]],
        missing: Missing,
        entry: &[u8],
    ) -> Result<Option<InodeId>, LayerError> {
        let bad = |what: String| LayerError::Entry { name: printable(entry), what };
        let mut stack: Vec<InodeId> = vec![ROOT];
        let mut todo: Vec<Cow<'_, [u8]>> = parts.iter().rev().map(|&part| Cow::Borrowed(part)).collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if &*part == b".." {
                // Only from a link's target: stays at the root, as `..` of `/` does.
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let here = stack[stack.len() - 1];
            let found = self.tree.find(here, &part).map(|index| self.tree.links[index].inode);
            let inode = found.map(|id| (id, *self.tree.inode(id)));
            match (inode, missing) {
                (Some((id, inode)), _) if inode.is_dir() => stack.push(id),
                (Some((_, inode)), _) if inode.is(libc::S_IFLNK) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(bad("too many symbolic links on the way".to_owned()));
                    }
                    let Content::Packed(at) = inode.content else {
                        continue;
                    };
                    let target = self.tree.packed(at, inode.size).to_vec();
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let steps = target.split(|&b| b == b'/').rev().filter(|step| !step.is_empty() && *step != b".");
                    for step in steps {
                        todo.push(Cow::Owned(step.to_vec()));
                    }
                }
                (Some((_, inode)), _) if !inode.is_whiteout() => {
                    return Err(bad(format!("{} on the way is not a directory", printable(&part))));
                }
                (_, Missing::Stop) => return Ok(None),
                (whiteout, Missing::Create { mtime }) => {
                    let made = self.implied_directory(here, &part, mtime, whiteout.is_some(), entry)?;
                    stack.push(made);
                }
            }
        }
        Ok(stack.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::components;

    fn clean(path: &str) -> Option<String> {
        let parts = components(path.as_bytes(), 4096).ok()?;
        Some(parts.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join("/"))
    }

    #[test]
    fn paths_are_cleaned_and_confined() {
        assert_eq!(clean("./a//b/./c/").unwrap(), "a/b/c");
        assert_eq!(clean("/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(clean("a/../b").unwrap(), "b");
        assert_eq!(clean("").unwrap(), "");
        assert_eq!(clean("./").unwrap(), "");
        assert_eq!(clean("a/..").unwrap(), "");
        assert_eq!(clean("../a"), None);
        assert_eq!(clean("/../a"), None);
        assert_eq!(clean("a/../../b"), None);
        assert_eq!(clean(&"x".repeat(256)), None);
        assert!(clean(&"x".repeat(255)).is_some());
        assert_eq!(clean(&"x/".repeat(2049)), None);
    }
}
