//! The writable layer of a container with a kernel of its own: `<container dir>/disk`, a sparse file with an ext4 file system.
//!
//! ```text
//! (missing) ──create──▶ untouched ──attach, mounted by the guest──▶ in use ──▶ … ──remove──▶ (missing)
//!                          │ ▲
//!                          └─┘ attach formats it again
//! ```
//!
//! The file gets its name when it is whole, so a killed process leaves none, or one without a name that the kernel frees. Nothing is
//! synced, for a start must not wait for the disk. So after a power cut a disk may lack parts of what was written when it was made: as
//! long as nobody has mounted it nothing can be lost by formatting it again, and that is what `attach` does. The guest's first mount
//! flushes the disk, and with it everything that was written before.
//!
//! Whoever uses the file holds a lock on it (`F_OFD_SETLK`), which ends with the last copy of its descriptor, however its holder ends.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, fcntl};
use nix::unistd::linkat;

use crate::error::RootfsError;
use crate::ext4::{self, FormatError, Identity};
use crate::sys;

const NAME: &str = "disk";
/// Only where the file system has no files without names.
const TEMPORARY: &str = "disk.tmp";
const LABEL: &[u8] = b"sbx";

/// The disk that one container writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritableDisk {
    dir: PathBuf,
}

impl WritableDisk {
    /// Bytes of a disk where nobody says otherwise: 64 GiB, of which only those that are written take room on the host.
    pub const DEFAULT_BYTES: u64 = 64 << 30;

    /// Makes the disk in the container's directory `dir` (which becomes 0700 if it is made here), with an empty file system in it.
    ///
    /// Takes about a millisecond and 100 KiB of the host's disk for 64 GiB. Only one process may do this for a container at a time.
    ///
    /// # Errors
    /// [`RootfsError::Disk`] where the size cannot be had; an I/O error `AlreadyExists` where the container has a disk.
    pub fn create(dir: &Path, bytes: u64) -> Result<Self, RootfsError> {
        Self::create_attached(dir, bytes).map(|(this, _)| this)
    }

    /// What every start begins with: the container's disk as it is, or a new one of `bytes`; opened as by [`Self::attach`].
    pub fn attach_or_create(dir: &Path, bytes: u64) -> Result<(Self, File), RootfsError> {
        let this = Self { dir: dir.to_owned() };
        match this.attach() {
            Err(RootfsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create_attached(dir, bytes)
            }
            file => file.map(|file| (this, file)),
        }
    }

