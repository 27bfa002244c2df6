//! Garbage: what interrupted work has left.

use std::fs::File;

use super::blobs::is_same_file;
use super::{Store, files};
use crate::digest::Digest;
use crate::error::{Result, at};

/// What a collection has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that no image refers to.
    pub blobs: usize,
    /// Downloads that nobody continues.
    pub partials: usize,
    /// Bytes of both.
    pub bytes: u64,
}

impl Store {
    /// Removes blobs that nothing refers to and downloads that nobody is at. A pull or load that runs meanwhile loses
    /// nothing. `forget` is called, under the store's lock, with each diff id of `converted` that nothing needs.
    ///
    /// # Errors
    /// When the state cannot be read: nothing is removed then.
    pub fn collect_garbage(&self, converted: &[Digest], forget: &mut dyn FnMut(&Digest)) -> Result<Swept> {
        let _lock = self.lock()?;
        let references = self.read_references()?;
        let live = self.live(&references)?;
        let mut swept = Swept::default();
        let blobs = self.root.join("blobs/sha256");
        for (name, path, len) in entries(&blobs)? {
            let garbage = match Digest::from_hex(&name) {
                Some(digest) => !live.contains(&digest),
                None => name.starts_with(files::TEMPORARY) && !is_of_living(&name),
            };
            if garbage {
                files::remove(&path).map_err(at("remove", &path))?;
                swept.blobs += 1;
                swept.bytes += len;
            }
        }
        for (_, path, len) in entries(&self.root.join("ingest"))? {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            // With its lock we may have got a file that was renamed meanwhile, and its name belongs to another download.
            if file.try_lock().is_ok() && is_same_file(&file, &path).map_err(at("stat", &path))? {
                files::remove(&path).map_err(at("remove", &path))?;
                swept.partials += 1;
                swept.bytes += len;
            }
        }
        // Under the lock nobody else writes state: a temporary file there belongs to the dead.
        for dir in [self.root.clone(), self.root.join("records")] {
            for (_, path, _) in entries(&dir)?.into_iter().filter(|(name, ..)| name.starts_with(files::TEMPORARY)) {
                files::remove(&path).map_err(at("remove", &path))?;
            }
        }
        converted.iter().filter(|diff_id| !live.contains(diff_id)).for_each(forget);
        Ok(swept)
    }
}

impl Store {
    /// Removes one blob unless an image has it or somebody else has leased it. For the holder of a lease whose content
    /// turned out to be of no use.
    pub(crate) fn drop_unused_blob(&self, digest: &Digest) -> Result<()> {
        let _lock = self.lock()?;
        let leases = self.leases()?.into_iter().filter(|lease| lease.contains(digest)).count();
        if leases > 1 || self.records()?.iter().any(|record| record.blobs().contains(digest)) {
            return Ok(());
        }
        let path = self.blob_path(digest);
        files::remove(&path).map_err(at("remove", &path))
    }

    /// Reads a blob again and removes it if it is not what its name says, so that the next pull brings it anew.
    /// Returns what was wrong with it.
    ///
    /// # Errors
    /// When it cannot be read or removed.
    pub fn discard_if_damaged(&self, digest: &Digest) -> Result<Option<String>> {
        let _lock = self.lock()?;
        let problem = self.check(digest, None)?;
        if problem.is_some() {
            let path = self.blob_path(digest);
            files::remove(&path).map_err(at("remove", &path))?;
        }
        Ok(problem)
    }
}

/// Whether the process that a temporary file is named after still exists. Small blobs are written without a lock.
fn is_of_living(name: &str) -> bool {
    let pid = name.strip_prefix(files::TEMPORARY).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists())
}

fn entries(dir: &std::path::Path) -> Result<Vec<(String, std::path::PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("list", dir))? {
        let entry = entry.map_err(at("list", dir))?;
        let Ok(meta) = entry.metadata() else { continue };
        if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
            found.push((name, entry.path(), meta.len()));
        }
    }
    Ok(found)
}
