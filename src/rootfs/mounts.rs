//! Mounted layers, shared by all containers of the host.
//!
//! `<run>/layers/<hex>` is a layer's mount point, `<hex>.lock` says who uses it. One mount means one superblock and one page cache, however many
//! containers run. There is no count to keep: every use is a shared `flock` that the kernel takes back even from a killed process.
//!
//! ```text
//!            shared flock          mounted?  yes ─▶ in use
//! acquire ──▶ (blocks only while ──▶ no: record lock (one mounts), mount ─▶ in use
//!             someone unmounts)
//! release ──▶ exclusive flock, not waiting ── refused ─▶ others use it
//!                     └─ got it ─▶ unmount, then remove the lock file; the empty mount point stays, for the next use
//! ```
//!
//! Who holds the exclusive lock is alone: nobody can be between "it is mounted" and "I use it". A lock file that was removed while one waited
//! for it is noticed by its inode, and the acquisition starts over. The second lock (an `F_OFD` record lock on the same file) only keeps two from
//! mounting at once. The locks' descriptors close on `execve`; a child that is forked and never executes must not keep them.

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::mount::{MntFlags, umount2};

use crate::error::RootfsError;
use crate::layer_id::LayerId;
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
    dir: PathBuf,
}

/// One use of a mounted layer. Dropping it (or dying) ends the use; the last one unmounts.
///
/// A forked child shares the lock's open file: it must execute or `_exit` without dropping this, or it ends its parent's use.
#[derive(Debug)]
pub struct LayerMount {
    id: LayerId,
    mounts: LayerMounts,
    root: OwnedFd,
    /// `None` once released.
    lock: Option<Flock<File>>,
}

/// What became of a mount when a use of it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Others use it still.
    InUse,
    /// This was the last use: it is unmounted.
    Unmounted,
}

