//! Walks a directory tree that somebody else may have made, or may be changing.
//!
//! One descriptor at a time, whatever the depth: down by name without following links, up by `..`, checked against where we came from. A
//! container can nest directories deeper than any path or descriptor limit; neither matters here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use crate::error::RootfsError;
use crate::sys;

/// What is done on a walk. Each callback gets the directory that holds the name.
pub(crate) trait Visitor {
    /// What the walk is for, as in `remove`.
    const STEP: &'static str;

    /// A file that is no directory.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()>;

    /// A directory, before its content.
    fn enter(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()>;

    /// A directory, after its content.
    fn leave(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()>;
}

struct Level {
    name: CString,
    stat: FileStat,
    directories: Vec<(CString, FileStat)>,
}

/// Visits all below `top`, not `top` itself. `path` is for messages.
pub(crate) fn walk<V: Visitor>(top: BorrowedFd<'_>, path: &Path, visitor: &mut V) -> Result<(), RootfsError> {
    let failed = |error: io::Error| RootfsError::io(V::STEP, path, error);
    let stat = fstat(top).map_err(|e| failed(e.into()))?;
    let mut here = open_directory(top, c".").map_err(failed)?;
    let directories = visit_files(here.as_fd(), visitor).map_err(failed)?;
    let mut levels = vec![Level { name: CString::default(), stat, directories }];
    while let Some(level) = levels.last_mut() {
        if let Some((name, stat)) = level.directories.pop() {
            visitor.enter(here.as_fd(), &name, &stat).map_err(failed)?;
            here = match open_directory(here.as_fd(), &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    visitor.leave(here.as_fd(), &name, &stat).map_err(failed)?;
                    continue;
                }
                result => result.map_err(failed)?,
            };
            if !same(&fstat(&here).map_err(|e| failed(e.into()))?, &stat) {
                return Err(RootfsError::TreeChanged { step: V::STEP, path: path.to_owned() });
            }
            let directories = visit_files(here.as_fd(), visitor).map_err(failed)?;
            levels.push(Level { name, stat, directories });
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last() else { break };
        here = open_directory(here.as_fd(), c"..").map_err(failed)?;
        if !same(&fstat(&here).map_err(|e| failed(e.into()))?, &above.stat) {
            return Err(RootfsError::TreeChanged { step: V::STEP, path: path.to_owned() });
        }
        visitor.leave(here.as_fd(), &done.name, &done.stat).map_err(failed)?;
    }
    Ok(())
}

fn same(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// A directory below `dir` or above it, never through a link.
pub(crate) fn open_directory(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    sys::openat2(dir, name, flags, sys::RESOLVE_NO_SYMLINKS | sys::RESOLVE_NO_MAGICLINKS)
}

/// The directory at a path of our own making, unless it is a link.
pub(crate) fn open_directory_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Visits what is no directory, and returns what is. Names that vanish meanwhile are left out.
fn visit_files(dir: BorrowedFd<'_>, visitor: &mut impl Visitor) -> io::Result<Vec<(CString, FileStat)>> {
    let mut directories = Vec::new();
    for name in names(dir)? {
        let stat = match fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            stat => stat?,
        };
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            directories.push((name, stat));
        } else {
            visitor.file(dir, &name, &stat)?;
        }
    }
    Ok(directories)
}

/// All names in the directory but `.` and `..`; read to the end before anything is done with them, since removing disturbs reading.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut dir = Dir::openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
