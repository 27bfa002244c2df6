//! The writable layer of a container: `<container dir>/upper` and `/work` of an overlay.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use sbx_container::overlay;

use crate::error::RootfsError;
use crate::mounts::LayerMount;
use crate::sys;
use crate::walk::{self, Visitor};

/// The directories of one container's writable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritableLayer {
    dir: PathBuf,
}

impl WritableLayer {
    /// Creates `upper` and `work` in the container's directory `dir` (which becomes 0700 if it is made here). The upper root takes
    /// mode, owner, times and attributes of the image's root, as the container will see it as `/`: that of the topmost of `layers`
    /// (lowest first) whose tar describes it.
    pub fn create(dir: &Path, layers: &[LayerMount]) -> Result<Self, RootfsError> {
        let roots: Vec<BorrowedFd<'_>> = layers.iter().map(LayerMount::root).collect();
        overlay::make_upper(dir, &roots)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The writable layer that `create` made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, RootfsError> {
        let this = Self { dir: dir.to_owned() };
        for path in [this.upper(), this.work()] {
            let metadata =
                fs::symlink_metadata(&path).map_err(|e| RootfsError::io("find the writable layer's", &path, e))?;
            if !metadata.is_dir() {
                return Err(RootfsError::io("find the writable layer's", &path, io::ErrorKind::NotADirectory));
            }
        }
        Ok(this)
    }

    /// The container's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was changed, as overlayfs writes it.
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// overlayfs's own.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Bytes of the files in it, each inode once, without directories: the first number of Docker's `ps -s`.
    pub fn size(&self) -> Result<u64, RootfsError> {
        const TRIES: usize = 5;
        let upper = self.upper();
        let top = File::open(&upper).map_err(|e| RootfsError::io("measure", &upper, e))?;
        let mut tries = 1;
        loop {
            let mut sum = Sum::default();
            match walk::walk(top.as_fd(), &upper, &mut sum) {
                Ok(()) => return Ok(sum.bytes),
                // The container is running and has just moved a directory.
                Err(RootfsError::TreeChanged { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes `upper` and `work` with all that is in them; not `dir`. Removing twice is no error.
    pub fn remove(self) -> Result<(), RootfsError> {
        for path in [self.upper(), self.work()] {
            let failed = |e: io::Error| RootfsError::io(Remove::STEP, &path, e);
            let top = match walk::open_directory_path(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                top => top.map_err(failed)?,
            };
            // The container may have made its own root immutable.
            clear_immutable(top.as_fd(), c".").map_err(failed)?;
            walk::walk(top.as_fd(), &path, &mut Remove)?;
            fs::remove_dir(&path).map_err(failed)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    /// Inodes with several names, seen already.
    seen: HashSet<u64>,
}

impl Visitor for Sum {
    const STEP: &'static str = "measure";

    fn file(&mut self, _: BorrowedFd<'_>, _: &CStr, stat: &FileStat) -> io::Result<()> {
        if stat.st_nlink == 1 || self.seen.insert(stat.st_ino) {
            self.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
        Ok(())
    }

    fn enter(&mut self, _: BorrowedFd<'_>, _: &CStr, _: &FileStat) -> io::Result<()> {
        Ok(())
    }

    fn leave(&mut self, _: BorrowedFd<'_>, _: &CStr, _: &FileStat) -> io::Result<()> {
        Ok(())
    }
}

struct Remove;

impl Visitor for Remove {
    const STEP: &'static str = "remove";

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, _: &FileStat) -> io::Result<()> {
        unlink(dir, name, UnlinkatFlags::NoRemoveDir)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()> {
        // overlayfs's work/work has no permissions at all, which matters to all but root.
        if stat.st_mode & 0o700 != 0o700 {
            let mode = Mode::from_bits_truncate(0o700);
            match fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink) {
                Err(Errno::EPERM) => {}
                result => result?,
            }
        }
        clear_immutable(dir, name)
    }

    fn leave(&mut self, dir: BorrowedFd<'_>, name: &CStr, _: &FileStat) -> io::Result<()> {
        unlink(dir, name, UnlinkatFlags::RemoveDir)
    }
}

fn unlink(dir: BorrowedFd<'_>, name: &CStr, flags: UnlinkatFlags) -> io::Result<()> {
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EPERM) => {
            clear_immutable(dir, name)?;
            Ok(unlinkat(dir, name, flags)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Only files and directories can be immutable; anything else must not even be opened.
fn clear_immutable(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let stat = nix::sys::stat::fstatat(dir, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
        return Ok(());
    }
    let file = openat(dir, name, flags, Mode::empty())?;
    match sys::clear_immutable(file.as_fd()) {
        // A file system without such flags.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(()),
        result => result.map(|_| ()),
    }
}
