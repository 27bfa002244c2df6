//! Removing a container that does not run.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sbx_rootfs::WritableLayer;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::store::Store;
use sbx_sandbox::volumes::{VolumeError, Volumes, owned};

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
}

impl Doomed {
    /// Deletes them. What a crash leaves is found by the next command.
    pub(crate) fn delete(self) -> anyhow::Result<()> {
        delete(&self.directory)
    }
}

/// Forgets a container: its name is free, nobody finds it any more, and what is left of it are files to delete.
pub(crate) fn forget(store: &Store, spec: &SandboxSpec, anonymous: AnonymousVolumes) -> anyhow::Result<Doomed> {
    let directory = store.set_aside(&spec.id)?;
    if anonymous == AnonymousVolumes::Remove {
        let volumes = Volumes::of(store);
        for name in owned(spec) {
            match volumes.remove(store, &name) {
                // One that another container uses too stays, as in Docker.
                Ok(()) | Err(VolumeError::InUse { .. } | VolumeError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(Doomed { directory })
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
