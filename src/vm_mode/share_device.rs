//! The device of one share: its directory or file, opened in the machine's process before that gives up its privileges.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
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
    let opened = |path: &std::path::Path, flags: OFlag| -> Result<OwnedFd, Error> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | flags;
        open(path, flags, Mode::empty()).map_err(|error| Error::io(step())(error.into()))
    };
    let root = if share.is_file {
        let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).unwrap_or_default();
        Root::File { file: opened(&path, OFlag::O_NOFOLLOW)?, name }
    } else {
        Root::Directory(opened(&path, OFlag::O_DIRECTORY)?)
    };
    let share = FsShare {
        tag: share.tag.clone(),
        root,
        proc: opened(DESCRIPTORS.as_ref(), OFlag::O_DIRECTORY)?,
        access: if share.read_only { Access::ReadOnly } else { Access::ReadWrite },
        // What the host changes is seen at once, as by a process.
        caching: Caching::default(),
        limits: Limits::default(),
    };
    Fs::new(share).map_err(|error| Error::Unsupported(error.to_string()))
}
