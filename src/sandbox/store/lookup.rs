//! Finding containers: by id, by name, by a part of the id, and all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{ASIDE, ASIDE_WITH_VOLUMES, Store, StoreError, read_json};
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
    /// Its id; a name may still hold it.
    pub id: Id,
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

    /// Directories that are no container and that nobody makes.
    pub fn orphans(&self) -> Result<Vec<Id>, StoreError> {
        let mut ids = Vec::new();
        for id in self.directories()? {
            // The intent goes when the name is there, so the name is looked for after it.
            if !self.is_in_the_making(&id) && !self.exists(&id)? {
                ids.push(id);
            }
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
            let with_volumes = name.strip_prefix(ASIDE_WITH_VOLUMES);
            let Some(id) = with_volumes.or_else(|| name.strip_prefix(ASIDE)).and_then(|id| id.parse().ok()) else {
                continue;
            };
            let files = directory.join(&name);
            // Its description may be gone already; then so are its volumes, which are removed first.
            let spec = match with_volumes {
                Some(_) => read_json(&files.join("container.json"), spec::SCHEMA)?,
                None => None,
            };
            left.push(LeftAside { id, files, volumes_of: spec });
        }
        Ok(left)
    }

    pub(super) fn exists(&self, id: &Id) -> Result<bool, StoreError> {
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
