//! Leases: what a running pull or load needs although no image refers to it yet.
//!
//! A lease is a file that its owner holds flocked. It grows under the store's lock, and garbage is collected under the
//! same lock: content is thus either leased before it is looked for, or gone when it is looked for. The kernel drops
//! the flock of a dead owner; the next collection then removes the file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::{Store, files};
use crate::digest::Digest;
use crate::error::{Result, at};

/// Digests (blobs and diff ids) that are kept as long as this lives.
#[derive(Debug)]
pub(crate) struct Lease {
    store: Store,
    file: File,
    path: PathBuf,
    held: BTreeSet<Digest>,
}

impl Store {
    /// A lease of nothing yet.
    pub(crate) fn lease(&self) -> Result<Lease> {
        let path = files::temporary_name(&self.root.join("leases"));
        let _lock = self.lock()?;
        let file = files::open_private(&path).map_err(at("make the lease", &path))?;
        file.lock().map_err(at("lock the lease", &path))?;
        file.set_len(0).map_err(at("truncate the lease", &path))?;
        Ok(Lease { store: self.clone(), file, path, held: BTreeSet::new() })
    }

    /// What each of the living has leased; forgets the dead. Call with the lock held.
    pub(super) fn leases(&self) -> Result<Vec<BTreeSet<Digest>>> {
        let dir = self.root.join("leases");
        let mut leases = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(at("list", &dir))? {
            let path = entry.map_err(at("list", &dir))?.path();
            let Ok(mut file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                files::remove(&path).map_err(at("remove the lease", &path))?;
                continue;
            }
            let mut text = String::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).map_err(at("read", &path))?;
            leases.push(text.lines().filter_map(Digest::from_hex).collect());
        }
        Ok(leases)
    }
}

impl Lease {
    /// Keeps these too from now on.
    pub(crate) fn add(&mut self, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        let new: BTreeSet<Digest> = digests.into_iter().filter(|digest| !self.held.contains(digest)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let text: String = new.iter().map(|digest| digest.hex() + "\n").collect();
        let _lock = self.store.lock()?;
        self.file.write_all(text.as_bytes()).map_err(at("write the lease", &self.path))?;
        self.held.extend(new);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Left behind it is a dead lease, which the next collection removes.
        let _ = std::fs::remove_file(&self.path);
    }
}
