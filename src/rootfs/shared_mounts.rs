//! Mounts of the host that several containers use at once.
//!
//! Each has a lock file, `<key>.lock`, that says who uses it. There is no count to keep: every use is a shared `flock` that the kernel takes
//! back even from a killed process.
//!
//! ```text
//!            shared flock          mounted?  yes ─▶ in use
//! acquire ──▶ (blocks only while ──▶ no: record lock (one mounts), mount ─▶ in use
//!             someone unmounts)
//! release ──▶ exclusive flock, not waiting ── refused ─▶ others use it
//!                     └─ got it ─▶ unmount, then remove the lock file
//! ```
//!
//! Who holds the exclusive lock is alone: nobody can be between "it is mounted" and "I use it". A lock file that was removed while one waited
//! for it is noticed by its inode, and the acquisition starts over. The second lock (an `F_OFD` record lock on the same file) only keeps two from
//! mounting at once. The locks' descriptors close on `execve`; a child that is forked and never executes must not keep them.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::mount::{MntFlags, umount2};

use crate::error::RootfsError;
use crate::sys;

/// What became of a mount when a use of it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Others use it still.
    InUse,
    /// This was the last use: it is unmounted.
    Unmounted,
}

/// A directory of lock files.
#[derive(Clone, Debug)]
pub(crate) struct SharedMounts {
    dir: PathBuf,
    fate: PointFate,
}

/// What becomes of a mount point when nothing is mounted there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointFate {
    /// It stays for the next user: on a disk that discards at once, removing a directory takes longer than the whole
    /// rest of ending a container.
    Stays,
    /// It is removed.
    Goes,
}

/// One use of a mount. Dropping it (or dying) ends the use; the last one unmounts.
#[derive(Debug)]
pub(crate) struct Use {
    key: String,
    point: PathBuf,
    mounts: SharedMounts,
    /// `None` once released.
    lock: Option<Flock<File>>,
}

