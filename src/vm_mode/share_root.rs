//! The root of one share: its directory or file, opened by a process that may, for a device that may not.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sbx_container::sys::{AttributeChange, OPEN_TREE_CLONE, Recursion, mount_setattr, open_tree};

use crate::error::Error;
use crate::shares::Share;

/// Opens what is shared; the name of a file, `None` for a directory.
pub(crate) fn open(share: &Share) -> Result<(OwnedFd, Option<CString>), Error> {
    // A symbolic link is followed once, here, as for a bind mount.
    let step = || format!("share {}", share.path.display());
    let path = fs::canonicalize(&share.path).map_err(Error::io(step()))?;
    let root = bind(&path).map_err(Error::io(step()))?;
    let name = || path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).unwrap_or_default();
    Ok((root, share.is_file.then(name)))
}

/// What a bind mount would show: the mounts that are there now, and none that comes later. A private copy of them, so that
/// the host can unmount what the guest looks at.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::AT_RECURSIVE as u32 | libc::AT_SYMLINK_NOFOLLOW as u32;
    let clone = open_tree(None, path, flags)?;
    let private = AttributeChange { propagation: libc::MS_PRIVATE, ..AttributeChange::default() };
    mount_setattr(clone.as_fd(), Recursion::Below, &private)?;
    Ok(clone)
}
