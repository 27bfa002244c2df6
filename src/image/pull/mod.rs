//! Pulling an image: reference → manifest → configuration → layers → names.
//!
//! One thread runs the network, for all layers; inflating, hashing and converting have threads of their own per layer.
//! The async runtime exists only inside `pull`. Nothing is synced on the way: see `store` for what a crash leaves.

mod download;
mod layers;
mod resolve;
mod tail;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;

use self::layers::Layers;
use self::resolve::Found;
pub(crate) use self::resolve::check_image;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::Registries;
use crate::sink::LayerSink;
use crate::store::{Admission, Image, Layer, Store};

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// `--platform`; `None` takes the host's. An index must have it; an image that exists for one platform only is pulled
    /// as it is, as Docker does, and its [`crate::ImageConfig::platform`] says which.
    pub platform: Option<Platform>,
    /// Layers downloaded at the same time; Docker's `max-concurrent-downloads`, 3.
    pub parallel: usize,
    /// What is refused as too big.
    pub limits: Limits,
}

impl PullRequest {
    /// With Docker's defaults.
    pub fn new(reference: Reference) -> PullRequest {
        PullRequest { reference, platform: None, parallel: 3, limits: Limits::default() }
    }
}

/// What is refused as too big, so that neither a registry nor an archive can fill memory or disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest blob, in bytes.
    pub blob: u64,
    /// Longest uncompressed layer, in bytes.
    pub layer: u64,
    /// Most uncompressed bytes per compressed byte, once a layer is larger than 1 GiB.
    pub ratio: u64,
}

impl Default for Limits {
    /// 64 GiB, 256 GiB, 250. A root file system is compressed to a half or a fifth; deflate can do 1,032.
    fn default() -> Limits {
        Limits { blob: 64 << 30, layer: 256 << 30, ratio: 250 }
    }
}

/// What was pulled.
#[derive(Clone, Debug)]
pub struct PulledImage {
    /// The image, now in the store.
    pub image: Image,
    /// Digest that the reference names at the registry: `Digest: sha256:…`.
    pub digest: Digest,
    /// False: `Status: Image is up to date for …`; true: `Status: Downloaded newer image for …`.
    pub newer: bool,
}

/// Pulls an image into the store, converting its layers while they arrive.
///
/// Blocks until done. Threads and an async runtime live only as long as the call. What a broken download has left is
/// resumed by the next pull; an image's name appears only after all of it has been verified. Not to be called from
/// within an async runtime.
///
/// # Errors
/// Docker's words for the well-known cases; see [`crate::Error`].
pub fn pull(
    store: &Store,
    request: &PullRequest,
    registries: &Registries,
    sink: &dyn LayerSink,
    progress: &dyn Progress,
) -> Result<PulledImage> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Error::Registry {
            host: request.reference.domain().to_owned(),
            step: "start the network".to_owned(),
            problem: error.to_string(),
        })?;
    let found = runtime.block_on(resolve::resolve(request, registries, progress))?;
    let mut lease = store.lease()?;
    let manifest = &found.manifest;
    lease.add([found.root, found.descriptor.digest, manifest.config.digest])?;
    lease.add(manifest.layers.iter().map(|blob| blob.digest))?;
    lease.add(found.config.rootfs.diff_ids.iter().copied())?;
    let layers = std::thread::scope(|scope| {
        let layers = Layers::new(scope, store, (sink, progress), &found.sessions, request)?;
        // A layer that occurs twice is brought once.
        let distinct: BTreeMap<Digest, (&Descriptor, Digest)> = manifest
            .layers
            .iter()
            .zip(&found.config.rootfs.diff_ids)
            .map(|(blob, diff_id)| (blob.digest, (blob, *diff_id)))
            .collect();
        let order = manifest.layers.iter().filter_map(|blob| distinct.get(&blob.digest));
        let mut seen = BTreeSet::new();
        let work =
            order.filter(|(blob, _)| seen.insert(blob.digest)).map(|(blob, diff_id)| layers.fetch(blob, *diff_id));
        runtime.block_on(try_join_all(work))
    })?;
    finish(store, request, &found, &layers)
}

/// Everything is there: the documents, then the names.
fn finish(store: &Store, request: &PullRequest, found: &Found<'_>, layers: &[Layer]) -> Result<PulledImage> {
    let by_blob: BTreeMap<Digest, &Layer> = layers.iter().map(|layer| (layer.blob.digest, layer)).collect();
    let id = found.manifest.config.digest;
    let of_image = found.manifest.layers.iter().zip(&found.config.rootfs.diff_ids).filter_map(|(blob, diff_id)| {
        by_blob.get(&blob.digest).filter(|layer| layer.diff_id == *diff_id).copied().cloned()
    });
    let of_image: Vec<Layer> = of_image.collect();
    if of_image.len() != found.manifest.layers.len() {
        return Err(Error::document(format!("image {id}"), "one blob of it cannot be two different layers"));
    }
    for document in &found.documents {
        store.put_blob(document)?;
    }
    let before = store.lookup(&request.reference)?;
    let by_digest = request.reference.with_digest(found.root);
    let references = match request.reference.digest() {
        Some(_) => vec![(by_digest, found.root)],
        None => vec![(request.reference.clone(), found.root), (by_digest, found.root)],
    };
    store.admit(Admission {
        id,
        config: &found.config,
        manifest: found.descriptor.clone(),
        layers: of_image,
        references,
    })?;
    let newer = before.is_none_or(|(image, _)| image != id);
    Ok(PulledImage { image: store.get(&id)?, digest: found.root, newer })
}
