//! Reading images from a tar.
//!
//! The tar is read once, front to back, and its entries may come in any order. So every file is written to the store
//! under the digest that it turns out to have, and only when all are there is it looked at what they are for; what was
//! for nothing is removed again. Names of entries are keys of a map, never paths.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::entries::{Entries, Kind, plain_name, read_error};
use super::{ArchiveImage, LoadOptions, Loaded, NAME_ANNOTATION, REF_ANNOTATION};
use crate::config::{ImageConfig, MAX_CONFIG_SIZE};
use crate::conversion::Conversion;
use crate::decompress::{Compression, Plain};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result, at};
use crate::manifest::{Descriptor, Document, Index, MAX_MANIFEST_SIZE, Manifest, media_type};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::pull::check_image;
use crate::reference::Reference;
use crate::sink::LayerSink;
use crate::store::{Admission, Layer, Lease, Store};

/// The files that say what the others are.
const DOCUMENTS: [&str; 4] = ["index.json", "manifest.json", "oci-layout", "repositories"];

/// Most links from one name to the next.
const MAX_LINKS: usize = 8;

/// Reads images from a tar (plain, gzip or zstd) that is an OCI layout or a docker-archive.
///
/// # Errors
/// What the archive lacks or has wrong; the store is then as before.
pub fn load(
    store: &Store,
    input: &mut dyn Read,
    options: &LoadOptions,
    sink: &dyn LayerSink,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    let mut archive = Archive::empty(store)?;
    let conversion = Conversion { store, sink, progress, limits: options.limits };
    let loaded = archive.spool(input, options).and_then(|()| archive.images(options)).and_then(|images| {
        let layers = convert(&conversion, &images)?;
        images.into_iter().map(|image| admit(store, image, &layers)).collect()
    });
    // On success these are the files that no image needed, on failure all of them.
    for blob in &archive.added {
        store.drop_unused_blob(blob)?;
    }
    loaded
}

/// What was found in an archive.
struct Archive<'a> {
    store: &'a Store,
    lease: Lease,
    /// Name → content.
    files: BTreeMap<String, (Digest, u64)>,
    /// Name → name.
    links: BTreeMap<String, String>,
    documents: BTreeMap<&'static str, Vec<u8>>,
    /// Blobs that were not in the store before.
    added: BTreeSet<Digest>,
}

/// An image of an archive, its parts in the store.
struct Parts {
    manifest: Manifest,
    descriptor: Descriptor,
    config: ImageConfig,
    names: BTreeSet<Reference>,
}

impl<'a> Archive<'a> {
    fn empty(store: &'a Store) -> Result<Archive<'a>> {
        Ok(Archive {
            store,
            lease: store.lease()?,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            documents: BTreeMap::new(),
            added: BTreeSet::new(),
        })
    }

    /// Takes in all entries.
    fn spool(&mut self, input: &mut dyn Read, options: &LoadOptions) -> Result<()> {
        let plain = Plain::new(input, options.limits).map_err(read_error)?;
        let mut entries = Entries::new(plain);
        while let Some(entry) = entries.next()? {
            match entry.kind {
                Kind::File => {
                    let document = DOCUMENTS.iter().find(|name| **name == entry.name);
                    if let Some(name) = document {
                        let bytes = self.document(&mut entries, &entry.name, entry.size)?;
                        self.documents.insert(name, bytes);
                    } else {
                        self.file(&mut entries, entry.name, entry.size, options)?;
                    }
                }
                Kind::Symlink(target) => {
                    let target = beside(&entry.name, &target);
                    self.links.insert(entry.name, target);
                }
                Kind::Link(target) => {
                    self.links.insert(entry.name, target);
                }
                Kind::Other => {}
            }
        }
        Ok(())
    }

    fn document(&self, entries: &mut impl Read, name: &str, size: u64) -> Result<Vec<u8>> {
        if size > MAX_MANIFEST_SIZE {
            return Err(Error::Archive(format!("{name} is longer than {MAX_MANIFEST_SIZE} bytes")));
        }
        let mut bytes = Vec::new();
        entries.take(size).read_to_end(&mut bytes).map_err(read_error)?;
        Ok(bytes)
    }

    /// Writes one file to the store under its digest.
    fn file(&mut self, entries: &mut impl Read, name: String, size: u64, options: &LoadOptions) -> Result<()> {
        if size > options.limits.blob {
            return Err(Error::Archive(format!("{name} is longer than {} bytes", options.limits.blob)));
        }
        let mut partial = self.store.new_partial()?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        while hasher.len() < size {
            let wanted = buffer.len().min(usize::try_from(size - hasher.len()).unwrap_or(usize::MAX));
            let read = entries.read(&mut buffer[..wanted]).map_err(read_error);
            match read.and_then(|n| partial.write(&buffer[..n]).map(|()| n)) {
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) => {
                    partial.discard();
                    return Err(error);
                }
            }
        }
        let digest = hasher.finish();
        let named = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
        if let Some(named) = named.filter(|named| *named != digest) {
            partial.discard();
            return Err(Error::Archive(format!("blob {named} is damaged: its content has the digest {digest}")));
        }
        self.lease.add([digest])?;
        let is_new = !self.store.blob_path(&digest).exists();
        // What is there already may be damaged; this is not.
        partial.commit(self.store, &digest)?;
        if is_new {
            self.added.insert(digest);
        }
        self.files.insert(name, (digest, size));
        Ok(())
    }