impl SharedMounts {
    /// Opens the directory, creating it (0700).
    pub(crate) fn open(dir: PathBuf) -> Result<Self, RootfsError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|e| RootfsError::io("create", &dir, e))?;
        Ok(Self { dir, fate: PointFate::Stays })
    }

    /// The same locks, for mounts whose mount points have another fate.
    pub(crate) fn of(&self, fate: PointFate) -> Self {
        Self { fate, ..self.clone() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Joins those who use what is mounted at `point`, or mounts it there by `mount`.
    pub(crate) fn acquire(
        &self,
        key: &str,
        point: &Path,
        mount: &dyn Fn() -> Result<(), RootfsError>,
    ) -> Result<Use, RootfsError> {
        loop {
            let Some(lock) = self.lock(key, FlockArg::LockShared)? else {
                continue;
            };
            // A use from here on: where mounting fails, it ends, and takes the lock file along.
            let used = Use { key: key.to_owned(), point: point.to_owned(), mounts: self.clone(), lock: Some(lock) };
            if !is_mounted(point)?
                && let Some(lock) = &used.lock
            {
                self.mount_once(key, lock, point, mount)?;
            }
            return Ok(used);
        }
    }

    /// Unmounts what nobody uses: what killed users left behind. Returns the keys. `point` says where a key is mounted.
    pub(crate) fn reap(&self, point: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Vec<String>, RootfsError> {
        let failed = |e| RootfsError::io("list the mounts in", &self.dir, e);
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Nothing is mounted without a lock file: it is there before the mount and goes after it.
            keys.extend(name.to_string_lossy().strip_suffix(".lock").map(str::to_owned));
        }
        keys.sort();
        let mut reaped = Vec::new();
        for key in keys {
            let Some(point) = point(&key) else { continue };
            if let Some(lock) = self.lock(&key, FlockArg::LockExclusiveNonblock)? {
                self.unmount(&key, &point, &lock)?;
                reaped.push(key);
            }
        }
        Ok(reaped)
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.lock"))
    }

    /// `None`: the lock is another's, or its file went away while we waited.
    fn lock(&self, key: &str, how: FlockArg) -> Result<Option<Flock<File>>, RootfsError> {
        let path = self.lock_path(key);
        let mut options = OpenOptions::new();
        let options =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path).map_err(|e| RootfsError::io("open the lock of a mount", &path, e))?;
        let lock = loop {
            match Flock::lock(file, how) {
                Ok(lock) => break lock,
                Err((again, Errno::EINTR)) => file = again,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, error)) => return Err(RootfsError::io("lock a mount by", &path, error)),
            }
        };
        Ok(self.is_current(key, &lock)?.then_some(lock))
    }

    /// Is the locked file still the one that others would lock?
    fn is_current(&self, key: &str, lock: &File) -> Result<bool, RootfsError> {
        let path = self.lock_path(key);
        let ours = lock.metadata().map_err(|e| RootfsError::io("look at the lock of a mount", &path, e))?;
        match fs::symlink_metadata(&path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(RootfsError::io("look at the lock of a mount", &path, error)),
        }
    }

    fn mount_once(
        &self,
        key: &str,
        lock: &File,
        point: &Path,
        mount: &dyn Fn() -> Result<(), RootfsError>,
    ) -> Result<(), RootfsError> {
        record_lock(lock, libc::F_WRLCK).map_err(|e| RootfsError::io("lock a mount by", self.lock_path(key), e))?;
        let mounted = is_mounted(point).and_then(|mounted| if mounted { Ok(()) } else { mount() });
        let unlocked =
            record_lock(lock, libc::F_UNLCK).map_err(|e| RootfsError::io("unlock a mount by", self.lock_path(key), e));
        mounted.and(unlocked)
    }

    /// Only under the exclusive lock. The lock file goes last: it is what others wait for.
    fn unmount(&self, key: &str, point: &Path, lock: &File) -> Result<(), RootfsError> {
        if !self.is_current(key, lock)? {
            return Ok(());
        }
        while is_mounted(point)? {
            // Detached: an overlay keeps its own hold on the superblock, and a stray descriptor must not make a leak.
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            umount2(point, flags).map_err(|e| RootfsError::io("unmount", point, e))?;
        }
        if self.fate == PointFate::Goes {
            ignore_missing(fs::remove_dir(point)).map_err(|e| RootfsError::io("remove the mount point", point, e))?;
        }
        let path = self.lock_path(key);
        ignore_missing(fs::remove_file(&path)).map_err(|e| RootfsError::io("remove the lock of a mount", &path, e))
    }
}

impl Use {
    /// Ends this use and says whether it was the last.
    pub(crate) fn release(mut self) -> Result<Released, RootfsError> {
        self.end()
    }

    fn end(&mut self) -> Result<Released, RootfsError> {
        let Some(lock) = self.lock.take() else {
            return Ok(Released::InUse);
        };
        // A refused conversion gives up the shared lock too, which is what we want; of two that release at once, one wins.
        match lock.relock(FlockArg::LockExclusiveNonblock) {
            Ok(()) => self.mounts.unmount(&self.key, &self.point, &lock).map(|()| Released::Unmounted),
            Err(Errno::EWOULDBLOCK) => Ok(Released::InUse),
            Err(error) => Err(RootfsError::io("lock a mount by", self.mounts.lock_path(&self.key), error)),
        }
    }
}

impl Drop for Use {
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

pub(crate) fn c_path(path: &Path) -> Result<CString, RootfsError> {
    let error = |_| RootfsError::io("use the path", path, io::ErrorKind::InvalidInput);
    CString::new(path.as_os_str().as_bytes()).map_err(error)
}

fn is_mounted(point: &Path) -> Result<bool, RootfsError> {
    sys::is_mount_root(&c_path(point)?).map_err(|e| RootfsError::io("look at the mount point", point, e))
}
