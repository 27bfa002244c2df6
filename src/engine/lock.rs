//! The lock of a sandbox: held by its supervisor for as long as it lives, and asked about by everybody else.
//!
//! An open file description lock (fcntl(2), F_OFD_SETLK): it passes with the descriptor from whoever starts the
//! supervisor to the supervisor, it ends with the last descriptor, however that comes about, and, unlike flock(2), it
//! can be asked about without being taken for a moment, which would make a start fail that tries at that moment.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};

/// Opens a lock's file, which is made when it is missing.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Takes the lock; `false` when somebody has it.
pub(crate) fn try_hold(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody has the lock.
pub(crate) fn is_held(file: &File) -> io::Result<bool> {
    let mut asked = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

/// Whether the open file is still the one at `path`.
pub(crate) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for a plain flock(2) on a file that is made when it is missing.
pub(crate) fn wait_for(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(open(path)?, how).map_err(|(_, error)| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_until_its_last_descriptor_is_gone() {
        let path = std::env::temp_dir().join(format!("sbx-lock-{}", std::process::id()));
        let (holder, other) = (open(&path).unwrap(), open(&path).unwrap());
        assert!(!is_held(&other).unwrap());
        assert!(try_hold(&holder).unwrap());
        assert!(is_held(&other).unwrap() && !try_hold(&other).unwrap());
        let passed_on = holder.try_clone().unwrap();
        drop(holder);
        assert!(is_held(&other).unwrap());
        drop(passed_on);
        assert!(!is_held(&other).unwrap() && try_hold(&other).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