    fn create_attached(dir: &Path, bytes: u64) -> Result<(Self, File), RootfsError> {
        let this = Self { dir: dir.to_owned() };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| RootfsError::io("create", dir, e))?;
        let unnamed = OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir);
        let file = match unnamed {
            // Not all file systems have files without names.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
                this.create_by_name(bytes)?
            }
            file => {
                let file = file.map_err(|e| this.failed("create", e))?;
                this.fill(&file, bytes)?;
                let source = sys::fd_path(&file);
                let target = CString::new(this.path().into_os_string().into_encoded_bytes());
                let target = target.map_err(|e| this.failed("name", e.into()))?;
                linkat(AT_FDCWD, source.as_c_str(), AT_FDCWD, target.as_c_str(), AtFlags::AT_SYMLINK_FOLLOW)
                    .map_err(|e| this.failed("name", e.into()))?;
                file
            }
        };
        Ok((this, file))
    }

    fn create_by_name(&self, bytes: u64) -> Result<File, RootfsError> {
        let temporary = self.dir.join(TEMPORARY);
        let mut options = OpenOptions::new();
        // One that is there already was left by a killed process.
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(&temporary);
        let file = file.map_err(|e| RootfsError::io("create", &temporary, e))?;
        self.fill(&file, bytes)?;
        if fs::symlink_metadata(self.path()).is_ok() {
            return Err(self.failed("name", io::ErrorKind::AlreadyExists.into()));
        }
        fs::rename(&temporary, self.path()).map_err(|e| self.failed("name", e))?;
        Ok(file)
    }

    /// Locks and formats a file that is about to become the disk.
    fn fill(&self, file: &File, bytes: u64) -> Result<(), RootfsError> {
        self.lock(file)?;
        self.format(file, bytes)
    }

    /// The disk that `create` made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, RootfsError> {
        let this = Self { dir: dir.to_owned() };
        let metadata = fs::symlink_metadata(this.path()).map_err(|e| this.failed("find", e))?;
        if !metadata.is_file() {
            return Err(this.failed("find", io::ErrorKind::InvalidInput.into()));
        }
        Ok(this)
    }

    /// Where the disk is.
    pub fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// Opens the disk for the one virtual machine that uses it: for reading and writing, closed on `execve`, and locked until the last
    /// copy of the descriptor is closed.
    ///
    /// # Errors
    /// [`RootfsError::DiskInUse`] while another has it.
    pub fn attach(&self) -> Result<File, RootfsError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(self.path());
        let file = file.map_err(|e| self.failed("open", e))?;
        self.lock(&file)?;
        let bytes = file.metadata().map_err(|e| self.failed("measure", e))?.len();
        if ext4::is_untouched(&file, bytes).map_err(|source| self.refused(source))? {
            self.format(&file, bytes)?;
        }
        Ok(file)
    }

    /// Bytes that the disk has for the guest.
    pub fn capacity(&self) -> Result<u64, RootfsError> {
        Ok(self.metadata()?.len())
    }

    /// Bytes that the disk takes on the host: what was written, the file system's own structures and its journal (up to 64 MiB).
    pub fn usage(&self) -> Result<u64, RootfsError> {
        Ok(self.metadata()?.blocks() * 512)
    }

    /// Removes the disk; whoever has it open keeps it until then. Removing twice is no error.
    pub fn remove(self) -> Result<(), RootfsError> {
        for name in [NAME, TEMPORARY] {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RootfsError::io("remove", path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Locks the whole file for as long as its open description lives.
    fn lock(&self, file: &File) -> Result<(), RootfsError> {
        let whole = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
            Err(Errno::EAGAIN | Errno::EACCES) => Err(RootfsError::DiskInUse { path: self.path() }),
            locked => locked.map(|_| ()).map_err(|e| self.failed("lock", e.into())),
        }
    }

    fn metadata(&self) -> Result<fs::Metadata, RootfsError> {
        fs::symlink_metadata(self.path()).map_err(|e| self.failed("measure", e))
    }

    fn format(&self, file: &File, bytes: u64) -> Result<(), RootfsError> {
        let identity = new_identity().map_err(|e| self.failed("name the file system of", e))?;
        ext4::format(file, bytes, &identity).map_err(|source| self.refused(source))
    }

    fn failed(&self, step: &'static str, source: io::Error) -> RootfsError {
        RootfsError::io(step, self.path(), source)
    }

    fn refused(&self, source: FormatError) -> RootfsError {
        RootfsError::Disk { path: self.path(), source }
    }
}

fn new_identity() -> io::Result<Identity> {
    let mut identity = Identity::default();
    sys::random(&mut identity.uuid)?;
    sys::random(&mut identity.hash_seed)?;
    // RFC 9562: version 4, the usual variant.
    identity.uuid[6] = identity.uuid[6] & 0x0F | 0x40;
    identity.uuid[8] = identity.uuid[8] & 0x3F | 0x80;
    identity.label[..LABEL.len()].copy_from_slice(LABEL);
    // A clock before 1970 is as good as one that stands there.
    identity.created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::{TEMPORARY, WritableDisk};

    #[test]
    fn without_unnamed_files_it_is_made_under_another_name() {
        let scratch = tempfile::tempdir().unwrap();
        let disk = WritableDisk { dir: scratch.path().to_owned() };
        std::fs::write(scratch.path().join(TEMPORARY), [1; 10_000]).unwrap();
        disk.create_by_name(64 << 20).unwrap();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
        assert_eq!(disk.capacity().unwrap(), 64 << 20);
        assert!(disk.usage().unwrap() < 1 << 20);
        let error = disk.create_by_name(64 << 20).unwrap_err();
        assert!(error.to_string().contains(disk.path().to_str().unwrap()), "{error}");
        disk.remove().unwrap();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
