//! `save` and `load`: images as one tar, for Docker and for OCI tools.
//!
//! The two formats share their blobs: an OCI layout (image-layout.md: `oci-layout`, `index.json`, `blobs/`) that also
//! has docker-archive's `manifest.json` and `repositories`, whose paths point into `blobs/`.

mod entries;
mod load;
mod save;

use serde::{Deserialize, Serialize};

pub use load::load;
pub use save::save;

use crate::platform::Platform;
use crate::pull::Limits;
use crate::reference::Reference;
use crate::store::Image;

/// The annotation with an image's full name (containerd, Docker).
const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// The annotation with a tag, or with whatever a tool was given as a name (OCI image-spec, annotations.md).
const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// `oci-layout`.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// One image of docker-archive's `manifest.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--platform`, for archives with several; `None` takes the host's.
    pub platform: Option<Platform>,
    /// What is refused as too big.
    pub limits: Limits,
}

/// One image of an archive.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The image, now in the store.
    pub image: Image,
    /// Its names in the archive; with none, Docker prints `Loaded image ID: sha256:…`.
    pub names: Vec<Reference>,
}

impl Loaded {
    /// Docker's lines: `Loaded image: name:tag` for each name, else `Loaded image ID: sha256:…`.
    pub fn lines(&self) -> Vec<String> {
        match self.names.is_empty() {
            true => vec![format!("Loaded image ID: {}", self.image.id)],
            false => self.names.iter().map(|name| format!("Loaded image: {}", name.familiar())).collect(),
        }
    }
}