impl LayerMounts {
    /// Opens `<run>/layers` (`/run/sbx`), creating it (0700).
    pub fn open(run: &Path) -> Result<Self, RootfsError> {
        let dir = run.join("layers");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|e| RootfsError::io("create", &dir, e))?;
        Ok(Self { dir })
    }

    /// Mounts the layer, or joins those who use it already. `image` is [`crate::LayerStore::path`].
    pub fn acquire(&self, id: &LayerId, image: &Path) -> Result<LayerMount, RootfsError> {
        self.acquire_by(id, image, Backing::Auto)
    }

    /// As [`Self::acquire`], with a say in how a layer that is not yet mounted gets mounted.
    pub fn acquire_by(&self, id: &LayerId, image: &Path, backing: Backing) -> Result<LayerMount, RootfsError> {
        let point = self.point(id);
        loop {
            let Some(lock) = self.lock(id, FlockArg::LockShared)? else {
                continue;
            };
            if !is_mounted(&point)? {
                self.mount(id, &lock, image, backing)?;
            }
            let root = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&point);
            let root = root.map_err(|e| RootfsError::io("open the mounted layer", &point, e))?;
            return Ok(LayerMount { id: id.clone(), mounts: self.clone(), root: root.into(), lock: Some(lock) });
        }
    }

    /// Unmounts every layer that nobody uses: what killed supervisors left behind. Returns which.
    pub fn reap(&self) -> Result<Vec<LayerId>, RootfsError> {
        let failed = |e| RootfsError::io("list the mounted layers in", &self.dir, e);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            ids.extend(LayerId::parse(name.strip_suffix(".lock").unwrap_or(&name)));
        }
        ids.sort();
        ids.dedup();
        let mut reaped = Vec::new();
        for id in ids {
            if let Some(lock) = self.lock(&id, FlockArg::LockExclusiveNonblock)? {
                self.unmount(&id, &lock)?;
                reaped.push(id);
            }
        }
        Ok(reaped)
    }

    fn point(&self, id: &LayerId) -> PathBuf {
        self.dir.join(id.hex())
    }

    fn lock_path(&self, id: &LayerId) -> PathBuf {
        self.dir.join(format!("{}.lock", id.hex()))
    }

    /// `None`: the lock is another's, or its file went away while we waited.
    fn lock(&self, id: &LayerId, how: FlockArg) -> Result<Option<Flock<File>>, RootfsError> {
        let path = self.lock_path(id);
        let mut options = OpenOptions::new();
        let options =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path).map_err(|e| RootfsError::io("open the lock of a layer", &path, e))?;
        let lock = loop {
            match Flock::lock(file, how) {
                Ok(lock) => break lock,
                Err((again, Errno::EINTR)) => file = again,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, error)) => return Err(RootfsError::io("lock a layer by", &path, error)),
            }
        };
        Ok(self.is_current(id, &lock)?.then_some(lock))
    }

    /// Is the locked file still the one that others would lock?
    fn is_current(&self, id: &LayerId, lock: &File) -> Result<bool, RootfsError> {
        let path = self.lock_path(id);
        let ours = lock.metadata().map_err(|e| RootfsError::io("look at the lock of a layer", &path, e))?;
        match fs::symlink_metadata(&path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(RootfsError::io("look at the lock of a layer", &path, error)),
        }
    }

    fn mount(&self, id: &LayerId, lock: &File, image: &Path, backing: Backing) -> Result<(), RootfsError> {
        let point = self.point(id);
        record_lock(lock, libc::F_WRLCK).map_err(|e| RootfsError::io("lock a layer by", self.lock_path(id), e))?;
        let mounted = is_mounted(&point).and_then(|mounted| match mounted {
            true => Ok(()),
            false => mount_image(image, &point, backing),
        });
        let unlocked =
            record_lock(lock, libc::F_UNLCK).map_err(|e| RootfsError::io("unlock a layer by", self.lock_path(id), e));
        mounted.and(unlocked)
    }

    /// Only under the exclusive lock. The lock file goes last: it is what others wait for.
    fn unmount(&self, id: &LayerId, lock: &File) -> Result<(), RootfsError> {
        if !self.is_current(id, lock)? {
            return Ok(());
        }
        let point = self.point(id);
        while is_mounted(&point)? {
            // Detached: an overlay keeps its own hold on the superblock, and a stray descriptor must not make a leak.
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            umount2(&point, flags).map_err(|e| RootfsError::io("unmount the layer", &point, e))?;
        }
        // The empty mount point stays for the next user: on a disk that discards at once, removing a directory takes
        // longer than the whole rest of ending a container.
        let path = self.lock_path(id);
        ignore_missing(fs::remove_file(&path)).map_err(|e| RootfsError::io("remove the lock of a layer", &path, e))
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
    pub fn release(mut self) -> Result<Released, RootfsError> {
        self.end()
    }

    fn end(&mut self) -> Result<Released, RootfsError> {
        let Some(lock) = self.lock.take() else {
            return Ok(Released::InUse);
        };
        // A refused conversion gives up the shared lock too, which is what we want; of two that release at once, one wins.
        match lock.relock(FlockArg::LockExclusiveNonblock) {
            Ok(()) => self.mounts.unmount(&self.id, &lock).map(|()| Released::Unmounted),
            Err(Errno::EWOULDBLOCK) => Ok(Released::InUse),
            Err(error) => Err(RootfsError::io("lock a layer by", self.mounts.lock_path(&self.id), error)),
        }
    }
}

impl Drop for LayerMount {
    fn drop(&mut self) {
        // What fails here is left to `reap`, as after a kill.
        let _ = self.end();
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn record_lock(file: &File, kind: libc::c_int) -> Result<(), Errno> {
    let lock = libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 1, l_pid: 0 };
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&lock)) {
            Err(Errno::EINTR) => {}
            result => return result.map(|_| ()),
        }
    }
}

fn c_path(path: &Path) -> Result<CString, RootfsError> {
    let error = |_| RootfsError::io("use the path", path, io::ErrorKind::InvalidInput);
    CString::new(path.as_os_str().as_bytes()).map_err(error)
}

fn is_mounted(point: &Path) -> Result<bool, RootfsError> {
    sys::is_mount_root(&c_path(point)?).map_err(|e| RootfsError::io("look at the mount point", point, e))
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
