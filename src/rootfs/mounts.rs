//! Mounted layers, shared by all containers of the host.
//!
//! `<run>/layers/<hex>` is a layer's mount point; [`crate::shared_mounts`] keeps account of who uses it. One mount means one superblock and one
//! page cache, however many containers run.

use std::ffi::CStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::RootfsError;
use crate::layer_id::LayerId;
use crate::shared_mounts::{Released, SharedMounts, Use, c_path};
use crate::{loop_device, sys};

/// The kernel's limit for the string that names a mount's source.
const SOURCE_MAX: usize = 255;

/// How the kernel reads a layer's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The file itself where the kernel can (Linux 6.12), else a loop device.
    Auto,
    /// The file itself.
    File,
    /// A read-only loop device that goes away with the mount.
    Loop,
}

/// The directory of layer mounts, `<run>/layers`.
#[derive(Clone, Debug)]
pub struct LayerMounts {
    mounts: SharedMounts,
}

/// One use of a mounted layer. Dropping it (or dying) ends the use; the last one unmounts.
///
/// A forked child shares the lock's open file: it must execute or `_exit` without dropping this, or it ends its parent's use.
#[derive(Debug)]
pub struct LayerMount {
    id: LayerId,
    root: OwnedFd,
    held: Use,
}

impl LayerMounts {
    /// Opens `<run>/layers` (`/run/sbx`), creating it (0700).
    pub fn open(run: &Path) -> Result<Self, RootfsError> {
        Ok(Self { mounts: SharedMounts::open(run.join("layers"))? })
    }

    /// Mounts the layer, or joins those who use it already. `image` is [`crate::LayerStore::path`].
    pub fn acquire(&self, id: &LayerId, image: &Path) -> Result<LayerMount, RootfsError> {
        self.acquire_by(id, image, Backing::Auto)
    }

    /// As [`Self::acquire`], with a say in how a layer that is not yet mounted gets mounted.
    pub fn acquire_by(&self, id: &LayerId, image: &Path, backing: Backing) -> Result<LayerMount, RootfsError> {
        let point = self.mounts.dir().join(id.hex());
        let held = self.mounts.acquire(id.hex(), &point, &|| mount_image(image, &point, backing))?;
        let root = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&point);
        let root = root.map_err(|e| RootfsError::io("open the mounted layer", &point, e))?;
        Ok(LayerMount { id: id.clone(), root: root.into(), held })
    }

    /// Unmounts every layer that nobody uses: what killed supervisors left behind. Returns which.
    pub fn reap(&self) -> Result<Vec<LayerId>, RootfsError> {
        let point = |key: &str| LayerId::parse(key).is_ok().then(|| self.mounts.dir().join(key));
        self.mounts.reap(&point)?.iter().map(|key| LayerId::parse(key)).collect()
    }

    /// Where other mounts that containers share have their locks, under names that are no layer's.
    pub(crate) fn shared(&self) -> &SharedMounts {
        &self.mounts
    }
}

impl LayerMount {
    /// Which layer it is.
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// The layer's root directory, open for reading.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Ends this use and says whether it was the last.
    pub fn release(self) -> Result<Released, RootfsError> {
        self.held.release()
    }
}

fn mount_image(image: &Path, point: &Path, backing: Backing) -> Result<(), RootfsError> {
    match DirBuilder::new().mode(0o700).create(point) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(RootfsError::io("create the mount point", point, error));
        }
        _ => {}
    }
    let mount = match backing {
        Backing::File => mount_file(image)?,
        Backing::Loop => mount_loop(image)?,
        Backing::Auto => match mount_file(image) {
            // What a kernel before 6.12, or one without this option, says: it wants a block device.
            Err(RootfsError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOTBLK) => {
                mount_loop(image)?
            }
            result => result?,
        },
    };
    sys::move_mount(mount.as_fd(), &c_path(point)?).map_err(|e| RootfsError::io("mount the layer at", point, e))
}

fn mount_file(image: &Path) -> Result<OwnedFd, RootfsError> {
    // Checked by us: the kernel's own words for a missing image are about its source parameter.
    let file = File::open(image).map_err(|e| RootfsError::io("open the layer", image, e))?;
    let path = c_path(image)?;
    let source = if path.as_bytes().len() <= SOURCE_MAX { path } else { sys::fd_path(&file) };
    mount_erofs(&source, image)
}

fn mount_loop(image: &Path) -> Result<OwnedFd, RootfsError> {
    let device = loop_device::attach(image)?;
    mount_erofs(&c_path(&device.path)?, image)
}

fn mount_erofs(source: &CStr, image: &Path) -> Result<OwnedFd, RootfsError> {
    let failed = |context: Option<&sys::FsContext>, source: io::Error| {
        let said: Vec<String> = context.map(sys::FsContext::messages).unwrap_or_default();
        let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) };
        RootfsError::Kernel {
            what: format!("mount the layer {}{said}", image.display()),
            remedy: "sbx needs Linux with EROFS, and the right to mount; a damaged layer is rebuilt by removing it and pulling again",
            source,
        }
    };
    let context = sys::FsContext::open(c"erofs").map_err(|e| failed(None, e))?;
    let mount = context
        .set_string(c"source", source)
        .and_then(|()| context.set_flag(c"ro"))
        .and_then(|()| context.create())
        // Not for containers, whose overlay has flags of its own, but for the host: no one runs a set-user-id file from here.
        .and_then(|()| {
            context
                .mount(sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC)
        });
    mount.map_err(|e| failed(Some(&context), e))
}
