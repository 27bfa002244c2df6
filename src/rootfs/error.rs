//! What can go wrong, by who is to blame: the layer ([`LayerError`]) or this host ([`RootfsError`]).

use std::io;
use std::path::{Path, PathBuf};

use sbx_container::overlay::OverlayError;

/// A layer's tar cannot become an image. Everything but `Read` and `Write` is the fault of the layer's author.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream below the tar failed (network, decompression, disk).
    #[error("reading the layer: {0}")]
    Read(#[source] io::Error),
    /// The image file could not be written.
    #[error("writing the layer's image: {0}")]
    Write(#[source] io::Error),
    /// The stream ended in the middle of something.
    #[error("the layer is truncated at byte {offset}, inside {inside}")]
    Truncated {
        /// Bytes of the tar read so far.
        offset: u64,
        /// What was being read.
        inside: String,
    },
    /// The tar's structure is broken.
    #[error("the layer is not a valid tar: {what} (header at byte {offset})")]
    Malformed {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// One entry asks for something that no layer may ask for.
    #[error("layer entry {name:?}: {what}")]
    Entry {
        /// The entry's name; bytes that are not UTF-8 are replaced.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The layer is larger than the caller allows.
    #[error("the layer exceeds the limit of {limit} {of}; raise it if this layer is trusted")]
    Limit {
        /// What is counted.
        of: &'static str,
        /// How many are allowed.
        limit: u64,
    },
}

/// The host refuses what a root file system needs.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A layer's name is not a SHA-256.
    #[error("{text:?} is not a layer's digest (sha256: and 64 lower-case hexadecimal digits)")]
    LayerId {
        /// What was given, shortened.
        text: String,
    },
    /// An operation on a file failed.
    #[error("{step} {}: {source}", path.display())]
    Io {
        /// What was tried, as in `mount the layer`.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel cannot do what is needed.
    #[error("{what}: {source}; {remedy}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The way out.
        remedy: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An overlay needs between 1 and 500 layers.
    #[error("an image of {count} layers cannot be mounted{hint}")]
    LayerCount {
        /// How many there are.
        count: usize,
        /// The way out.
        hint: &'static str,
    },
    /// A layer's image is cut off or none at all.
    #[error("{} is no whole EROFS image; remove it and pull the image again", path.display())]
    DamagedLayer {
        /// The image.
        path: PathBuf,
    },
    /// A writable disk cannot be as it should.
    #[error("make the writable disk {}: {source}", path.display())]
    Disk {
        /// Where it is, or would be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: crate::ext4::FormatError,
    },
    /// Another virtual machine writes to the disk.
    #[error("the writable disk {} is in use; stop the container that uses it first", path.display())]
    DiskInUse {
        /// Where it is.
        path: PathBuf,
    },
    /// A volume or image mount cannot be made ready.
    #[error("mount at {destination}: {reason}")]
    Mount {
        /// Where it was to be, inside the container.
        destination: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A named volume cannot be used.
    #[error(transparent)]
    Volume(#[from] sbx_sandbox::volumes::VolumeError),
    /// A directory tree changed while it was read or removed.
    #[error("{step} {}: the tree keeps changing; stop what uses it and try again", path.display())]
    TreeChanged {
        /// What was tried.
        step: &'static str,
        /// Its top.
        path: PathBuf,
    },
}

impl From<sbx_archive::Error> for LayerError {
    fn from(error: sbx_archive::Error) -> Self {
        use sbx_archive::Error;
        match error {
            Error::Read(error) => Self::Read(error),
            Error::Truncated { offset, inside } => Self::Truncated { offset, inside },
            Error::Malformed { offset, what } => Self::Malformed { offset, what },
            Error::Entry { name, what } => Self::Entry { name, what },
            Error::Limit { of, limit } => Self::Limit { of, limit },
            // Reading a tar makes no files.
            other => Self::Read(io::Error::other(other)),
        }
    }
}

impl RootfsError {
    pub(crate) fn io(step: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io { step, path: path.as_ref().to_owned(), source: source.into() }
    }
}

impl From<OverlayError> for RootfsError {
    fn from(error: OverlayError) -> Self {
        match error {
            OverlayError::Io { step, path, source } => Self::Io { step, path, source },
            OverlayError::Kernel { what, source } => {
                let remedy = "sbx needs the right to mount, overlayfs, and for user namespaces Linux 5.19";
                Self::Kernel { what, remedy, source }
            }
            OverlayError::LayerCount { count, hint } => Self::LayerCount { count, hint },
        }
    }
}
