//! The device of one share: its directory or file, opened in the machine's process before that gives up its privileges.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sbx_container::sys::{AttributeChange, OPEN_TREE_CLONE, Recursion, mount_setattr, open_tree};
use sbx_vmm::virtio::fs::{Access, Caching, Fs, Limits, Root, Share as FsShare};

use crate::error::Error;
use crate::shares::Share;

/// Where a process finds its own descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Opens what is shared and makes the device.
pub(crate) fn open_device(share: &Share) -> Result<Fs, Error> {
    // A symbolic link is followed once, here, as for a bind mount.
    let step = || format!("share {}", share.path.display());
    let path = fs::canonicalize(&share.path).map_err(Error::io(step()))?;
    let bound = bind(&path).map_err(Error::io(step()))?;
    let root = if share.is_file {
        let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).unwrap_or_default();
        Root::File { file: bound, name }
    } else {
        Root::Directory(bound)
    };
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
    let proc = open(DESCRIPTORS, flags, Mode::empty()).map_err(|error| Error::io(step())(error.into()))?;
    let share = FsShare {
        tag: share.tag.clone(),
        root,
        proc,
        access: if share.read_only { Access::ReadOnly } else { Access::ReadWrite },
        mappable: share.mappable,
        // What the host changes is seen at once, as by a process.
        caching: Caching::default(),
        limits: Limits::default(),
    };
    Fs::new(share).map_err(|error| Error::Unsupported(error.to_string()))
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
