//! The content store: blobs by digest, images, names.
//!
//! ```text
//! <root>/images/
//!   blobs/sha256/<hex>     content exactly as it was downloaded or loaded: indexes, manifests, configs, layers
//!   ingest/<hex>           a download under way, or what a broken one has left; flocked by its writer
//!   records/<hex>.json     one image, by its id (= digest of its config): manifests, layers, sizes
//!   refs.json              name → image
//!   leases/<id>            digests that a running pull or load needs; flocked by its owner
//!   lock                   flock around every change of the above, and around garbage collection
//! ```
//!
//! Readers take no lock: every file is replaced by a rename. A name is written last, so that what a name leads to is
//! there. **What a crash leaves:** killing a process leaves at most unreferenced blobs and partial downloads, which the
//! next pull uses and `collect_garbage` removes. Blobs are not synced one by one; records and names are. After a power cut a name
//! can lead to a blob that never reached the disk: every use checks the size (and of small blobs the digest), says so by
//! name, and the next `pull` replaces it.

mod blobs;
mod files;
mod garbage;
mod images;
mod lease;
mod record;
mod removal;
mod verify;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{Result, at};
use crate::manifest::Descriptor;
use crate::platform::Platform;
use crate::reference::Reference;

pub(crate) use blobs::Partial;
pub(crate) use files::replace as replace_file;
pub use garbage::Swept;
pub(crate) use images::Admission;
pub(crate) use lease::Lease;
pub use removal::{ImageUse, Removal, RemoveMode};
pub use verify::Damage;

/// The image store of one state directory. Cheap to open; holds no lock and no cache.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob, compressed or not, as it came.
    pub blob: Descriptor,
    /// Digest of the uncompressed tar: the name under which a [`crate::LayerSink`] has it.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes.
    pub size: u64,
}

/// An image of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its id: the digest of its configuration.
    pub id: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// Its names by tag.
    pub tags: Vec<Reference>,
    /// Its names by digest.
    pub digests: Vec<Reference>,
    /// The sum of its uncompressed layers in bytes, as Docker counts.
    pub size: u64,
}

/// An image in a list: what can be told without reading its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its id.
    pub id: Digest,
    /// Its names by tag: `RepoTags`. Empty is a dangling image.
    pub tags: Vec<Reference>,
    /// Its names by digest: `RepoDigests`.
    pub digests: Vec<Reference>,
    /// When it was built, if it says so.
    pub created: Option<SystemTime>,
    /// The sum of its uncompressed layers in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it runs.
    pub platform: Platform,
    /// Its layers' diff ids, bottom first.
    pub diff_ids: Vec<Digest>,
}

impl ImageSummary {
    /// Whether no tag leads to it.
    pub fn is_dangling(&self) -> bool {
        self.tags.is_empty()
    }
}

/// One line of `history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id on the newest line, `None` (`<missing>`) on the others.
    pub id: Option<Digest>,
    /// When.
    pub created: Option<SystemTime>,
    /// The command.
    pub created_by: String,
    /// Names of the image, on the newest line.
    pub tags: Vec<String>,
    /// Bytes of the layer, 0 for a step without one.
    pub size: u64,
    /// Free text.
    pub comment: String,
}

/// An image made here, whose layers are in the store already.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// Its configuration; the diff ids must be those of `layers`.
    pub config: ImageConfig,
    /// Bottom first; each blob in the store.
    pub layers: Vec<Layer>,
    /// Its names.
    pub references: Vec<Reference>,
}

impl Store {
    /// Opens the store in `<root>/images`, making it if need be.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(root: &Path) -> Result<Store> {
        let store = Store { root: root.join("images") };
        for dir in ["blobs/sha256", "ingest", "records", "leases"] {
            let path = store.root.join(dir);
            if !path.is_dir() {
                std::fs::create_dir_all(&path).map_err(at("make the directory", &path))?;
            }
        }
        Ok(store)
    }

    /// Where the blob of this digest is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The lock around every change of the store; held until the file is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = files::open_private(&path).map_err(at("open the lock", &path))?;
        file.lock().map_err(at("take the lock", &path))?;
        Ok(file)
    }
}
