//! Images: listing, finding, naming, adding.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::record::{ManifestRecord, Record, References, Target};
use super::{HistoryEntry, Image, ImageSummary, Layer, NewImage, Store};
use crate::config::{ImageConfig, MAX_CONFIG_SIZE};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::reference::Reference;
use crate::timestamp::parse_rfc3339;

/// Everything that becomes visible at once when an image is complete. The caller has leased all of it.
pub(crate) struct Admission<'a> {
    pub(crate) id: Digest,
    pub(crate) config: &'a ImageConfig,
    pub(crate) manifest: Descriptor,
    pub(crate) layers: Vec<Layer>,
    /// Names, each with the index or manifest that it stands for.
    pub(crate) references: Vec<(Reference, Digest)>,
}

impl Store {
    /// All images, newest first.
    ///
    /// # Errors
    /// When a state file cannot be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        let references = self.read_references()?;
        let mut images: Vec<ImageSummary> =
            self.records()?.into_iter().map(|record| summary(record, &references)).collect();
        images.sort_by_key(|image| (Reverse(image.created), image.id));
        Ok(images)
    }

    /// Finds an image by what a user types: a name (with tag, digest, both or none), an id, or the beginning of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`], or a damaged configuration.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let references = self.read_references()?;
        let (id, manifest) = self.find(name, &references)?;
        self.image(id, manifest, &references).and_then(|found| found.ok_or_else(|| no_such_image(name)))
    }

    /// The image of exactly this id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] or a damaged configuration.
    pub fn get(&self, id: &Digest) -> Result<Image> {
        let references = self.read_references()?;
        self.image(*id, None, &references)?.ok_or_else(|| no_such_image(&id.to_string()))
    }

    /// Gives an image another name. A name that is taken moves.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or a target with a digest.
    pub fn tag(&self, source: &str, target: &str) -> Result<Reference> {
        let target = Reference::parse(target)?;
        if target.digest().is_some() {
            return Err(Error::Reference {
                text: target.familiar(),
                reason: "refusing to create a tag with a digest reference",
            });
        }
        let _lock = self.lock()?;
        let mut references = self.read_references()?;
        let (id, manifest) = self.find(source, &references)?;
        let record = self.read_record(&id)?.ok_or_else(|| no_such_image(source))?;
        let manifest = record.manifest(manifest).map_or(id, |entry| entry.manifest.digest);
        let root = named(source, &references).map_or(manifest, |target| target.root);
        references.references.insert(target.clone(), Target { image: id, manifest, root });
        self.write_references(&references)?;
        Ok(target)
    }

    /// How an image was built, newest step first.
    pub fn history(&self, image: &Image) -> Vec<HistoryEntry> {
        let mut layers = image.layers.iter();
        let mut entries: Vec<HistoryEntry> = image
            .config
            .history
            .iter()
            .map(|step| HistoryEntry {
                id: None,
                created: step.created.as_deref().and_then(parse_rfc3339),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size: if step.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.size) },
                comment: step.comment.clone(),
            })
            .collect();
        entries.extend(layers.map(|layer| HistoryEntry {
            id: None,
            created: None,
            created_by: String::new(),
            tags: Vec::new(),
            size: layer.size,
            comment: String::new(),
        }));
        entries.reverse();
        if let Some(newest) = entries.first_mut() {
            newest.id = Some(image.id);
            newest.tags = image.tags.iter().map(Reference::familiar).collect();
        }
        entries
    }

    /// Adds an image made here: writes its configuration and an OCI manifest, then its names.
    ///
    /// # Errors
    /// When the layers do not fit the configuration or are not in the store.
    pub fn add_image(&self, new: NewImage) -> Result<Image> {
        let fail = |problem: &str| Err(Error::document("new image", problem));
        let diff_ids: Vec<Digest> = new.layers.iter().map(|layer| layer.diff_id).collect();
        if diff_ids != new.config.rootfs.diff_ids {
            return fail("its layers are not those of its configuration");
        }
        if new.references.iter().any(|name| name.digest().is_some()) {
            return fail("it cannot be named by a digest");
        }
        let encode = |error: serde_json::Error| Error::document("new image", error);
        let config = serde_json::to_vec(&new.config).map_err(encode)?;
        let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
        let blobs: Vec<Descriptor> = new.layers.iter().map(|layer| layer.blob.clone()).collect();
        let manifest = serde_json::to_vec(&Manifest::new(config_descriptor.clone(), blobs)).map_err(encode)?;
        let manifest_descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
        let mut lease = self.lease()?;
        lease.add(new.layers.iter().flat_map(|layer| [layer.blob.digest, layer.diff_id]))?;
        lease.add([config_descriptor.digest, manifest_descriptor.digest])?;
        for layer in &new.layers {
            self.open_blob(&layer.blob)?;
        }
        self.put_blob(&config)?;
        self.put_blob(&manifest)?;
        let root = manifest_descriptor.digest;
        self.admit(Admission {
            id: config_descriptor.digest,
            config: &new.config,
            manifest: manifest_descriptor,
            layers: new.layers,
            references: new.references.into_iter().map(|name| (name, root)).collect(),
        })?;
        self.get(&config_descriptor.digest)
    }

    /// Makes a complete image visible: its record, then its names.
    pub(crate) fn admit(&self, admission: Admission<'_>) -> Result<()> {
        let _lock = self.lock()?;
        let id = admission.id;
        let manifest = admission.manifest.digest;
        let before = self.read_record(&id)?;
        let mut record = before.clone().unwrap_or_else(|| Record::new(id, admission.config.platform().normalised()));
        record.created.clone_from(&admission.config.created);
        record.labels.clone_from(&admission.config.config.labels);
        record.manifests.retain(|entry| entry.manifest.digest != manifest);
        record.manifests.insert(0, ManifestRecord { manifest: admission.manifest, layers: admission.layers });
        if before.as_ref() != Some(&record) {
            self.write_record(&record)?;
        }
        let mut references = self.read_references()?;
        let before = references.clone();
        for (name, root) in admission.references {
            references.references.insert(name, Target { image: id, manifest, root });
        }
        if references != before {
            self.write_references(&references)?;
        }
        Ok(())
    }

    /// Blobs of all images, whose diff id and length were therefore verified once.
    pub(crate) fn known_layers(&self) -> Result<BTreeMap<Digest, Layer>> {
        let layers = self.records()?.into_iter().flat_map(|record| record.manifests).flat_map(|entry| entry.layers);
        Ok(layers.map(|layer| (layer.blob.digest, layer)).collect())
    }

    /// What exactly this name leads to: the image and the digest that the registry gave.
    pub(crate) fn lookup(&self, name: &Reference) -> Result<Option<(Digest, Digest)>> {
        let references = self.read_references()?;
        Ok(references.references.get(name).map(|target| (target.image, target.root)))
    }

    /// The image and manifest that `name` means.
    pub(super) fn find(&self, name: &str, references: &References) -> Result<(Digest, Option<Digest>)> {
        if let Some(target) = named(name, references) {
            return Ok((target.image, Some(target.manifest)));
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let hex = prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.is_empty() || prefix.len() > 64 || !hex {
            Reference::parse(name)?;
            return Err(no_such_image(name));
        }
        let matches: Vec<Digest> = self.record_ids()?.into_iter().filter(|id| id.hex().starts_with(prefix)).collect();
        match matches[..] {
            [] => Err(no_such_image(name)),
            [id] => Ok((id, None)),
            _ => Err(Error::AmbiguousId { prefix: name.to_owned(), matches }),
        }
    }

    fn image(&self, id: Digest, manifest: Option<Digest>, references: &References) -> Result<Option<Image>> {
        let Some(record) = self.read_record(&id)? else {
            return Ok(None);
        };
        let Some(entry) = record.manifest(manifest).cloned() else {
            return Ok(None);
        };
        let config = ImageConfig::parse(&self.read_blob(&id, MAX_CONFIG_SIZE)?, id)?;
        let (tags, digests) = references.of(&id);
        let size = record.size();
        Ok(Some(Image { id, config, manifest: entry.manifest, layers: entry.layers, tags, digests, size }))
    }
}

/// The entry of a name in the table. With a digest, the digest decides and a tag beside it is not looked at.
pub(super) fn named<'a>(name: &str, references: &'a References) -> Option<&'a Target> {
    let reference = Reference::parse(name).ok()?;
    let Some(digest) = reference.digest() else {
        return references.references.get(&reference);
    };
    references.references.get(&reference.with_digest(digest)).or_else(|| {
        let mut same = references.references.iter().filter(|(name, _)| name.same_repository(&reference));
        same.find(|(_, target)| target.root == digest || target.manifest == digest).map(|(_, target)| target)
    })
}

pub(super) fn no_such_image(name: &str) -> Error {
    let name = match Reference::parse(name) {
        Ok(reference) if !name.starts_with("sha256:") => reference.familiar(),
        _ => name.chars().take(300).collect(),
    };
    Error::NoSuchImage { name }
}

fn summary(record: Record, references: &References) -> ImageSummary {
    let (tags, digests) = references.of(&record.id);
    ImageSummary {
        id: record.id,
        tags,
        digests,
        created: record.created.as_deref().and_then(parse_rfc3339),
        size: record.size(),
        diff_ids: record.diff_ids(),
        labels: record.labels,
        platform: record.platform,
    }
}
