//! An empty root: no name leads to a file of the host any more. Files that are open stay so.

use std::os::fd::AsFd;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chroot, fchdir, pivot_root};

use crate::confine::sys;
use crate::error::{Error, Result};

/// Makes the root of this process, which must have a mount namespace of its own, an empty file system that cannot be
/// written.
pub(super) fn empty() -> Result<()> {
    let nothing = None::<&str>;
    // What is mounted here must not be seen in the namespace that this one was copied from.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(Error::host("keep mounts to this namespace"))?;
    let empty = sys::empty_file_system().map_err(Error::host("make an empty file system"))?;
    sys::mount_over_root(empty.as_fd()).map_err(Error::host("mount an empty file system"))?;
    fchdir(&empty).map_err(Error::host("enter the empty file system"))?;
    match pivot_root(".", ".") {
        // The old root lies over the new one now; it goes with everything below it.
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).map_err(Error::host("let go of the old root"))?,
        // A root that is no mount (chroot) or that cannot be moved (the kernel's own initial one). The empty file system
        // lies over it, so that no name leads below.
        Err(nix::Error::EINVAL) => chroot(".").map_err(Error::host("enter the empty root"))?,
        Err(error) => return Err(Error::host("change the root")(error)),
    }
    std::env::set_current_dir("/").map_err(Error::host("enter the empty root"))
}
