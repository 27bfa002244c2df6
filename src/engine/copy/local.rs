//! This machine's end of a copy.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::Links;
use sbx_sandbox::path::clean;

use super::paths::{Target, base, directory, followed, means_contents, with_end_of};
use crate::{Error, ErrorKind, Result};

/// Longest chain of symbolic links that is followed (path_resolution(7)).
const LINKS: usize = 40;

/// What is copied from here.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    /// What the copy is called where it does not take another name.
    pub(super) name: String,
    pub(super) is_directory: bool,
}

/// The path from the root, its end kept.
pub(super) fn absolute(path: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(with_end_of(clean(path), path));
    }
    let here = std::env::current_dir().map_err(|error| failed("look at the working directory", ".", error))?;
    Ok(with_end_of(clean(&format!("{}/{path}", here.display())), path))
}

/// Looks at what is to be copied.
pub(super) fn source(path: &str, links: Links) -> Result<Source> {
    let (path, renamed) = match links {
        Links::Keep => (path.to_owned(), None),
        Links::Follow => {
            let end = fs::canonicalize(path).map_err(|error| failed("lstat", path, error))?;
            followed(path, &end.to_string_lossy())
        }
    };
    // A slash does not follow a link here: only the contents are those of what it leads to.
    let looked_at = if means_contents(&path) { fs::metadata(&path) } else { fs::symlink_metadata(clean(&path)) };
    let found = looked_at.map_err(|error| failed("lstat", &path, error))?;
    let name = renamed.unwrap_or_else(|| base(&path));
    Ok(Source { name, is_directory: found.is_dir(), path })
}

/// Looks at where a copy goes; links are followed. The directory above has to be there.
pub(super) fn target(mut path: String) -> Result<Target> {
    let given = path.clone();
    for _ in 0..LINKS {
        match fs::symlink_metadata(clean(&path)) {
            Ok(found) if found.is_symlink() => {
                let end = fs::read_link(clean(&path)).map_err(|error| failed("read the link", &path, error))?;
                (path, _) = followed(&clean(&path), &end.to_string_lossy());
            }
            Ok(found) => return Ok(Target { path, exists: true, is_directory: found.is_dir() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = with_end_of(path, &given);
                return Ok(Target { path, exists: false, is_directory: false });
            }
            Err(error) => return Err(failed("lstat", &path, error)),
        }
    }
    Err(failed("lstat", &given, io::Error::from_raw_os_error(libc::ELOOP)))
}

/// Refuses what cannot be written to before anything is copied.
pub(super) fn check_output(path: &str) -> Result<()> {
    let above = directory(&clean(path));
    if !Path::new(&above).exists() {
        let message = format!("invalid output path: directory {above:?} does not exist");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    if found.is_dir() || found.is_file() {
        return Ok(());
    }
    let kind = found.file_type();
    let what = if kind.is_char_device() || kind.is_block_device() { "a device" } else { "an irregular file" };
    let message = format!("invalid output path: {path:?} must be a directory or a regular file: got {what}");
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Opens a directory that something is packed from or unpacked into.
pub(super) fn open_directory(path: &Path) -> Result<File> {
    let opened = File::open(path).map_err(|error| failed("open", &path.to_string_lossy(), error))?;
    match opened.metadata().map_err(|error| failed("stat", &path.to_string_lossy(), error))?.is_dir() {
        true => Ok(opened),
        false => Err(failed("open", &path.to_string_lossy(), io::Error::from_raw_os_error(libc::ENOTDIR))),
    }
}

fn failed(step: &str, path: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Other, format!("{step} {path}: {}", sbx_archive::describe(&error)))
}
