//! Directories as text, so that two can be compared.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sbx_archive::{Error, Options, Origin, Owners, Unpacked, pack, unpack};

/// Packs `base` below `directory` as `name`.
pub(crate) fn packed(directory: &Path, base: &str, name: &str) -> Vec<u8> {
    let opened = File::open(directory).unwrap();
    let mut archive = Vec::new();
    pack(opened.as_fd(), OsStr::new(base), Path::new(name), &mut archive).unwrap();
    archive
}

pub(crate) fn unpacked(archive: &[u8], directory: &Path, owners: Owners, origin: Origin) -> Result<Unpacked, Error> {
    let opened = File::open(directory).unwrap();
    unpack(&mut &*archive, opened.as_fd(), &Options { place: directory.to_owned(), owners, origin })
}

/// One line for each name below `directory`, everything on it that an archive keeps.
pub(crate) fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    list(directory, Path::new(""), &mut lines);
    lines.sort();
    lines
}

fn list(directory: &Path, below: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let full = directory.join(&path);
        let found = fs::symlink_metadata(&full).unwrap();
        let kind = found.file_type();
        let what = match kind {
            _ if kind.is_symlink() => format!("-> {}", fs::read_link(&full).unwrap().display()),
            _ if kind.is_file() => format!("{:?} links {}", fs::read(&full).unwrap(), found.nlink()),
            _ if kind.is_dir() => "directory".to_owned(),
            _ if kind.is_fifo() => "pipe".to_owned(),
            _ => format!("device {}", found.rdev()),
        };
        let (mode, uid, gid, mtime) = (found.mode(), found.uid(), found.gid(), found.mtime());
        lines.push(format!("{} {mode:o} {uid}:{gid} {mtime} {what}", path.display()));
        if kind.is_dir() {
            list(directory, &path, lines);
        }
    }
}