    /// The content that a name leads to.
    fn find(&self, name: &str) -> Result<(Digest, u64)> {
        let mut key = plain_name(name);
        for _ in 0..MAX_LINKS {
            match (self.files.get(&key), self.links.get(&key)) {
                (Some(found), _) => return Ok(*found),
                (None, Some(next)) => key.clone_from(next),
                (None, None) => break,
            }
        }
        Err(Error::Archive(format!("\"{}\" is not in it", clip(name))))
    }

    fn find_blob(&self, blob: &Descriptor) -> Result<()> {
        let (_, size) = match self.find(&format!("blobs/sha256/{}", blob.digest.hex())) {
            Ok(found) => found,
            // Tools leave out what the reader can be expected to have.
            Err(_) if self.store.has_blob(blob) => return Ok(()),
            Err(error) => return Err(error),
        };
        match size == blob.size {
            true => Ok(()),
            false => {
                let problem = format!("it is {size} bytes long instead of {}", blob.size);
                Err(Error::Archive(format!("blob {}: {problem}", blob.digest)))
            }
        }
    }

    /// Reads what the archive says it is. The OCI layout counts where both are there: only it keeps the digests.
    fn images(&mut self, options: &LoadOptions) -> Result<Vec<Parts>> {
        let docker = match self.documents.get("manifest.json") {
            Some(bytes) => Some(
                serde_json::from_slice::<Vec<ArchiveImage>>(bytes)
                    .map_err(|error| Error::Archive(format!("manifest.json: {error}")))?,
            ),
            None => None,
        };
        let mut images: Vec<Parts> = Vec::new();
        if let Some(bytes) = self.documents.get("index.json").cloned() {
            let subject = "index.json of the image archive";
            let Document::Index(index) = Document::parse(&bytes, media_type::OCI_INDEX, subject)? else {
                return Err(Error::document(subject, "it is not an index"));
            };
            self.oci(&index, options, &mut images)?;
            for entry in docker.iter().flatten() {
                let (id, _) = self.find(&entry.config)?;
                let names = names(entry)?;
                let same = images.iter_mut().filter(|image| image.manifest.config.digest == id);
                same.for_each(|image| image.names.extend(names.iter().cloned()));
            }
        } else if let Some(entries) = &docker {
            for entry in entries {
                let parts = self.docker(entry)?;
                merge(&mut images, parts);
            }
        } else if self.documents.contains_key("repositories") {
            return Err(Error::Archive(
                "it is of the format before Docker 1.10, without manifest.json; save it again with a newer tool"
                    .to_owned(),
            ));
        } else {
            return Err(Error::Archive("it has neither index.json nor manifest.json, so it holds no image".to_owned()));
        }
        if images.is_empty() {
            return Err(Error::Archive("it holds no image".to_owned()));
        }
        for image in &images {
            self.lease.add(image.config.rootfs.diff_ids.iter().copied())?;
            self.lease.add([image.descriptor.digest, image.manifest.config.digest])?;
        }
        Ok(images)
    }

