//! Finding containers: by id, by name, by a part of the id, and all of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ASIDE, ASIDE_WITH_VOLUMES, Store, StoreError, files, read_json};
use crate::id::Id;
use crate::spec::{self, SandboxSpec};

/// A container of a list.
#[derive(Debug)]
pub struct Listed {
    /// Its id.
    pub id: Id,
    /// Its specification, or why it cannot be read.
    pub spec: Result<SandboxSpec, StoreError>,
}

/// A container whose removal has begun.
#[derive(Debug)]
pub struct LeftAside {
    /// Its files.
    pub files: PathBuf,
    /// Its specification, where its anonymous volumes are to be removed first.
    pub volumes_of: Option<SandboxSpec>,
}

impl Store {
    /// The container that a user means. Docker's order: a whole id, a name, the beginning of one id.
    pub fn find(&self, reference: &str) -> Result<Id, StoreError> {
        let not_found = || StoreError::NotFound(reference.to_owned());
        if reference.is_empty() {
            return Err(not_found());
        }
        if let Ok(id) = reference.parse::<Id>()
            && self.exists(&id)?
        {
            return Ok(id);
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if crate::names::validate(name).is_ok()
            && let Some(id) = self.holder(name)?
        {
            return Ok(id);
        }
        let is_prefix = reference.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_prefix {
            return Err(not_found());
        }
        let mut matching = Vec::new();
        for id in self.directories()? {
            if id.as_str().starts_with(reference) && self.exists(&id)? {
                matching.push(id);
            }
        }
        match (matching.pop(), matching.is_empty()) {
            (Some(id), true) => Ok(id),
            (Some(_), false) => Err(StoreError::Ambiguous(reference.to_owned())),
            (None, _) => Err(not_found()),
        }
    }

    /// Every container, by id; damaged ones as well.
    pub fn list(&self) -> Result<Vec<Id>, StoreError> {
        Ok(self.specs()?.into_iter().map(|listed| listed.id).collect())
    }

    /// Every container with its specification, by id; of a damaged one with what is wrong.
    pub fn specs(&self) -> Result<Vec<Listed>, StoreError> {
        let mut specs = Vec::new();
        for id in self.directories()? {
            let spec = self.spec(&id);
            if self.is_container(&id, &spec)? {
                specs.push(Listed { id, spec });
            }
        }
        Ok(specs)
    }

    /// Directories that are no container: left by a crash in the middle of making or removing one.
    ///
    /// Whoever makes one right now holds its lock, and is left alone. Remains that stand for nothing are removed
    /// here: directories that were never finished, or that were being deleted.
    pub fn orphans(&self) -> Result<Vec<Id>, StoreError> {
        self.sweep_unfinished()?;
        let mut ids = Vec::new();
        for id in self.directories()? {
            if self.exists(&id)? {
                continue;
            }
            let lock = match files::try_lock(&self.files(&id).lock()) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                // Somebody else has just removed it.
                Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            // It may have been finished between the look and the lock.
            if !self.exists(&id)? {
                ids.push(id);
            }
            drop(lock);
        }
        Ok(ids)
    }

    /// Containers whose removal has begun and not ended, whether somebody is at it or not.
    pub fn left_aside(&self) -> Result<Vec<LeftAside>, StoreError> {
        let directory = self.containers();
        let failed = |source| StoreError::io("list", &directory, source);
        let mut left = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !name.starts_with(ASIDE) {
                continue;
            }
            let files = directory.join(&name);
            // Its description may be gone already; then so are its volumes, which are removed first.
            let spec = match name.starts_with(ASIDE_WITH_VOLUMES) {
                true => read_json(&files.join("container.json"), spec::SCHEMA)?,
                false => None,
            };
            left.push(LeftAside { files, volumes_of: spec });
        }
        Ok(left)
    }

    /// Removes what was being made when its maker was killed; what somebody is making stays, for it is locked.
    pub fn sweep_unfinished(&self) -> Result<(), StoreError> {
        let directory = self.containers();
        let failed = |source| StoreError::io("list", &directory, source);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if name.starts_with(".new-") && is_abandoned(&path) {
                super::remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn exists(&self, id: &Id) -> Result<bool, StoreError> {
        self.is_container(id, &self.spec(id))
    }

    /// Whether its name points to it. One that is damaged is a container until it is removed: its name is not known.
    fn is_container(&self, id: &Id, spec: &Result<SandboxSpec, StoreError>) -> Result<bool, StoreError> {
        match spec {
            Ok(spec) => Ok(self.pointed_to(&spec.name)?.as_ref() == Some(id)),
            Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }) => Ok(true),
            // Removed since it was listed, or not to be read at all: then the reader says so.
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(_) => self
                .files(id)
                .directory
                .try_exists()
                .map_err(|source| StoreError::io("look at", &self.files(id).directory, source)),
        }
    }

    fn directories(&self) -> Result<BTreeSet<Id>, StoreError> {
        let directory = self.containers();
        let failed = |source| StoreError::io("list", &directory, source);
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
                ids.insert(id);
            }
        }
        Ok(ids)
    }
}

/// A directory is made and locked within microseconds; one without a lock that is this old was left.
const UNLOCKED: Duration = Duration::from_secs(60);

fn is_abandoned(unfinished: &Path) -> bool {
    let lock = unfinished.join("lock");
    if lock.exists() {
        return matches!(files::try_lock(&lock), Ok(Some(_)));
    }
    let age = fs::metadata(unfinished).and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > UNLOCKED)
}
