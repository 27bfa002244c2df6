//! The index of names: one file for each name, holding the id of its container.
//!
//! A name is taken by link(2), which one caller wins. Where the link exists already, its owner is looked at under
//! `names.lock`: a name whose owner is gone or has another name (left by a crash) is taken over.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::{self, Durability};
use super::{LeftAside, Making, Store, StoreError, lock, write_json};
use crate::id::Id;
use crate::spec::SandboxSpec;

impl Store {
    fn name_file(&self, name: &str) -> PathBuf {
        self.names().join(name)
    }

    fn lock_names(&self) -> Result<super::Lock, StoreError> {
        lock(&self.root.join("names.lock"))
    }

    /// Points a free name to a container whose specification is written.
    pub(super) fn take_name(
        &self,
        making: &Making,
        spec: &SandboxSpec,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let path = self.name_file(&spec.name);
        let file = making.name();
        fs::write(&file, spec.id.as_str()).map_err(|source| StoreError::io("write", &file, source))?;
        self.link_name(&file, &path, &spec.name, &spec.id)?;
        if durability == Durability::Durable { files::sync_directory_of(&path) } else { Ok(()) }
    }

    fn link_name(&self, temporary: &Path, path: &Path, name: &str, id: &Id) -> Result<(), StoreError> {
        match fs::hard_link(temporary, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(StoreError::io("take the name", path, source)),
        }
        let _lock = self.lock_names()?;
        match self.holder(name)? {
            Some(holder) if holder != *id => Err(StoreError::NameInUse { name: name.to_owned(), holder }),
            _ => fs::rename(temporary, path).map_err(|source| StoreError::io("take the name", path, source)),
        }
    }

    /// The container that has a name; `None` when nobody has, whatever a crash may have left.
    pub(super) fn holder(&self, name: &str) -> Result<Option<Id>, StoreError> {
        let Some(id) = self.pointed_to(name)? else {
            return Ok(None);
        };
        match self.spec(&id) {
            Ok(spec) => Ok((spec.name == name).then_some(id)),
            Err(StoreError::NotFound(_)) => Ok(None),
            // Damaged, or of a newer version: it is there, so the name is not free.
            Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }) => Ok(Some(id)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn pointed_to(&self, name: &str) -> Result<Option<Id>, StoreError> {
        let path = self.name_file(name);
        match fs::read_to_string(&path) {
            Ok(content) => Ok(content.trim_end().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
            Err(source) => Err(StoreError::io("read", &path, source)),
        }
    }

    /// Gives a container another name. A leading slash is ignored, as in Docker.
    pub fn rename(&self, id: &Id, new_name: &str) -> Result<(), StoreError> {
        let new_name = new_name.strip_prefix('/').unwrap_or(new_name);
        crate::names::validate(new_name)?;
        let (files, _state) = self.locked(id)?;
        let _names = self.lock_names()?;
        let mut spec = self.spec(id)?;
        if spec.name == new_name {
            return Err(StoreError::SameName);
        }
        if let Some(holder) = self.holder(new_name)? {
            return Err(StoreError::NameInUse { name: new_name.to_owned(), holder });
        }
        // New name, specification, old name: after each step exactly one name is valid.
        let old_name = std::mem::replace(&mut spec.name, new_name.to_owned());
        self.point(new_name, id, &files.directory)?;
        write_json(&files.spec(), &spec, Durability::Durable)?;
        self.unlink(&old_name)
    }

    /// Points a name to a container, whatever it pointed to. The caller holds the lock. The file is made beside the
    /// container's own, so that it goes with them if the caller is killed.
    fn point(&self, name: &str, id: &Id, own: &Path) -> Result<(), StoreError> {
        let (path, file) = (self.name_file(name), own.join("name"));
        let written = fs::write(&file, id.as_str()).and_then(|()| fs::rename(&file, &path));
        written.map_err(|source| StoreError::io("write", &path, source))
    }

    fn unlink(&self, name: &str) -> Result<(), StoreError> {
        let path = self.name_file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::io("remove", &path, source)),
            _ => Ok(()),
        }
    }

    /// Names that a container may have. Its specification may be damaged or gone; then it may be any.
    pub(super) fn names_of(&self, id: &Id) -> Result<Vec<String>, StoreError> {
        match self.spec(id) {
            Ok(spec) => Ok(vec![spec.name]),
            Err(StoreError::NotFound(_) | StoreError::Corrupt { .. } | StoreError::Newer { .. }) => self.name_list(),
            Err(error) => Err(error),
        }
    }

    /// Frees those of the names that are the container's.
    pub(super) fn release(&self, id: &Id, names: Vec<String>) -> Result<(), StoreError> {
        let _lock = self.lock_names()?;
        for name in names {
            if self.pointed_to(&name)?.as_ref() == Some(id) {
                self.unlink(&name)?;
            }
        }
        Ok(())
    }

    /// Frees the names of a container whose files are moved away already.
    pub fn release_names(&self, left: &LeftAside) -> Result<(), StoreError> {
        self.release(&left.id, self.name_list()?)
    }

    fn name_list(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.names();
        let failed = |source| StoreError::io("list", &directory, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}
