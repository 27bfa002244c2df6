//! The images of converted layers: `<root>/layers/<hex>.erofs`.
//!
//! A file with that name is whole and durable: it is written without a name (`O_TMPFILE`), or under a temporary one where the
//! file system has no such files, synced, and then linked or renamed into place. An image could be rebuilt from its blob, but one
//! torn by a power cut would not be noticed: so pulling pays for one `fdatasync` (100 ms for a Debian), and starting pays nothing.
//! Two processes that convert the same layer at once both succeed; one of the two equal files stays.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::unistd::linkat;

use crate::error::RootfsError;
use crate::layer_id::LayerId;
use crate::sys;

const SUFFIX: &str = ".erofs";
const TEMPORARY: &str = ".tmp";

/// The directory of layer images.
#[derive(Clone, Debug)]
pub struct LayerStore {
    dir: PathBuf,
}

/// An image being written; dropped without `commit`, it is gone.
#[derive(Debug)]
pub struct LayerWriter {
    store: LayerStore,
    image: Flock<File>,
    /// Only where the file had to have a name.
    temporary: Option<PathBuf>,
}

impl LayerStore {
    /// Opens the store under `root` (`/var/lib/sbx`), creating `<root>/layers` (0700).
    pub fn open(root: &Path) -> Result<Self, RootfsError> {
        let dir = root.join("layers");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|e| RootfsError::io("create", &dir, e))?;
        Ok(Self { dir })
    }

    /// An empty image file to give to [`crate::write_layer`].
    pub fn writer(&self) -> Result<LayerWriter, RootfsError> {
        match self.open_unnamed() {
            // Not all file systems have files without names.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
                self.named_writer()
            }
            result => {
                let image = result.map_err(|e| RootfsError::io("create a layer in", &self.dir, e))?;
                let locked = Flock::lock(image, FlockArg::LockExclusiveNonblock);
                let image = locked.map_err(|(_, e)| RootfsError::io("lock a new layer in", &self.dir, e))?;
                Ok(LayerWriter { store: self.clone(), image, temporary: None })
            }
        }
    }

    /// Where the layer's image is, or would be.
    pub fn path(&self, id: &LayerId) -> PathBuf {
        self.dir.join(format!("{}{SUFFIX}", id.hex()))
    }

    /// Is the layer converted?
    pub fn has(&self, id: &LayerId) -> Result<bool, RootfsError> {
        let path = self.path(id);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(RootfsError::io("look for the layer", path, error)),
        }
    }

    /// Bytes that the layer's image takes on the disk.
    pub fn size(&self, id: &LayerId) -> Result<u64, RootfsError> {
        let path = self.path(id);
        let metadata = fs::symlink_metadata(&path).map_err(|e| RootfsError::io("measure the layer", path, e))?;
        Ok(metadata.blocks() * 512)
    }

    /// Removes the layer's image; says whether there was one. Mounts of it stay usable.
    pub fn remove(&self, id: &LayerId) -> Result<bool, RootfsError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(RootfsError::io("remove the layer", path, error)),
        }
    }

    /// All converted layers, sorted.
    pub fn list(&self) -> Result<Vec<LayerId>, RootfsError> {
        let mut ids = Vec::new();
        for name in self.names()? {
            ids.extend(name.strip_suffix(SUFFIX).and_then(|hex| LayerId::parse(hex).ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// Removes what killed writers left behind; says how many files.
    pub fn reap(&self) -> Result<usize, RootfsError> {
        let mut removed = 0;
        for name in self.names()?.iter().filter(|name| name.ends_with(TEMPORARY)) {
            let path = self.dir.join(name);
            let failed = |e| RootfsError::io("remove the unfinished layer", &path, e);
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            // A living writer holds the lock.
            if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
                fs::remove_file(&path).map_err(failed)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn names(&self) -> Result<Vec<String>, RootfsError> {
        let failed = |e| RootfsError::io("list the layers in", &self.dir, e);
        let entries = fs::read_dir(&self.dir).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open_unnamed(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(&self.dir)
    }

    fn named_writer(&self) -> Result<LayerWriter, RootfsError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("{}-{number}{TEMPORARY}", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                // Unless `reap` came in between and took it for a dead one's.
                Ok(image) => match Flock::lock(image, FlockArg::LockExclusiveNonblock) {
                    Ok(image) => {
                        return Ok(LayerWriter { store: self.clone(), image, temporary: Some(path) });
                    }
                    Err(_) => continue,
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(RootfsError::io("create the unfinished layer", path, error));
                }
            }
        }
    }
}

impl LayerWriter {
    /// The file to write.
    pub fn image(&self) -> &File {
        &self.image
    }

    /// Names the image and makes it durable. Where another process was faster, its equal file stays.
    pub fn commit(mut self, id: &LayerId) -> Result<PathBuf, RootfsError> {
        let path = self.store.path(id);
        let failed = |e: io::Error| RootfsError::io("store the layer", &path, e);
        self.image.sync_data().map_err(failed)?;
        match self.temporary.take() {
            Some(temporary) => fs::rename(&temporary, &path).map_err(failed)?,
            None => {
                let source = sys::fd_path(&*self.image);
                let target = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| failed(e.into()))?;
                match linkat(AT_FDCWD, source.as_c_str(), AT_FDCWD, target.as_c_str(), AtFlags::AT_SYMLINK_FOLLOW) {
                    Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                    Err(error) => return Err(failed(error.into())),
                }
            }
        }
        Ok(path)
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            // What fails here is left to `reap`.
            let _ = fs::remove_file(path);
        }
    }
}
