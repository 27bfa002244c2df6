//! The store: what sbx knows of its containers, as plain files that many processes share.
//!
//! ```text
//! ROOT/names/NAME              the id of the container that has the name
//! ROOT/names.lock              held while a name is moved or taken from a dead owner
//! ROOT/containers/.new-ID/            a container in the making
//! ROOT/containers/.removed-ID/        one that has been removed, until its files are deleted
//! ROOT/containers/ID/                 locked while the state is read and written back
//!                    container.json   the specification
//!                    state.json       the state
//!                    hostname hosts resolv.conf ID-json.log
//! ```
//!
//! A container exists exactly when `names/NAME` holds its id and its specification has that name. So the link to the
//! name is the one instant at which a container comes into being, and moving its files away the one at which it ceases
//! to. Before the first there is an intent ([`making`]), after the second there are files under another name
//! ([`Store::left_aside`]): whatever a crash leaves is found by these two.

mod files;
mod lookup;
mod making;
mod names;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::id::Id;
use crate::spec::{self, SandboxSpec};
use crate::state::{self, State};

pub use files::{Durability, Lock};
pub(crate) use files::{lock, make_directory, read_json, try_lock, write_json};
pub use lookup::{LeftAside, Listed};
use making::Making;

/// Name before the id of a container that is being removed.
pub(crate) const ASIDE: &str = ".removed-";
/// The same for one whose anonymous volumes go with it.
const ASIDE_WITH_VOLUMES: &str = ".removed-v-";

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// `write`, `lock`, …
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what we write.
    #[error("{} is damaged: {reason}; remove its container with `rm -f`, or put the file back", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was written by a later version.
    #[error("{} was written by a newer sbx (schema {found}, this one knows {known}): use that version", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Our highest.
        known: u32,
    },
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// Without a slash.
        name: String,
        /// Who has it.
        holder: Id,
    },
    /// Nothing matches.
    #[error("No such container: {0}")]
    NotFound(String),
    /// Several match.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The new name is the old one.
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    /// The name is none.
    #[error(transparent)]
    Name(#[from] crate::names::InvalidName),
    /// A move that a state does not allow.
    #[error("container {id}: {source}")]
    Transition {
        /// Of which container.
        id: Id,
        /// Which move.
        source: state::IllegalTransition,
    },
}

impl StoreError {
    pub(crate) fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { step, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }

    /// A file or directory is not there, which may have been there a moment ago.
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// The containers below a root directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// The files of one container.
#[derive(Clone, Debug)]
pub struct Files {
    /// `ROOT/containers/ID`.
    pub directory: PathBuf,
    id: Id,
}

impl Files {
    fn spec(&self) -> PathBuf {
        self.directory.join("container.json")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// Shown to the container as `/etc/hostname`.
    pub fn hostname(&self) -> PathBuf {
        self.directory.join("hostname")
    }

    /// Shown to the container as `/etc/hosts`.
    pub fn hosts(&self) -> PathBuf {
        self.directory.join("hosts")
    }

    /// Shown to the container as `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.join("resolv.conf")
    }

    /// The output in Docker's json-file form.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}-json.log", self.id))
    }
}

