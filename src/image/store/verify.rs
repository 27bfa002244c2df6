//! Checking the store again, byte by byte.

use std::collections::BTreeMap;
use std::io::Read;

use super::Store;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result, at};
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// A blob that is not what an image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The blob.
    pub blob: Digest,
    /// What is wrong with it.
    pub problem: String,
    /// The images that need it, by a name or else their id: what to pull again.
    pub images: Vec<String>,
}

impl Store {
    /// Reads every blob of every image and compares length and digest. Changes nothing; `discard_if_damaged` makes room
    /// for a new copy.
    ///
    /// # Errors
    /// When the state cannot be read; a bad blob is no error but a [`Damage`].
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let references = self.read_references()?;
        // Blob → expected length, if one is known, and who needs it.
        let mut needed: BTreeMap<Digest, (Option<u64>, Vec<String>)> = BTreeMap::new();
        for record in self.records()? {
            let (tags, digests) = references.of(&record.id);
            let name = tags.first().or(digests.first()).map_or_else(|| record.id.to_string(), Reference::familiar);
            let sizes: BTreeMap<Digest, u64> = record
                .manifests
                .iter()
                .flat_map(|entry| entry.layers.iter().map(|layer| &layer.blob).chain([&entry.manifest]))
                .map(|blob: &Descriptor| (blob.digest, blob.size))
                .collect();
            let roots = tags.iter().chain(&digests).filter_map(|name| references.references.get(name));
            for digest in record.blobs().into_iter().chain(roots.map(|target| target.root)) {
                let entry = needed.entry(digest).or_insert((None, Vec::new()));
                entry.0 = entry.0.or(sizes.get(&digest).copied());
                if !entry.1.contains(&name) {
                    entry.1.push(name.clone());
                }
            }
        }
        let mut damages = Vec::new();
        for (blob, (size, images)) in needed {
            if let Some(problem) = self.check(&blob, size)? {
                damages.push(Damage { blob, problem, images });
            }
        }
        Ok(damages)
    }

    /// What is wrong with a blob, if anything is.
    pub(super) fn check(&self, digest: &Digest, size: Option<u64>) -> Result<Option<String>> {
        let path = self.blob_path(digest);
        let mut file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some("it is missing".to_owned()));
            }
            other => other.map_err(at("open", &path))?,
        };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(source) => {
                    return Err(Error::Io { step: "read", path, source });
                }
            }
        }
        let len = hasher.len();
        if let Some(size) = size.filter(|size| *size != len) {
            return Ok(Some(format!("it is {len} bytes long instead of {size}")));
        }
        let found = hasher.finish();
        Ok((found != *digest).then(|| format!("its content has the digest {found}")))
    }
}