    fn oci(&self, index: &Index, options: &LoadOptions, images: &mut Vec<Parts>) -> Result<()> {
        let wanted = options.platform.clone().unwrap_or_else(Platform::host);
        for entry in &index.manifests {
            if entry.platform.as_ref().is_some_and(Platform::is_unknown) {
                continue;
            }
            let name = entry_name(entry)?;
            let title = name.as_ref().map_or_else(|| entry.digest.to_string(), Reference::familiar);
            let mut descriptor = entry.clone();
            let manifest = loop {
                self.find_blob(&descriptor)?;
                let bytes = self.store.read_blob(&descriptor.digest, MAX_MANIFEST_SIZE)?;
                let subject = format!("manifest {} of the image archive", descriptor.digest);
                match Document::parse(&bytes, &descriptor.media_type, &subject)? {
                    Document::Manifest(manifest) => break manifest,
                    // An index holds the digests of its entries, so this comes to an end.
                    Document::Index(inner) => descriptor = inner.select(&wanted, &title)?.clone(),
                }
            };
            self.find_blob(&manifest.config)?;
            for layer in &manifest.layers {
                self.find_blob(layer)?;
            }
            let id = manifest.config.digest;
            let config = ImageConfig::parse(&self.store.read_blob(&id, MAX_CONFIG_SIZE)?, id)?;
            check_image(&config, &manifest, id)?;
            let descriptor = Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size);
            merge(images, Parts { manifest, descriptor, config, names: name.into_iter().collect() });
        }
        Ok(())
    }

    /// A docker-archive has no manifest: one is made of its layers.
    fn docker(&self, entry: &ArchiveImage) -> Result<Parts> {
        let (id, size) = self.find(&entry.config)?;
        let config = ImageConfig::parse(&self.store.read_blob(&id, MAX_CONFIG_SIZE)?, id)?;
        let layers = entry.layers.iter().flatten().map(|name| {
            let (digest, size) = self.find(name)?;
            Ok(Descriptor::new(self.layer_type(&digest)?, digest, size))
        });
        let layers = layers.collect::<Result<Vec<Descriptor>>>()?;
        let manifest = Manifest::new(Descriptor::new(media_type::OCI_CONFIG, id, size), layers);
        check_image(&config, &manifest, id)?;
        let bytes = serde_json::to_vec(&manifest).map_err(|error| Error::Archive(error.to_string()))?;
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        Ok(Parts { manifest, descriptor, config, names: names(entry)? })
    }

    fn layer_type(&self, digest: &Digest) -> Result<&'static str> {
        let path = self.store.blob_path(digest);
        let mut head = Vec::new();
        let file = std::fs::File::open(&path).map_err(at("open", &path))?;
        file.take(6).read_to_end(&mut head).map_err(at("read", &path))?;
        match Compression::detect(&head) {
            Ok(Compression::None) => Ok(media_type::OCI_LAYER),
            Ok(Compression::Gzip) => Ok(media_type::OCI_LAYER_GZIP),
            Ok(Compression::Zstd) => Ok(media_type::OCI_LAYER_ZSTD),
            Err(problem) => Err(Error::Layer { digest: *digest, problem }),
        }
    }
}

/// Adds an image, or its names to one that is there.
fn merge(images: &mut Vec<Parts>, parts: Parts) {
    match images.iter_mut().find(|image| image.descriptor.digest == parts.descriptor.digest) {
        Some(same) => same.names.extend(parts.names),
        None => images.push(parts),
    }
}

/// The name of an entry of `index.json`. A bare word is a tag of we do not know what, so it is none.
fn entry_name(entry: &Descriptor) -> Result<Option<Reference>> {
    let annotation = |key: &str| entry.annotations.get(key).filter(|name| !name.is_empty());
    if let Some(name) = annotation(NAME_ANNOTATION) {
        return tagged(name).map(Some);
    }
    let name = annotation(REF_ANNOTATION).filter(|name| name.contains([':', '/']));
    Ok(name.and_then(|name| tagged(name).ok()))
}

fn names(entry: &ArchiveImage) -> Result<BTreeSet<Reference>> {
    entry.repo_tags.iter().flatten().map(|name| tagged(name)).collect()
}

fn tagged(name: &str) -> Result<Reference> {
    let reference = Reference::parse(name)?;
    match reference.tag() {
        Some(tag) => reference.with_tag(tag),
        None => {
            Err(Error::Archive(format!("\"{}\" is a name with a digest; an archive can give tags only", clip(name))))
        }
    }
}

/// What a symbolic link leads to, seen from the directory of its name. `..` beyond the top stays at the top.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => name.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Converts every layer of every image once.
fn convert(conversion: &Conversion<'_>, images: &[Parts]) -> Result<BTreeMap<Digest, Layer>> {
    let known = conversion.store.known_layers()?;
    let wanted: BTreeMap<Digest, (&Descriptor, Digest)> = images
        .iter()
        .flat_map(|image| image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids))
        .map(|(blob, diff_id)| (blob.digest, (blob, *diff_id)))
        .collect();
    conversion.all(wanted.into_values().collect(), &known)
}

fn admit(store: &Store, image: Parts, layers: &BTreeMap<Digest, Layer>) -> Result<Loaded> {
    let id = image.manifest.config.digest;
    let root = image.descriptor.digest;
    if !store.has_blob(&image.descriptor) {
        let bytes = serde_json::to_vec(&image.manifest).map_err(|error| Error::Archive(error.to_string()))?;
        store.put_blob(&bytes)?;
    }
    let of_image = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    let of_image = of_image.filter_map(|(blob, diff_id)| {
        let layer = layers.get(&blob.digest)?;
        (layer.diff_id == *diff_id).then(|| layer.clone())
    });
    let of_image: Vec<Layer> = of_image.collect();
    if of_image.len() != image.manifest.layers.len() {
        return Err(Error::document(format!("image {id}"), "one blob of it cannot be two different layers"));
    }
    store.admit(Admission {
        id,
        config: &image.config,
        manifest: image.descriptor,
        layers: of_image,
        references: image.names.iter().map(|name| (name.clone(), root)).collect(),
    })?;
    Ok(Loaded { image: store.get(&id)?, names: image.names.into_iter().collect() })
}

fn clip(name: &str) -> String {
    name.chars().take(200).flat_map(char::escape_debug).collect()
}