impl Store {
    /// Opens the store below a directory, which is made when it is missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for directory in [store.containers(), store.names()] {
            if !directory.is_dir() {
                make_directory(&directory)?;
            }
        }
        Ok(store)
    }

    /// The directory that it was opened with.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Where the files of a container are, whether it exists or not.
    pub fn files(&self, id: &Id) -> Files {
        Files { directory: self.containers().join(id.as_str()), id: id.clone() }
    }

    /// Writes a new container down and takes its name; the state is `created`.
    ///
    /// Durable writes are for `create`, rebuildable ones for `run`. On an error nothing is left.
    pub fn create(&self, spec: &SandboxSpec, durability: Durability) -> Result<Files, StoreError> {
        crate::names::validate(&spec.name)?;
        let files = self.files(&spec.id);
        let making = self.begin_making(&spec.id)?;
        let made = self.make(&making, &files, spec, durability);
        if made.is_err() {
            // Its name was never taken; what stays here is found by its intent.
            let _ = fs::rename(&files.directory, making.files().directory);
        }
        making.end()?;
        made.map(|()| files)
    }

    /// The same for a container that may be called otherwise too: where somebody has its name, it gets the first of
    /// `others` that nobody has. Only taking a name tells whether it is free, for many may be at it.
    pub fn create_as(
        &self,
        mut spec: SandboxSpec,
        others: impl IntoIterator<Item = String>,
        durability: Durability,
    ) -> Result<Files, StoreError> {
        let mut created = self.create(&spec, durability);
        for name in others {
            let Err(StoreError::NameInUse { .. }) = created else { break };
            spec.name = name;
            created = self.create(&spec, durability);
        }
        created
    }

    fn make(
        &self,
        making: &Making,
        files: &Files,
        spec: &SandboxSpec,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let unfinished = making.files();
        make_directory(&unfinished.directory)?;
        write_json(&unfinished.state(), &State::default(), durability)?;
        write_json(&unfinished.spec(), spec, durability)?;
        let renamed = fs::rename(&unfinished.directory, &files.directory);
        renamed.map_err(|source| StoreError::io("make directory", &files.directory, source))?;
        if durability == Durability::Durable {
            files::sync_directory_of(&files.directory)?;
        }
        self.take_name(making, spec, durability)
    }

    /// The specification of a container.
    pub fn spec(&self, id: &Id) -> Result<SandboxSpec, StoreError> {
        let spec: Option<SandboxSpec> = read_json(&self.files(id).spec(), spec::SCHEMA)?;
        let spec = spec.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        if spec.id != *id {
            return Err(StoreError::corrupt(&self.files(id).spec(), format!("it is the container {}", spec.id)));
        }
        Ok(spec)
    }

    /// The state of a container.
    pub fn state(&self, id: &Id) -> Result<State, StoreError> {
        let state = read_json(&self.files(id).state(), state::SCHEMA)?;
        state.ok_or_else(|| StoreError::NotFound(id.to_string()))
    }

    /// Writes the state of a container that the caller alone changes (its supervisor, while it lives), for a crash to
    /// lose.
    pub fn write_state(&self, id: &Id, state: &State) -> Result<(), StoreError> {
        let files = self.existing(id)?;
        write_json(&files.state(), state, Durability::Rebuildable)
    }

    /// Reads the state, changes it and writes it back, alone. On an error of `change` nothing is written.
    pub fn update_state<T, E: From<StoreError>>(
        &self,
        id: &Id,
        durability: Durability,
        change: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let (files, _lock) = self.locked(id)?;
        let mut state = self.state(id)?;
        let before = state.clone();
        let result = change(&mut state)?;
        if state != before {
            write_json(&files.state(), &state, durability)?;
        }
        Ok(result)
    }

    /// Makes one move of the state and says where it led.
    pub fn apply(&self, id: &Id, durability: Durability, event: state::Event) -> Result<State, StoreError> {
        self.update_state(id, durability, |state| {
            let moved = state.apply(event);
            moved.map_err(|source| StoreError::Transition { id: id.clone(), source })?;
            Ok(state.clone())
        })
    }

    /// Changes the specification (`update`), alone. The id and the name stay.
    pub fn update_spec<T, E: From<StoreError>>(
        &self,
        id: &Id,
        change: impl FnOnce(&mut SandboxSpec) -> Result<T, E>,
    ) -> Result<T, E> {
        let (files, _lock) = self.locked(id)?;
        let mut spec = self.spec(id)?;
        let (own_id, own_name) = (spec.id.clone(), spec.name.clone());
        let result = change(&mut spec)?;
        (spec.id, spec.name) = (own_id, own_name);
        write_json(&files.spec(), &spec, Durability::Durable)?;
        Ok(result)
    }

    /// The lock of a container, for a caller that must be alone with it for longer than one update.
    ///
    /// It is another one than that of the updates, so that these can be made while it is held.
    pub fn lock_container(&self, id: &Id) -> Result<Lock, StoreError> {
        let files = self.existing(id)?;
        lock(&files.directory.join("operation.lock"))
    }

    /// The same, unless somebody holds it.
    pub fn try_lock_container(&self, id: &Id) -> Result<Option<Lock>, StoreError> {
        let files = self.existing(id)?;
        files::try_lock(&files.directory.join("operation.lock"))
    }

    /// The files of a container with its lock held. Nobody can have removed it once the lock is had and the files are
    /// still where they were.
    fn locked(&self, id: &Id) -> Result<(Files, Lock), StoreError> {
        let files = self.existing(id)?;
        match files::lock_directory(&files.directory) {
            Ok(lock) => Ok((self.existing(id)?, lock)),
            Err(error) if error.is_not_found() => Err(StoreError::NotFound(id.to_string())),
            Err(error) => Err(error),
        }
    }

    fn existing(&self, id: &Id) -> Result<Files, StoreError> {
        let files = self.files(id);
        if files.directory.is_dir() { Ok(files) } else { Err(StoreError::NotFound(id.to_string())) }
    }

    /// Forgets a container: its name, then its files. Nothing is wrong with one that is already gone.
    pub fn remove(&self, id: &Id) -> Result<(), StoreError> {
        remove_tree(&self.set_aside(id)?)
    }

    /// Forgets a container and says where its files are now, for the caller to remove. What a crash leaves there is
    /// found by [`Store::left_aside`].
    pub fn set_aside(&self, id: &Id) -> Result<PathBuf, StoreError> {
        self.move_aside(id, self.containers().join(format!("{ASIDE}{id}")))
    }

    /// The same, for a container whose anonymous volumes go as well: whoever finds it after a crash knows that.
    pub fn set_aside_with_volumes(&self, id: &Id) -> Result<PathBuf, StoreError> {
        self.move_aside(id, self.containers().join(format!("{ASIDE_WITH_VOLUMES}{id}")))
    }

    fn move_aside(&self, id: &Id, doomed: PathBuf) -> Result<PathBuf, StoreError> {
        let names = self.names_of(id)?;
        let files = self.files(id);
        let directory = &files.directory;
        // Whoever changes it right now finishes first.
        let _lock = match files::lock_directory(directory) {
            Ok(lock) => Some(lock),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        // First aside, so that nobody meets half of it.
        match fs::rename(directory, &doomed) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A removal before this one did not finish: what it left is removed first.
            Err(_) => {
                remove_tree(&doomed)?;
                fs::rename(directory, &doomed).map_err(|source| StoreError::io("remove", directory, source))?;
            }
            Ok(()) => {}
        }
        self.release(id, names)?;
        Ok(doomed)
    }
}

/// Whoever looks for the lock of a directory that is going may make one in it at that moment, so it is tried again.
fn remove_tree(path: &Path) -> Result<(), StoreError> {
    const TRIES: usize = 100;
    let mut tries = 1;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && tries < TRIES => tries += 1,
            Err(source) if source.kind() != ErrorKind::NotFound => return Err(StoreError::io("remove", path, source)),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
