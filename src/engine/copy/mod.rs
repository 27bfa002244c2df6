//! Copying between a container's file system and directories of this machine (`cp`).
//!
//! Archives go both ways. The container's end of one is a process of ours in the container ([`sbx_container::files`]), in
//! either mode; this machine's end is [`sbx_archive`]. A container that does not run is made up without its program
//! for as long as somebody copies. What goes where follows `docker cp`'s rules (`paths`).

mod local;
mod paths;
mod reach;

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use sbx_archive::{Options, Origin, Owners};
use sbx_container::files::Task;
use sbx_container::plan::User;

use self::paths::{Target, arrange, base, directory};
pub use self::reach::ContainerFiles;
use crate::{Error, ErrorKind, Result};

/// What has been copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of the archive.
    pub bytes: u64,
    /// What the file system at the other end could not take, one line each.
    pub warnings: Vec<String>,
}

/// Whether a symbolic link that is to be copied is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is copied as a link.
    Keep,
    /// What it leads to is copied (`--follow-link`).
    Follow,
}

/// Copies a file or directory of the container to a path of this machine. Files become those of whoever copies.
pub fn copy_out(files: &mut ContainerFiles, source: &str, target: &str, links: Links) -> Result<Copied> {
    let target = local::absolute(target)?;
    local::check_output(&target)?;
    let (source, name) = files.resolve(source, links)?;
    let found = files.stat(&source)?.ok_or_else(|| files.not_found(&source))?;
    let name = name.unwrap_or_else(|| base(&source));
    let (place, name) = arrange(found.is_directory(), &name, &local::target(target)?)?;
    let opened = local::open_directory(Path::new(&place))?;
    let top = Path::new(&name).to_owned();
    let options = Options { place: place.into(), owners: Owners::Mine, origin: Origin::Stranger { top } };
    files.read(Task::Read { path: source, name }, |archive| {
        let unpacked = sbx_archive::unpack(archive, opened.as_fd(), &options).map_err(failed)?;
        Ok(Copied { bytes: unpacked.bytes, warnings: unpacked.warnings })
    })
}

/// Writes an archive of a file or directory of the container to `output`.
pub fn copy_to_archive(
    files: &mut ContainerFiles,
    source: &str,
    output: &mut dyn Write,
    links: Links,
) -> Result<Copied> {
    let (source, name) = files.resolve(source, links)?;
    let name = name.unwrap_or_else(|| base(&source));
    files.read(Task::Read { path: source, name }, |archive| pass_on(archive, output))
}

/// Writes an archive of the container's root file system to `output`, without its mounts.
pub fn export(files: &mut ContainerFiles, output: &mut dyn Write) -> Result<Copied> {
    files.read(Task::Export, |archive| pass_on(archive, output))
}

fn pass_on(archive: &mut dyn Read, output: &mut dyn Write) -> Result<Copied> {
    let bytes = io::copy(archive, output)?;
    output.flush()?;
    Ok(Copied { bytes, warnings: Vec::new() })
}

/// Copies a file or directory of this machine to a path of the container. Files become those of `owner`; where that is
/// `None` they stay those of their owners, as numbers.
pub fn copy_in(
    files: &mut ContainerFiles,
    source: &str,
    target: &str,
    links: Links,
    owner: Option<User>,
) -> Result<Copied> {
    let source = local::source(&local::absolute(source)?, links)?;
    let target = files.target(target)?;
    let (place, name) = arrange(source.is_directory, &source.name, &target)?;
    let opened = local::open_directory(Path::new(&directory(&source.path)))?;
    let base = base(&source.path);
    files.write(&place, owner, |archive| {
        sbx_archive::pack(opened.as_fd(), OsStr::new(&base), Path::new(&name), archive).map_err(failed)
    })
}

/// Unpacks an archive into a directory of the container.
pub fn copy_from_archive(
    files: &mut ContainerFiles,
    input: &mut dyn Read,
    target: &str,
    owner: Option<User>,
) -> Result<Copied> {
    let Target { path, is_directory, .. } = files.target(target)?;
    if !is_directory {
        let message = format!("destination \"{}:{target}\" must be a directory", files.reference());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    files.write(&path, owner, |archive| Ok(io::copy(input, archive).map(drop)?))
}

/// What stands in the way is the user's to move; everything else is a failure.
fn failed(error: sbx_archive::Error) -> Error {
    let kind = match &error {
        sbx_archive::Error::InTheWay(_) => ErrorKind::Conflict,
        _ => ErrorKind::Other,
    };
    Error::of(kind, error)
}
