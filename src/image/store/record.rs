//! The two kinds of state files: a record per image and the table of names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Layer, Store, files};
use crate::digest::Digest;
use crate::error::{Error, Result, at};
use crate::manifest::Descriptor;
use crate::platform::Platform;
use crate::reference::Reference;

/// Version of both formats. A larger one was written by a newer sbx and is left alone.
const SCHEMA: u32 = 1;

/// What the store knows of an image without reading its blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    schema: u32,
    pub(super) id: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
    pub(super) platform: Platform,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Ways to the image; the first is the one last added.
    pub(super) manifests: Vec<ManifestRecord>,
}

/// One manifest of an image. Two differ when the same layers were compressed twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    pub(super) manifest: Descriptor,
    pub(super) layers: Vec<Layer>,
}

/// The table of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct References {
    schema: u32,
    pub(super) references: BTreeMap<Reference, Target>,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The image.
    pub(super) image: Digest,
    /// The manifest that the name led to.
    pub(super) manifest: Digest,
    /// The index or manifest that the registry answered with.
    pub(super) root: Digest,
}

impl Record {
    pub(super) fn new(id: Digest, platform: Platform) -> Record {
        Record { schema: SCHEMA, id, created: None, platform, labels: BTreeMap::new(), manifests: Vec::new() }
    }

    /// The manifest of this digest, else the one last added.
    pub(super) fn manifest(&self, digest: Option<Digest>) -> Option<&ManifestRecord> {
        let named = self.manifests.iter().find(|entry| Some(entry.manifest.digest) == digest);
        named.or_else(|| self.manifests.first())
    }

    /// Every blob that the image needs.
    pub(super) fn blobs(&self) -> BTreeSet<Digest> {
        let of_manifest = |entry: &ManifestRecord| {
            let layers: Vec<Digest> = entry.layers.iter().map(|layer| layer.blob.digest).collect();
            layers.into_iter().chain([entry.manifest.digest])
        };
        self.manifests.iter().flat_map(of_manifest).chain([self.id]).collect()
    }

    /// Its layers' diff ids, bottom first.
    pub(super) fn diff_ids(&self) -> Vec<Digest> {
        self.manifests.first().map(|entry| entry.layers.iter().map(|layer| layer.diff_id).collect()).unwrap_or_default()
    }

    /// The sum of its uncompressed layers.
    pub(super) fn size(&self) -> u64 {
        let layers = self.manifests.first().map(|entry| entry.layers.as_slice()).unwrap_or_default();
        layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

impl References {
    fn new() -> References {
        References { schema: SCHEMA, references: BTreeMap::new() }
    }

    /// The names of an image, by tag and by digest.
    pub(super) fn of(&self, image: &Digest) -> (Vec<Reference>, Vec<Reference>) {
        let all = self.references.iter().filter(|(_, target)| target.image == *image);
        all.map(|(name, _)| name.clone()).partition(|name| name.digest().is_none())
    }
}

impl Store {
    fn record_path(&self, id: &Digest) -> PathBuf {
        self.root.join("records").join(format!("{}.json", id.hex()))
    }

    fn references_path(&self) -> PathBuf {
        self.root.join("refs.json")
    }

    pub(super) fn read_references(&self) -> Result<References> {
        let path = self.references_path();
        let read: Option<References> = read_state(&path)?;
        let references = read.unwrap_or_else(References::new);
        check_schema(references.schema, &path)?;
        Ok(references)
    }

    /// Call with the lock held.
    pub(super) fn write_references(&self, references: &References) -> Result<()> {
        write_state(&self.references_path(), references)
    }

    pub(super) fn read_record(&self, id: &Digest) -> Result<Option<Record>> {
        let path = self.record_path(id);
        let Some(record) = read_state::<Record>(&path)? else {
            return Ok(None);
        };
        check_schema(record.schema, &path)?;
        if record.id != *id || record.manifests.is_empty() {
            return Err(Error::State { path, problem: "it is not the record of this image".to_owned() });
        }
        Ok(Some(record))
    }

    /// Call with the lock held.
    pub(super) fn write_record(&self, record: &Record) -> Result<()> {
        write_state(&self.record_path(&record.id), record)
    }

    /// Call with the lock held, after the names are gone.
    pub(super) fn remove_record(&self, id: &Digest) -> Result<()> {
        let path = self.record_path(id);
        files::remove(&path).map_err(at("remove", &path))
    }

    /// The ids of all images.
    pub(super) fn record_ids(&self) -> Result<Vec<Digest>> {
        let dir = self.root.join("records");
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(at("list", &dir))? {
            let entry = entry.map_err(at("list", &dir))?;
            let name = entry.file_name();
            ids.extend(name.to_str().and_then(|name| Digest::from_hex(name.strip_suffix(".json")?)));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// All images. One that is removed meanwhile is left out.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let ids = self.record_ids()?;
        ids.iter().filter_map(|id| self.read_record(id).transpose()).collect()
    }
}

fn read_state<T: DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(at("read", path))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::State {
        path: path.to_path_buf(),
        problem: format!("{error}; remove the file and pull or load its images again"),
    })
}

fn write_state<T: Serialize>(path: &std::path::Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::State { path: path.to_path_buf(), problem: error.to_string() })?;
    files::replace(path, &bytes).map_err(at("write", path))
}

fn check_schema(schema: u32, path: &std::path::Path) -> Result<()> {
    match schema {
        SCHEMA => Ok(()),
        other => Err(Error::State {
            path: path.to_path_buf(),
            problem: format!("it is of version {other}, this sbx knows version {SCHEMA}"),
        }),
    }
}
