//! Removing a container that does not run.

use std::path::{Path, PathBuf};

use std::fs::File;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use sbx_rootfs::WritableLayer;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::store::Store;
use sbx_sandbox::volumes::{VolumeError, Volumes, owned};

use crate::lock;

/// What happens to volumes that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonymousVolumes {
    /// They stay (`rm`).
    Keep,
    /// They go (`rm -v`, `--rm`).
    Remove,
}

/// Files of a container that is forgotten already.
#[derive(Debug)]
#[must_use = "they are to be deleted"]
pub(crate) struct Doomed {
    directory: PathBuf,
    /// Keeps [`sweep`] away from files that somebody is deleting.
    _removing: Flock<File>,
}

impl Doomed {
    /// Deletes them. What a crash leaves is found by the next command.
    pub(crate) fn delete(self) -> anyhow::Result<()> {
        delete(&self.directory)
    }
}

/// Forgets a container: its name is free, nobody finds it any more, and what is left of it are files to delete.
pub(crate) fn forget(store: &Store, spec: &SandboxSpec, anonymous: AnonymousVolumes) -> anyhow::Result<Doomed> {
    let removing = lock::wait_for(&removal_lock(store), FlockArg::LockShared).context("lock for the removal")?;
    let directory = match anonymous {
        AnonymousVolumes::Keep => store.set_aside(&spec.id)?,
        AnonymousVolumes::Remove => {
            let directory = store.set_aside_with_volumes(&spec.id)?;
            remove_anonymous(store, spec)?;
            directory
        }
    };
    Ok(Doomed { directory, _removing: removing })
}

/// Finishes removals, and undoes creations, that were killed in the middle. Where there are none it costs three directory
/// listings.
pub(crate) fn sweep(store: &Store) -> anyhow::Result<()> {
    store.sweep_unfinished()?;
    let volumes = Volumes::of(store);
    volumes.sweep()?;
    if store.left_aside()?.is_empty() {
        return Ok(());
    }
    let lock = lock::open(&removal_lock(store)).context("lock for the clean-up")?;
    // Somebody who removes right now is not disturbed; the next command comes back to it.
    let Ok(_alone) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    for left in store.left_aside()? {
        store.release_names(&left)?;
        if let Some(spec) = &left.volumes_of {
            remove_anonymous(store, spec)?;
        }
        delete(&left.files)?;
    }
    Ok(())
}

fn removal_lock(store: &Store) -> PathBuf {
    store.root().join("removal.lock")
}

fn remove_anonymous(store: &Store, spec: &SandboxSpec) -> anyhow::Result<()> {
    let volumes = Volumes::of(store);
    for name in owned(spec) {
        match volumes.remove(store, &name) {
            // One that another container uses too stays, as in Docker.
            Ok(()) | Err(VolumeError::InUse { .. } | VolumeError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn delete(directory: &Path) -> anyhow::Result<()> {
    if let Ok(writable) = WritableLayer::open(directory) {
        writable.remove()?;
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
