//! The layers of an image as open files, for a virtual machine to read.
//!
//! They are the very files that process mode mounts, so both share one page cache. An open file is all the hold that is needed: a layer
//! in the store is never written again, removing it takes away its name only, and the kernel lets go of it when its reader ends, however
//! it ends. There is no mount, no lock and no count that a crash could leave. (That a *stopped* container's layers stay is for whoever
//! removes layers to see: containers name them in their specifications.)

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::erofs;
use crate::error::RootfsError;
use crate::layer_id::LayerId;
use crate::store::LayerStore;

/// One layer, open for reading.
#[derive(Debug)]
pub struct LayerFile {
    id: LayerId,
    file: File,
    length: u64,
}

/// An image's layers, lowest first, for as long as they are used.
#[derive(Debug)]
pub struct LayerFiles {
    layers: Vec<LayerFile>,
}

impl LayerFile {
    /// Which layer it is.
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// The EROFS image; read-only, closed on `execve`.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the image, a multiple of 4096.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl LayerFiles {
    /// Opens the layers, lowest first (the order of `diff_ids` in the image's config).
    ///
    /// # Errors
    /// The first layer that is missing, or [`RootfsError::DamagedLayer`] where one is cut off or no EROFS image at all: better said here than
    /// by a guest that cannot mount it.
    pub fn open(store: &LayerStore, ids: &[LayerId]) -> Result<Self, RootfsError> {
        Ok(Self { layers: ids.iter().map(|id| open(store, id)).collect::<Result<_, _>>()? })
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[LayerFile] {
        &self.layers
    }

    /// Their lengths, lowest first: what [`super::partitions`] is given.
    pub fn lengths(&self) -> Vec<u64> {
        self.layers.iter().map(LayerFile::length).collect()
    }
}

fn open(store: &LayerStore, id: &LayerId) -> Result<LayerFile, RootfsError> {
    let path = store.path(id);
    let failed = |e: io::Error| RootfsError::io("open the layer", &path, e);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut head = [0; erofs::SUPER_END];
    let read = file.read_exact_at(&mut head, 0);
    let told = match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        read => {
            read.map_err(failed)?;
            erofs::image_bytes(&head)
        }
    };
    if told.is_none_or(|told| length < told) || length % erofs::BLOCK != 0 {
        return Err(RootfsError::DamagedLayer { path });
    }
    Ok(LayerFile { id: id.clone(), file, length })
}
