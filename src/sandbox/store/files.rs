//! Files of the store: JSON, written whole to a temporary file and renamed over the old one.
//!
//! A reader sees the old content or the new one, never a part. What a crash of the *machine* may lose is the
//! writer's choice ([`Durability`]): nothing on the way to a start waits for a disk.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// Bytes; a file of the store that is larger than this was not written by us.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Whether a write survives a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Synced before the call returns: a user's intent that nothing else records (`create`).
    Durable,
    /// Not synced: what a crash of the machine ends anyway (`run`, states of running containers). A crash of a
    /// process alone loses nothing.
    Rebuildable,
}

static TEMPORARIES: AtomicU32 = AtomicU32::new(0);

/// Replaces a file by the JSON of a value.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), StoreError> {
    let mut content = serde_json::to_vec(value).map_err(|source| StoreError::corrupt(path, source))?;
    content.push(b'\n');
    let temporary = temporary_beside(path);
    let written = write_new(&temporary, &content, durability).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // Whatever is left of it is in our own directory and has a name that nobody reads.
        let _ = fs::remove_file(&temporary);
        return Err(StoreError::io("write", path, source));
    }
    if durability == Durability::Durable { sync_directory_of(path) } else { Ok(()) }
}

fn write_new(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if durability == Durability::Durable { file.sync_all() } else { Ok(()) }
}

/// A name in the same directory that no other thread or process uses.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()))
}

/// Makes the entries of the directory that holds `path` survive a crash of the machine.
pub(crate) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(path);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| StoreError::io("sync", directory, source))
}

/// Reads a file as JSON; `None` when it does not exist.
///
/// `newest` is the highest schema version that this program knows.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, newest: u32) -> Result<Option<T>, StoreError> {
    let Some(content) = read(path)? else {
        return Ok(None);
    };
    check_schema(path, &content, newest)?;
    serde_json::from_slice(&content).map(Some).map_err(|source| StoreError::corrupt(path, source))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::io("open", path, source)),
    };
    let mut content = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut content).map_err(|source| StoreError::io("read", path, source))?;
    if content.len() as u64 > LARGEST {
        return Err(StoreError::corrupt(path, format!("larger than {LARGEST} bytes")));
    }
    Ok(Some(content))
}

/// The version is read before the rest, so that a newer form is called by its name and not a syntax error.
fn check_schema(path: &Path, content: &[u8], newest: u32) -> Result<(), StoreError> {
    #[derive(serde::Deserialize)]
    struct Schema {
        schema: u32,
    }
    let found: Schema = serde_json::from_slice(content).map_err(|source| StoreError::corrupt(path, source))?;
    if found.schema > newest {
        return Err(StoreError::Newer { path: path.to_owned(), found: found.schema, known: newest });
    }
    if found.schema == 0 {
        return Err(StoreError::corrupt(path, "schema 0"));
    }
    Ok(())
}

/// Makes a directory and its parents for the owner alone.
pub(crate) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StoreError::io("make directory", path, source))
}

/// An exclusive lock (flock(2)) that ends with the value, or with the process.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Whether the file that is locked is the one that has the name now.
    pub(crate) fn is_at(&self, path: &Path) -> Result<bool, StoreError> {
        let held = self.file.metadata().map_err(|source| StoreError::io("look at", path, source))?;
        match fs::symlink_metadata(path) {
            Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::io("look at", path, source)),
        }
    }
}

/// Waits for the lock on a file, which is made when it is missing.
pub(crate) fn lock(path: &Path) -> Result<Lock, StoreError> {
    wait_for(lock_file(path)?, path)
}

/// Waits for the lock on a directory, which must be there.
pub(crate) fn lock_directory(path: &Path) -> Result<Lock, StoreError> {
    wait_for(directory(path)?, path)
}

/// Takes the lock of a file if nobody holds it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, StoreError> {
    take(lock_file(path)?, path)
}

/// Takes the lock of a directory if nobody holds it.
pub(crate) fn try_lock_directory(path: &Path) -> Result<Option<Lock>, StoreError> {
    take(directory(path)?, path)
}

fn wait_for(file: File, path: &Path) -> Result<Lock, StoreError> {
    file.lock().map_err(|source| StoreError::io("lock", path, source))?;
    Ok(Lock { file })
}

fn take(file: File, path: &Path) -> Result<Option<Lock>, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", path, source)),
    }
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(|source| StoreError::io("open", path, source))
}

fn directory(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|source| StoreError::io("open", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        schema: u32,
        text: String,
    }

    fn thing(text: &str) -> Thing {
        Thing { schema: 1, text: text.into() }
    }

    #[test]
    fn files_are_replaced_whole_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing.json");
        assert_eq!(read_json::<Thing>(&path, 1).unwrap(), None);
        for durability in [Durability::Durable, Durability::Rebuildable] {
            write_json(&path, &thing("a"), durability).unwrap();
            assert_eq!(read_json::<Thing>(&path, 1).unwrap(), Some(thing("a")));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing.json");
        for content in [
            "",
            "{",
            "[]",
            "{\"schema\":0,\"text\":\"\"}",
            "{\"text\":\"a\"}",
            "{\"schema\":1,\"text\":\"a\",\"more\":1}",
            "\0\0",
        ] {
            fs::write(&path, content).unwrap();
            let error = read_json::<Thing>(&path, 1).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{content}: {error}");
            assert!(error.to_string().contains("thing.json"), "{error}");
        }
        fs::write(&path, "{\"schema\":2,\"other\":true}").unwrap();
        let error = read_json::<Thing>(&path, 1).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("occupied");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "").unwrap();
        assert!(write_json(&path, &thing("a"), Durability::Rebuildable).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path).unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_directory_is_locked_as_a_file_is_and_never_made() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        assert!(lock_directory(&path).unwrap_err().is_not_found());
        fs::create_dir(&path).unwrap();
        let held = lock_directory(&path).unwrap();
        assert!(try_lock_directory(&path).unwrap().is_none());
        fs::rename(&path, parent.path().join("e")).unwrap();
        assert!(!held.is_at(&path).unwrap());
        drop(held);
        assert!(try_lock_directory(&parent.path().join("e")).unwrap().is_some());
    }
}
