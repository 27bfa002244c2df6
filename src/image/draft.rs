//! An image in the making: layers first, configuration and names last.
//!
//! For `import`, `commit` and `build`. As long as the draft lives its layers are safe from garbage collection.

use std::io::Read;

use crate::config::ImageConfig;
use crate::conversion::Conversion;
use crate::decompress::Compression;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::layer;
use crate::manifest::{Descriptor, media_type};
use crate::progress::Progress;
use crate::pull::Limits;
use crate::reference::Reference;
use crate::sink::LayerSink;
use crate::store::{Image, Layer, Lease, NewImage, Store};

/// An image in the making.
pub struct Draft<'a> {
    store: &'a Store,
    lease: Lease,
    layers: Vec<Layer>,
    /// Blobs that were not in the store before.
    added: Vec<Digest>,
}

impl<'a> Draft<'a> {
    /// Begins with nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn new(store: &'a Store) -> Result<Draft<'a>> {
        Ok(Draft { store, lease: store.lease()?, layers: Vec::new(), added: Vec::new() })
    }

    /// Begins with the layers of an image.
    ///
    /// # Errors
    /// When the store cannot be written or the image is gone.
    pub fn on(store: &'a Store, base: &Image) -> Result<Draft<'a>> {
        let mut draft = Draft::new(store)?;
        draft.lease.add(base.layers.iter().flat_map(|layer| [layer.blob.digest, layer.diff_id]))?;
        for layer in &base.layers {
            store.open_blob(&layer.blob)?;
        }
        draft.layers.clone_from(&base.layers);
        Ok(draft)
    }

    /// The layers so far, bottom first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Adds a layer: a tar, plain or compressed with gzip or zstd, which is kept as it comes.
    ///
    /// # Errors
    /// A stream that fails, is too long, or is refused by the converter.
    pub fn add_layer(
        &mut self,
        input: &mut dyn Read,
        limits: Limits,
        sink: &dyn LayerSink,
        progress: &dyn Progress,
    ) -> Result<&Layer> {
        let blob = self.spool(input, limits)?;
        let broken = |error: std::io::Error| Error::Layer { digest: blob.digest, problem: error.to_string() };
        let diff_id = match blob.media_type.as_str() {
            media_type::OCI_LAYER => blob.digest,
            _ => layer::measure(self.store.open_blob(&blob)?, limits).map_err(broken)?.0,
        };
        self.lease.add([diff_id])?;
        let conversion = Conversion { store: self.store, sink, progress, limits };
        self.layers.push(conversion.one(&blob, diff_id)?);
        Ok(&self.layers[self.layers.len() - 1])
    }

    /// Makes the image. The configuration's `rootfs` is set to the layers.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn finish(mut self, mut config: ImageConfig, references: Vec<Reference>) -> Result<Image> {
        config.rootfs.diff_ids = self.layers.iter().map(|layer| layer.diff_id).collect();
        let layers = std::mem::take(&mut self.layers);
        let image = self.store.add_image(NewImage { config, layers, references })?;
        self.added.clear();
        Ok(image)
    }

    fn spool(&mut self, input: &mut dyn Read, limits: Limits) -> Result<Descriptor> {
        let mut partial = self.store.new_partial()?;
        let mut hasher = Hasher::default();
        let mut head = Vec::new();
        let mut buffer = vec![0; 256 << 10];
        let outcome = loop {
            let n = match input.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    break Err(Error::ArchiveIo { step: "read", source });
                }
            };
            head.extend(buffer[..n].iter().take(6 - head.len().min(6)));
            hasher.update(&buffer[..n]);
            if hasher.len() > limits.blob {
                break Err(Error::Archive(format!("it is longer than {} bytes", limits.blob)));
            }
            if let Err(error) = partial.write(&buffer[..n]) {
                break Err(error);
            }
        };
        let kind = outcome.and_then(|()| match Compression::detect(&head) {
            _ if head.is_empty() => Err(Error::Archive("it is empty".to_owned())),
            Ok(Compression::None) => Ok(media_type::OCI_LAYER),
            Ok(Compression::Gzip) => Ok(media_type::OCI_LAYER_GZIP),
            Ok(Compression::Zstd) => Ok(media_type::OCI_LAYER_ZSTD),
            Err(problem) => Err(Error::Archive(problem)),
        });
        let kind = match kind {
            Ok(kind) => kind,
            Err(error) => {
                partial.discard();
                return Err(error);
            }
        };
        let size = hasher.len();
        let blob = Descriptor::new(kind, hasher.finish(), size);
        self.lease.add([blob.digest])?;
        let is_new = !self.store.blob_path(&blob.digest).exists();
        // What is there already may be damaged; this is not.
        partial.commit(self.store, &blob.digest)?;
        if is_new {
            self.added.push(blob.digest);
        }
        Ok(blob)
    }
}

impl Drop for Draft<'_> {
    /// A draft that was not finished leaves no blobs; what cannot be removed now is garbage for the next collection.
    fn drop(&mut self) {
        for blob in &self.added {
            let _ = self.store.drop_unused_blob(blob);
        }
    }
}
