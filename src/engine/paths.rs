//! Where sbx keeps its things.
//!
//! ```text
//! ROOT (/var/lib/sbx)                         RUN (/run/sbx), empty after a reboot
//! ├── containers/ID/  spec, state, files,     ├── containers/ID.{lock,sock}  a sandbox that exists
//! │                   log, writable layer     ├── layers/                    mounted layers
//! ├── names/          name → id               ├── network/                   leases
//! ├── images/         content store           └── reap.lock
//! ├── layers/         converted layers
//! ├── networks/       definitions
//! └── volumes/        named volumes
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Ending of the names of locks.
const LOCK: &str = ".lock";

/// The two directories, and the settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// State that survives a reboot.
    pub root: PathBuf,
    /// State that does not.
    pub run: PathBuf,
    /// Settings; a missing file is all defaults.
    pub config: PathBuf,
}

impl Paths {
    /// Makes both directories (0700, CVE-2021-41091) where they are missing.
    pub fn prepare(&self) -> io::Result<()> {
        for directory in [&self.sandboxes(), &self.root.join("volumes")] {
            if !directory.is_dir() {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
        }
        for directory in [&self.root, &self.run] {
            // Whoever made it: others have no business in the store (CVE-2021-41091).
            let mode = fs::metadata(directory)?.permissions().mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
            }
        }
        let containers = self.root.join("containers");
        if !containers.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&containers)?;
            // A file system that does not know the attribute is no worse without it.
            let _ = sbx_rootfs::spread(&containers);
        }
        let volumes_lock = self.root.join("volumes.lock");
        if !volumes_lock.exists() {
            crate::lock::open(&volumes_lock)?;
        }
        Ok(())
    }

    /// Directories of sandboxes that exist.
    #[must_use]
    pub fn sandboxes(&self) -> PathBuf {
        self.run.join("containers")
    }

    /// The files of one sandbox.
    #[must_use]
    pub fn sandbox(&self, id: &str) -> Sandboxed {
        Sandboxed { directory: self.sandboxes(), id: id.to_owned() }
    }

    /// Held shared while a sandbox's directory is being made, alone while orphans are removed.
    #[must_use]
    pub fn reap_lock(&self) -> PathBuf {
        self.run.join("reap.lock")
    }
}

/// The files of a sandbox that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandboxed {
    directory: PathBuf,
    id: String,
}

impl Sandboxed {
    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `RUN/containers`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Locked by the supervisor for as long as it lives. As long as the file exists there is something to clean up.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.directory.join(format!("{}{LOCK}", self.id))
    }

    /// Name, in the directory, of the socket at which the supervisor listens.
    #[must_use]
    pub fn socket(&self) -> String {
        format!("{}.sock", self.id)
    }

    /// What the supervisor tells about the network.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.directory.join(format!("{}.network.json", self.id))
    }

    /// Removes the files, the lock last; those that are gone are fine.
    pub fn remove(&self) -> io::Result<()> {
        for path in [self.network(), self.directory.join(self.socket()), self.lock()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The container's id of a lock's file name.
pub(crate) fn id_of_lock(name: &str) -> Option<&str> {
    name.strip_suffix(LOCK)
}

/// A short name of a file in a directory of any length, for sockets: their paths hold 107 bytes (unix(7)). Valid while
/// `directory` is open.
pub(crate) fn short(directory: &fs::File, name: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(directory).to_string()).join(name)
}
