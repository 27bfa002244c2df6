//! Files that are either old or new, never in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins the name of every file that has not got its own name yet.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Opens a file for reading and writing, making it if need be, for its owner only.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A name in `dir` that no other process or thread makes.
pub(crate) fn temporary_name(dir: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    dir.join(format!("{TEMPORARY}{}-{count}", std::process::id()))
}

/// Replaces the file at `path`, durably: after a return it survives a power cut, before it the old content does.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    write_new(path, dir, bytes, File::sync_all)?;
    File::open(dir)?.sync_all()
}

/// Replaces the file at `path`, atomically against other processes but not against a power cut.
pub(crate) fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    write_new(path, dir, bytes, |_| Ok(()))
}

fn write_new(path: &Path, dir: &Path, bytes: &[u8], sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_name(dir);
    // A name left by a dead process of the same id is ours to replace: nobody else makes it while we live.
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            sync(&file)?;
            std::fs::rename(&temporary, path)
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
