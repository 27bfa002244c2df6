//! Images: the content store, with layers converted to what the modes can mount.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use sbx_image::{
    Digest, Image, ImageSummary, ImageUse, ImportRequest, LayerSink, LoadOptions, Loaded, PendingLayer, Platform,
    Progress, PullRequest, PulledImage, Reference, Registries, Removal, RemoveMode, Silent, SinkError, Store,
    ensure_layers, load, pull, save,
};
use sbx_rootfs::{LayerId, LayerStore, LayerWriter, Limits, write_layer};

use crate::{Engine, Result};

/// Converts layers into the layer store while they arrive.
#[derive(Debug)]
pub struct Sink {
    layers: LayerStore,
}

impl LayerSink for Sink {
    fn has(&self, diff_id: &Digest) -> bool {
        layer_id(diff_id).is_ok_and(|id| self.layers.has(&id).unwrap_or(false))
    }

    fn convert<'a>(
        &'a self,
        diff_id: &Digest,
        tar: &mut dyn Read,
    ) -> std::result::Result<Box<dyn PendingLayer + 'a>, SinkError> {
        let id = layer_id(diff_id)?;
        let writer = self.layers.writer()?;
        write_layer(tar, writer.image(), &Limits::default())?;
        Ok(Box::new(Converted { writer, id }))
    }
}

struct Converted {
    writer: LayerWriter,
    id: LayerId,
}

impl PendingLayer for Converted {
    fn commit(self: Box<Self>) -> std::result::Result<(), SinkError> {
        Ok(self.writer.commit(&self.id).map(drop)?)
    }
}

fn layer_id(diff_id: &Digest) -> std::result::Result<LayerId, SinkError> {
    Ok(LayerId::parse(&diff_id.to_string())?)
}

impl Engine {
    /// The content store.
    pub fn images(&self) -> Result<Store> {
        Ok(Store::open(&self.paths.root)?)
    }

    pub(crate) fn layers(&self) -> Result<LayerStore> {
        Ok(LayerStore::open(&self.paths.root)?)
    }

    fn sink(&self) -> Result<Sink> {
        Ok(Sink { layers: self.layers()? })
    }

    /// How registries are reached, by the settings.
    #[must_use]
    pub fn registries(&self) -> Registries {
        let wanted = &self.settings.registry;
        Registries {
            insecure: wanted.insecure.clone(),
            mirrors: wanted.mirrors.clone(),
            host_mirrors: wanted.host_mirrors.clone(),
            ..Registries::default()
        }
    }

    /// An image of the store, ready to be run: a layer that was lost is converted again from its blob.
    pub fn image(&self, name: &str) -> Result<Image> {
        let store = self.images()?;
        let image = store.resolve(name)?;
        ensure_layers(&store, &image, sbx_image::Limits::default(), &self.sink()?, &Silent)?;
        Ok(image)
    }

    /// Pulls an image.
    pub fn pull(
        &self,
        reference: Reference,
        platform: Option<Platform>,
        progress: &dyn Progress,
    ) -> Result<PulledImage> {
        let mut request = PullRequest::new(reference);
        request.platform = platform;
        Ok(pull(&self.images()?, &request, &self.registries(), &self.sink()?, progress)?)
    }

    /// Writes images to an archive.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<()> {
        Ok(save(&self.images()?, names, out)?)
    }

    /// Reads images from an archive.
    pub fn load(&self, input: &mut dyn Read, options: &LoadOptions, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        Ok(load(&self.images()?, input, options, &self.sink()?, progress)?)
    }

    /// Makes an image of a root file system's tar.
    pub fn import(&self, request: &ImportRequest, input: &mut dyn Read, progress: &dyn Progress) -> Result<Image> {
        Ok(sbx_image::import(&self.images()?, input, request, &self.sink()?, progress)?)
    }

    /// Removes a name of an image, or the image.
    pub fn remove_image(&self, name: &str, mode: RemoveMode) -> Result<Removal> {
        let layers = self.layers()?;
        let used = self.layers_of_containers()?;
        let uses = self.image_uses()?;
        Ok(self
            .images()?
            .remove(name, mode, &uses, &mut |diff_id| forget_layer(&layers, &self.paths.run, &used, diff_id))?)
    }

    /// Removes every image that `choose` picks and no container uses.
    pub fn prune_images(&self, choose: &dyn Fn(&ImageSummary) -> bool) -> Result<Removal> {
        let layers = self.layers()?;
        let used = self.layers_of_containers()?;
        let uses = self.image_uses()?;
        Ok(self
            .images()?
            .prune(choose, &uses, &mut |diff_id| forget_layer(&layers, &self.paths.run, &used, diff_id))?)
    }

    /// Which images containers use.
    pub fn image_uses(&self) -> Result<Vec<ImageUse>> {
        let mut uses = Vec::new();
        for id in self.store.list()? {
            let spec = self.store.spec(&id)?;
            let running = self.store.state(&id)?.status.is_active();
            let mounted = spec.mounts.iter().map(|mount| mount.options.image.as_str());
            for image in mounted.chain([spec.image.id.as_str()]).filter_map(|digest| digest.parse().ok()) {
                uses.push(ImageUse { image, container: id.to_string(), running });
            }
        }
        Ok(uses)
    }

    /// Removes blobs and converted layers that no image has any more.
    pub fn sweep(&self) -> Result<sbx_image::Swept> {
        let layers = self.layers()?;
        let used = self.layers_of_containers()?;
        let converted: Vec<Digest> =
            layers.list()?.iter().filter_map(|id| format!("sha256:{}", id.hex()).parse().ok()).collect();
        Ok(self
            .images()?
            .collect_garbage(&converted, &mut |diff_id| forget_layer(&layers, &self.paths.run, &used, diff_id))?)
    }

    /// Layers that containers stand on, whatever became of their images (`rmi -f`).
    fn layers_of_containers(&self) -> Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for id in self.store.list()? {
            let spec = self.store.spec(&id)?;
            let mounted = spec.mounts.into_iter().flat_map(|mount| mount.options.layers);
            let layers = spec.image.layers.into_iter().chain(mounted);
            used.extend(layers.map(|layer| layer.trim_start_matches("sha256:").to_owned()));
        }
        Ok(used)
    }
}

/// Removes a converted layer and the place where it was mounted, unless a container stands on it. One that cannot be removed now is found again by the next
/// sweep.
fn forget_layer(layers: &LayerStore, run: &Path, used: &BTreeSet<String>, diff_id: &Digest) {
    if let Ok(id) = layer_id(diff_id)
        && !used.contains(id.hex())
    {
        let _ = layers.remove(&id);
        let _ = std::fs::remove_dir(run.join("layers").join(id.hex()));
    }
}
