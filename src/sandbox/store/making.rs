//! A container in the making: what says so on disk, so that a maker who is killed at any instant leaves nothing.
//!
//! ```text
//! containers/.new-ID/        locked by the maker for as long as the container is being made
//!                    name    the file that becomes names/NAME, by a link
//!                    files/  becomes containers/ID
//! ```
//!
//! The intent is there before anything else and goes when the name is taken, so what is found with nobody holding the
//! lock was never finished, whatever of it is there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Files, Lock, Store, StoreError, files, make_directory, remove_tree};
use crate::id::Id;

/// Name before the id of a container that is being made.
const NEW: &str = ".new-";
/// Stands in the name of what is left of the intent of one that has been made or given up, which nobody needs.
const MADE: &str = ".made";

/// The intent to make a container, held.
#[derive(Debug)]
pub(super) struct Making {
    directory: PathBuf,
    aside: PathBuf,
    id: Id,
    _lock: Lock,
}

impl Making {
    /// Where the container's files are until they are complete.
    pub(super) fn files(&self) -> Files {
        Files { directory: self.directory.join("files"), id: self.id.clone() }
    }

    /// A file with the container's id.
    pub(super) fn name(&self) -> PathBuf {
        self.directory.join("name")
    }

    /// The container is there, or has been given up: the intent goes, and what was not made into one with it.
    pub(super) fn end(self) -> Result<(), StoreError> {
        match fs::rename(&self.directory, &self.aside) {
            Ok(()) => remove_tree(&self.aside),
            Err(source) => Err(StoreError::io("remove", &self.directory, source)),
        }
    }
}

impl Store {
    fn intent(&self, id: &Id) -> PathBuf {
        self.containers().join(format!("{NEW}{id}"))
    }

    /// A name that nobody else uses: one intent of the container may have been swept away while the next was made.
    fn spent(&self, id: &Id) -> PathBuf {
        files::temporary_beside(&self.containers().join(format!("{id}{MADE}")))
    }

    /// Whether somebody makes it, or has been killed while making it.
    pub(super) fn is_in_the_making(&self, id: &Id) -> bool {
        self.intent(id).exists()
    }

    /// Says that a container is going to be made. A sweep that comes between the directory and the lock takes the
    /// directory away; then it is made anew.
    pub(super) fn begin_making(&self, id: &Id) -> Result<Making, StoreError> {
        let directory = self.intent(id);
        let lock = loop {
            make_directory(&directory)?;
            match files::lock_directory(&directory) {
                Ok(lock) if lock.is_at(&directory)? => break lock,
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        };
        let aside = self.spent(id);
        Ok(Making { directory, aside, id: id.clone(), _lock: lock })
    }

    /// Removes what was being made when its maker was killed; what somebody is making stays, for it is locked.
    pub fn sweep_unfinished(&self) -> Result<(), StoreError> {
        let directory = self.containers();
        let failed = |source| StoreError::io("list", &directory, source);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_prefix(NEW).and_then(|id| id.parse().ok()) {
                self.sweep_one(&directory.join(&name), &id)?;
            } else if name.contains(MADE) {
                remove_tree(&directory.join(&name))?;
            }
        }
        Ok(())
    }

    /// The directory is moved away under the lock before anything in it is removed: its maker, who may be about to take
    /// the lock, must find either all of it or none.
    fn sweep_one(&self, intent: &Path, id: &Id) -> Result<(), StoreError> {
        let _lock = match files::try_lock_directory(intent) {
            Ok(Some(lock)) if lock.is_at(intent)? => lock,
            // Held, or moved away by another sweep.
            Ok(_) => return Ok(()),
            // Finished or swept in the meantime.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if !self.exists(id)? {
            // Killed between the files and the name.
            take(&self.files(id).directory, &intent.join("unnamed"))?;
        }
        let doomed = self.spent(id);
        take(intent, &doomed)?;
        remove_tree(&doomed)
    }
}

/// Moves a directory, if it is there.
fn take(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::io("remove", from, source)),
        _ => Ok(()),
    }
}
