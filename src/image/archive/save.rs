//! Writing images to a tar.
//!
//! Blobs are written as they are, compressed layers too, so that the digests stay; each is verified on the way. The
//! same images give the same bytes: times are zero, entries are sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::{ArchiveImage, LAYOUT, NAME_ANNOTATION, REF_ANNOTATION};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, Index, media_type};
use crate::reference::Reference;
use crate::store::{Image, Store};

/// Writes images as one tar that is both an OCI layout and a docker-archive. A repository without a tag saves all its
/// tags, as Docker does; an id saves the image without names.
///
/// # Errors
/// No such image, a damaged blob, or the writer's error.
pub fn save(store: &Store, names: &[String], out: &mut dyn Write) -> Result<()> {
    let images = choose(store, names)?;
    let mut archive = Archive { builder: Builder::new(out), written: BTreeSet::new() };
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    for Chosen { image, .. } in &images {
        archive.blob(store, &image.id, None)?;
        archive.blob(store, &image.manifest.digest, Some(image.manifest.size))?;
        for layer in &image.layers {
            archive.blob(store, &layer.blob.digest, Some(layer.blob.size))?;
        }
    }
    archive.json("index.json", &index(&images))?;
    archive.json("manifest.json", &manifests(&images))?;
    archive.file("oci-layout", LAYOUT.as_bytes())?;
    let repositories = repositories(&images);
    if !repositories.is_empty() {
        archive.json("repositories", &repositories)?;
    }
    archive.builder.into_inner().and_then(Write::flush).map_err(write_error)
}

/// An image and the names to save it under.
struct Chosen {
    image: Image,
    names: BTreeSet<Reference>,
}

fn choose(store: &Store, names: &[String]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut add = |image: Image, name: Option<Reference>| {
        let same = |have: &&mut Chosen| have.image.manifest.digest == image.manifest.digest;
        match chosen.iter_mut().find(same) {
            Some(have) => have.names.extend(name),
            None => chosen.push(Chosen { image, names: name.into_iter().collect() }),
        }
    };
    for name in names {
        let reference = Reference::parse(name).ok();
        if let Some(bare) = reference.as_ref().filter(|reference| is_bare(name, reference)) {
            let of_repository: BTreeSet<Reference> = store
                .list()?
                .into_iter()
                .flat_map(|image| image.tags)
                .filter(|tag| tag.same_repository(bare))
                .collect();
            if !of_repository.is_empty() {
                for tag in of_repository {
                    add(store.resolve(&tag.to_string())?, Some(tag));
                }
                continue;
            }
        }
        let image = store.resolve(name)?;
        let tag = reference.filter(|reference| image.tags.contains(reference));
        add(image, tag);
    }
    Ok(chosen)
}

/// Whether the user gave neither tag nor digest.
fn is_bare(given: &str, reference: &Reference) -> bool {
    let last = given.rsplit('/').next().unwrap_or(given);
    reference.digest().is_none() && !last.contains(':')
}

fn index(images: &[Chosen]) -> Index {
    let mut manifests = Vec::new();
    for Chosen { image, names } in images {
        let mut plain = image.manifest.clone();
        plain.annotations.clear();
        let platform = image.config.platform();
        plain.platform = (!platform.architecture.is_empty()).then_some(platform);
        manifests.extend(names.iter().map(|name| {
            let mut named: Descriptor = plain.clone();
            named.annotations.insert(NAME_ANNOTATION.to_owned(), name.to_string());
            let tag = name.tag().unwrap_or_default().to_owned();
            named.annotations.insert(REF_ANNOTATION.to_owned(), tag);
            named
        }));
        if names.is_empty() {
            manifests.push(plain);
        }
    }
    Index { schema_version: 2, media_type: media_type::OCI_INDEX.to_owned(), manifests, annotations: BTreeMap::new() }
}

fn manifests(images: &[Chosen]) -> Vec<ArchiveImage> {
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    images
        .iter()
        .map(|Chosen { image, names }| ArchiveImage {
            config: path(&image.id),
            repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
            layers: Some(image.layers.iter().map(|layer| path(&layer.blob.digest)).collect()),
        })
        .collect()
}

/// Repository → tag → top layer: what Docker had before `manifest.json`, still written for old readers.
fn repositories(images: &[Chosen]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for Chosen { image, names } in images {
        let Some(top) = image.layers.last() else {
            continue;
        };
        for name in names {
            let tags = repositories.entry(name.familiar_repository()).or_default();
            tags.insert(name.tag().unwrap_or_default().to_owned(), top.blob.digest.hex());
        }
    }
    repositories
}

struct Archive<'a> {
    builder: Builder<&'a mut dyn Write>,
    written: BTreeSet<Digest>,
}

impl Archive<'_> {
    fn directory(&mut self, name: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        self.builder.append_data(&mut header, name, io::empty()).map_err(write_error)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64);
        self.builder.append_data(&mut header, name, bytes).map_err(write_error)
    }

    fn json<T: serde::Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::Archive(error.to_string()))?;
        self.file(name, &bytes)
    }

    /// A blob of the store, verified while it is copied; once only.
    fn blob(&mut self, store: &Store, digest: &Digest, size: Option<u64>) -> Result<()> {
        if !self.written.insert(*digest) {
            return Ok(());
        }
        let damaged = |problem: String| Error::DamagedBlob { digest: *digest, problem };
        let size = match size {
            Some(size) => size,
            None => std::fs::metadata(store.blob_path(digest)).map_err(|error| damaged(error.to_string()))?.len(),
        };
        let file = store.open_blob(&Descriptor::new("", *digest, size))?;
        let mut checked = Checked { inner: file.take(size), hasher: Hasher::default() };
        let mut header = header(EntryType::Regular, 0o644, size);
        let name = format!("blobs/sha256/{}", digest.hex());
        self.builder.append_data(&mut header, name, &mut checked).map_err(write_error)?;
        match (checked.hasher.len(), checked.hasher.finish()) {
            (len, found) if len == size && found == *digest => Ok(()),
            (_, found) => {
                store.discard_if_damaged(digest)?;
                Err(damaged(format!("its content has the digest {found}")))
            }
        }
    }
}

/// Hashes what is read.
struct Checked<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn write_error(source: io::Error) -> Error {
    Error::ArchiveIo { step: "write", source }
}
