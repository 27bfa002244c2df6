//! Removing names and images, by Docker's rules (moby `daemon/images/image_delete.go` describes them).
//!
//! A name goes first; the image goes with its last name. An id removes all names if they are of one repository. What a
//! container uses stays unless forced, and stays even then while the container runs.

use std::collections::BTreeSet;

use super::images::{named, no_such_image};
use super::record::{Record, References};
use super::{ImageSummary, Store, files};
use crate::digest::Digest;
use crate::error::{Error, Result, at};
use crate::reference::Reference;

/// Whether `-f` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveMode {
    /// Refuse what is in use or has several names.
    Normal,
    /// Remove all names, and the image of a stopped container.
    Force,
}

/// A container that was made from an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// The image's id.
    pub image: Digest,
    /// The container's id; shown shortened.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Names, in short form.
    pub untagged: Vec<String>,
    /// The image's id, then the chain ids of layers that no image has any more, top first.
    pub deleted: Vec<Digest>,
    /// Bytes of blobs freed.
    pub freed: u64,
}

impl Removal {
    /// Docker's lines: `Untagged: …`, `Deleted: sha256:…`.
    pub fn lines(&self) -> Vec<String> {
        let untagged = self.untagged.iter().map(|name| format!("Untagged: {name}"));
        untagged.chain(self.deleted.iter().map(|digest| format!("Deleted: {digest}"))).collect()
    }
}

impl Store {
    /// Removes a name, and the image with its last one. `forget` is called, under the store's lock, with the diff id of
    /// each layer that neither an image nor a running pull needs any more: the place to remove the converted layer.
    /// It must not call the store.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or [`Error::Conflict`] in Docker's words.
    pub fn remove(
        &self,
        name: &str,
        mode: RemoveMode,
        uses: &[ImageUse],
        forget: &mut dyn FnMut(&Digest),
    ) -> Result<Removal> {
        let _lock = self.lock()?;
        let references = self.read_references()?;
        let (id, _) = self.find(name, &references)?;
        let record = self.read_record(&id)?.ok_or_else(|| no_such_image(name))?;
        let uses: Vec<&ImageUse> = uses.iter().filter(|used| used.image == id).collect();
        let going = match named(name, &references) {
            Some(_) => by_name(&Reference::parse(name)?, &id, &references, mode, &uses)?,
            None => by_id(&id, &references, mode, &uses)?,
        };
        self.apply(&record, references, going, forget)
    }

    /// Removes every image that `choose` picks, with all its names. Those in `uses` are passed over.
    ///
    /// # Errors
    /// When a state file or blob cannot be removed.
    pub fn prune(
        &self,
        choose: &dyn Fn(&ImageSummary) -> bool,
        uses: &[ImageUse],
        forget: &mut dyn FnMut(&Digest),
    ) -> Result<Removal> {
        let mut all = Removal::default();
        for image in self.list()?.iter().filter(|image| choose(image)) {
            if uses.iter().any(|used| used.image == image.id) {
                continue;
            }
            let _lock = self.lock()?;
            let Some(record) = self.read_record(&image.id)? else {
                continue;
            };
            let references = self.read_references()?;
            let (tags, digests) = references.of(&image.id);
            // A name that it got since the list was made shows that somebody wants it.
            if tags != image.tags {
                continue;
            }
            let going = Going { names: tags.into_iter().chain(digests).collect(), image: true };
            let removal = self.apply(&record, references, going, forget)?;
            all.untagged.extend(removal.untagged);
            all.deleted.extend(removal.deleted);
            all.freed += removal.freed;
        }
        Ok(all)
    }

    /// Call with the lock held. Names go before the record, the record before the blobs: a crash leaves garbage only.
    fn apply(
        &self,
        record: &Record,
        mut references: References,
        going: Going,
        forget: &mut dyn FnMut(&Digest),
    ) -> Result<Removal> {
        let mut candidates = record.blobs();
        for name in &going.names {
            candidates.extend(references.references.remove(name).map(|target| target.root));
        }
        self.write_references(&references)?;
        let mut removal =
            Removal { untagged: going.names.iter().map(Reference::familiar).collect(), ..Removal::default() };
        if going.image {
            self.remove_record(&record.id)?;
            removal.deleted.push(record.id);
        } else {
            self.drop_unnamed_manifests(record, &references)?;
        }
        let live = self.live(&references)?;
        for blob in candidates.difference(&live) {
            let path = self.blob_path(blob);
            removal.freed += std::fs::metadata(&path).map_or(0, |meta| meta.len());
            files::remove(&path).map_err(at("remove", &path))?;
        }
        if going.image {
            let diff_ids = record.diff_ids();
            for count in (1..=diff_ids.len()).rev() {
                let diff_id = &diff_ids[count - 1];
                if !live.contains(diff_id) && !diff_ids[..count - 1].contains(diff_id) {
                    forget(diff_id);
                    removal.deleted.extend(Digest::chain(&diff_ids[..count]));
                }
            }
        }
        Ok(removal)
    }

    /// A manifest that no name leads to goes, unless it is the image's only one.
    fn drop_unnamed_manifests(&self, record: &Record, references: &References) -> Result<()> {
        let wanted: BTreeSet<Digest> = references.references.values().map(|target| target.manifest).collect();
        let mut kept = record.clone();
        kept.manifests.retain(|entry| wanted.contains(&entry.manifest.digest));
        match kept.manifests.is_empty() || kept == *record {
            true => Ok(()),
            false => self.write_record(&kept),
        }
    }

    /// Every blob and diff id that something needs. Call with the lock held.
    pub(super) fn live(&self, references: &References) -> Result<BTreeSet<Digest>> {
        let mut live: BTreeSet<Digest> = self.leases()?.into_iter().flatten().collect();
        live.extend(references.references.values().flat_map(|target| [target.root, target.manifest, target.image]));
        for record in self.records()? {
            live.extend(record.blobs());
            live.extend(record.diff_ids());
        }
        Ok(live)
    }
}

/// What a removal takes away.
struct Going {
    names: Vec<Reference>,
    image: bool,
}

fn by_name(
    name: &Reference,
    id: &Digest,
    references: &References,
    mode: RemoveMode,
    uses: &[&ImageUse],
) -> Result<Going> {
    let (tags, digests) = references.of(id);
    if let (RemoveMode::Normal, true, Some(used)) = (mode, is_single(&tags, &digests), uses.first()) {
        return Err(Error::Conflict {
            message: format!(
                "unable to remove repository reference \"{}\" (must force) - container {} is using its referenced image {}",
                name.familiar(),
                short(&used.container),
                id.short()
            ),
        });
    }
    let exact = match name.digest() {
        Some(digest) => name.with_digest(digest),
        None => name.clone(),
    };
    let mut names: Vec<Reference> = tags.iter().chain(&digests).filter(|have| **have == exact).cloned().collect();
    // With the last tag of a repository its digests go too.
    let last_tag = exact.digest().is_none() && !tags.iter().any(|tag| *tag != exact && tag.same_repository(&exact));
    if last_tag {
        names.extend(digests.iter().filter(|digest| digest.same_repository(&exact)).cloned());
    }
    if names.is_empty() {
        // Found by the digest of a name that has a tag only: there is no such name to remove.
        return Err(no_such_image(&name.familiar()));
    }
    let image = names.len() == tags.len() + digests.len();
    if image {
        refuse_running(id, uses)?;
    }
    Ok(Going { names, image })
}

fn by_id(id: &Digest, references: &References, mode: RemoveMode, uses: &[&ImageUse]) -> Result<Going> {
    let (tags, digests) = references.of(id);
    refuse_running(id, uses)?;
    if mode == RemoveMode::Normal {
        let conflict = |reason: String| Error::Conflict {
            message: format!("unable to delete {} (must be forced) - {reason}", id.short()),
        };
        if !is_single(&tags, &digests) {
            return Err(conflict("image is referenced in multiple repositories".to_owned()));
        }
        if let Some(used) = uses.first() {
            return Err(conflict(format!("image is being used by stopped container {}", short(&used.container))));
        }
    }
    Ok(Going { names: tags.into_iter().chain(digests).collect(), image: true })
}

fn refuse_running(id: &Digest, uses: &[&ImageUse]) -> Result<()> {
    match uses.iter().find(|used| used.running) {
        None => Ok(()),
        Some(used) => Err(Error::Conflict {
            message: format!(
                "unable to delete {} (cannot be forced) - image is being used by running container {}",
                id.short(),
                short(&used.container)
            ),
        }),
    }
}

/// At most one tag, and every digest of the same repository.
fn is_single(tags: &[Reference], digests: &[Reference]) -> bool {
    let mut all = tags.iter().chain(digests);
    let Some(first) = all.next() else { return true };
    tags.len() <= 1 && all.all(|name| name.same_repository(first))
}

fn short(container: &str) -> String {
    container.chars().take(12).collect()
}
