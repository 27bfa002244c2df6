//! Entries of an archive become files below an open directory.
//!
//! Whatever an archive says, it has no way out: an archive of a stranger is unpacked without following any link, and may
//! hold nothing but what was asked for ([`Origin`]). The rules for what is there already are those of `docker cp`: a
//! directory stays and takes over the attributes, anything else is replaced, and neither takes the place of the other.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, mkfifoat, symlinkat, unlinkat};

use crate::error::Error;
use crate::reader::{Entry, Kind, Limits, Reader, Segment, printable};
use crate::sys;

/// What is written to a file at a time, in bytes.
const CHUNK: usize = 128 << 10;
/// Linux's `PATH_MAX`.
const PATH_MAX: usize = 4096;

/// How an archive is unpacked.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the directory, for messages.
    pub place: PathBuf,
    /// Whose the files become.
    pub owners: Owners,
    /// Who has made the archive.
    pub origin: Origin,
}

/// Whose the unpacked files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Those that the archive names.
    Archived,
    /// This user and group.
    One(u32, u32),
    /// Those of this process.
    Mine,
}

/// Who has made an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody who may write wherever the unpacking process may: links of the file system are followed.
    Trusted,
    /// Somebody who may not. Links are not followed, devices are not made, and every entry is `top` or below it; `.` is the
    /// directory itself.
    Stranger {
        /// The only name in the directory that the archive may touch.
        top: PathBuf,
    },
}

/// What has come out of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of the stream.
    pub bytes: u64,
    /// What the file system could not take, one line each.
    pub warnings: Vec<String>,
}

/// Unpacks `source` into `directory`, and reads it to its end. The process's umask(2) holds for pipes and devices.
///
/// Errors: those of the stream and of its form; [`Error::File`] where a file cannot be made; [`Error::InTheWay`].
pub fn unpack(source: &mut dyn Read, directory: BorrowedFd<'_>, options: &Options) -> Result<Unpacked, Error> {
    let mut reader = Reader::new(source, Limits::default());
    let mut work = Unpacking { directory, options, parent: None, directories: Vec::new(), warnings: Vec::new() };
    while let Some(entry) = reader.next_entry()? {
        work.entry(&entry, &mut reader)?;
    }
    reader.drain()?;
    work.date_directories()?;
    Ok(Unpacked { bytes: reader.offset(), warnings: work.warnings })
}

struct Unpacking<'a> {
    directory: BorrowedFd<'a>,
    options: &'a Options,
    /// The directory of the last entry: the next one is mostly in the same.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories whose times are set when nothing more comes into them.
    directories: Vec<(PathBuf, TimeSpec)>,
    warnings: Vec<String>,
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), Error> {
        let path = self.allowed(&entry.path, &entry.path)?;
        let Some(base) = path.file_name() else {
            // The directory itself, which is there and stays as it is.
            return if entry.kind == Kind::Directory { Ok(()) } else { Err(refused(entry, "it has no name")) };
        };
        let parent = self.parent_of(&path)?;
        let parent = parent.as_fd();
        let there = self.clear(parent, base, entry)?;
        match entry.kind {
            Kind::Directory => self.directory(parent, base, entry, &path, there),
            Kind::File => self.file(parent, base, entry, reader),
            Kind::HardLink => self.hard_link(parent, base, entry),
            Kind::Symlink => {
                symlinkat(OsStr::from_bytes(&entry.link), parent, base).map_err(failed("make the link", entry))?;
                self.own_name(parent, base, entry)
            }
            Kind::Fifo => {
                mkfifoat(parent, base, mode(entry)).map_err(failed("make the pipe", entry))?;
                self.own_name(parent, base, entry)
            }
            Kind::CharDevice | Kind::BlockDevice => self.device(parent, base, entry),
        }
    }

    /// The path of an entry, checked: below the directory as it is written, and below what a stranger may touch.
    fn allowed(&self, name: &[u8], written: &[u8]) -> Result<PathBuf, Error> {
        let bad = |what: &str| Error::Entry { name: printable(name), what: what.to_owned() };
        if written.len() >= PATH_MAX {
            return Err(bad("a path of more than 4095 bytes"));
        }
        let mut path = PathBuf::new();
        for part in written.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            if part == b".." {
                return Err(bad("a path with .. in it"));
            }
            path.push(OsStr::from_bytes(part));
        }
        match &self.options.origin {
            Origin::Stranger { top } if top.as_os_str() != "." && !path.starts_with(top) => {
                Err(bad(&format!("only {} was asked for", top.display())))
            }
            _ => Ok(path),
        }
    }

    /// The directory that an entry is in, made with its parents (mode 0755) where no entry has described it.
    fn parent_of(&mut self, path: &Path) -> Result<OwnedFd, Error> {
        let wanted = path.parent().unwrap_or(Path::new(""));
        let failed = |source: io::Error| Error::File { step: "open the directory", path: self.named(wanted), source };
        if let Some((known, directory)) = &self.parent
            && known == wanted
        {
            return directory.try_clone().map_err(failed);
        }
        let opened = self.open_directory(wanted).map_err(failed)?;
        let kept = opened.try_clone().map_err(failed)?;
        self.parent = Some((wanted.to_owned(), kept));
        Ok(opened)
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match self.open(ancestor) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !ancestor.as_os_str().is_empty() => {
                    missing.push(ancestor);
                }
                Err(error) => return Err(error),
                Ok(found) => {
                    let mut directory = found;
                    for path in missing.into_iter().rev() {
                        let base = path.file_name().unwrap_or_default();
                        mkdirat(&directory, base, Mode::from_bits_truncate(0o755))?;
                        directory = open_beside(directory.as_fd(), base, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
                    }
                    return Ok(directory);
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = match self.options.origin {
            Origin::Trusted => ResolveFlag::RESOLVE_NO_MAGICLINKS,
            Origin::Stranger { .. } => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        loop {
            match openat2(self.directory, path, OpenHow::new().flags(flags).resolve(resolve)) {
                // A rename elsewhere raced with the scoped lookup; the man page says to try again.
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                opened => return Ok(opened?),
            }
        }
    }

    /// Takes away what an entry replaces; says whether its directory is there already.
    fn clear(&self, parent: BorrowedFd<'_>, base: &OsStr, entry: &Entry) -> Result<bool, Error> {
        let found = match fstatat(parent, base, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(nix::Error::ENOENT) => return Ok(false),
            found => found.map_err(failed("stat", entry))?,
        };
        let is_directory = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let name = self.named(Path::new(OsStr::from_bytes(&entry.path)));
        match (is_directory, entry.kind == Kind::Directory) {
            (true, true) => Ok(true),
            (true, false) => Err(Error::InTheWay(format!("cannot overwrite directory {name:?} with non-directory"))),
            (false, true) => Err(Error::InTheWay(format!("cannot overwrite non-directory {name:?} with directory"))),
            (false, false) => {
                unlinkat(parent, base, UnlinkatFlags::NoRemoveDir).map_err(failed("replace", entry))?;
                Ok(false)
            }
        }
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        base: &OsStr,
        entry: &Entry,
        path: &Path,
        there: bool,
    ) -> Result<(), Error> {
        if !there {
            mkdirat(parent, base, Mode::from_bits_truncate(0o700)).map_err(failed("make the directory", entry))?;
        }
        let directory =
            open_beside(parent, base, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed("open", entry))?;
        self.give(directory.as_fd(), entry)?;
        self.directories.push((path.to_owned(), time(entry)));
        Ok(())
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        base: &OsStr,
        entry: &Entry,
        reader: &mut Reader<'_>,
    ) -> Result<(), Error> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(parent, base, flags, Mode::from_bits_truncate(0o600)).map_err(failed("make", entry))?;
        let made = File::from(made);
        let written = content(&made, entry, reader).and_then(|()| {
            self.give(made.as_fd(), entry)?;
            futimens(&made, &TimeSpec::UTIME_OMIT, &time(entry)).map_err(failed("date", entry))
        });
        if written.is_err() {
            // Half a file is worse than none. Why it is half is known.
            let _ = unlinkat(parent, base, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, base: &OsStr, entry: &Entry) -> Result<(), Error> {
        let target = self.allowed(&entry.path, &entry.link)?;
        let target_base = target.file_name().ok_or_else(|| refused(entry, "a hard link to a directory"))?;
        let directory = self.open(target.parent().unwrap_or(Path::new(""))).map_err(|source| Error::File {
            step: "link to",
            path: self.named(&target),
            source,
        })?;
        linkat(&directory, target_base, parent, base, AtFlags::empty()).map_err(failed("link", entry))
    }

    fn device(&mut self, parent: BorrowedFd<'_>, base: &OsStr, entry: &Entry) -> Result<(), Error> {
        if self.options.origin != Origin::Trusted {
            return Err(refused(entry, "a device of a container is not made outside; copy it as an archive, to -"));
        }
        let kind = if entry.kind == Kind::CharDevice { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
        let number = makedev(u64::from(entry.device.0), u64::from(entry.device.1));
        mknodat(parent, base, kind, mode(entry), number).map_err(failed("make the device", entry))?;
        self.own_name(parent, base, entry)
    }

    /// Owner and time of what cannot be opened: a link, a pipe, a device. By its name it cannot be given a mode: somebody may
    /// have put a link there, and chmod(2) would follow it.
    fn own_name(&self, parent: BorrowedFd<'_>, base: &OsStr, entry: &Entry) -> Result<(), Error> {
        if let Some((uid, gid)) = self.owner(entry) {
            fchownat(parent, base, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("own", entry))?;
        }
        utimensat(parent, base, &TimeSpec::UTIME_OMIT, &time(entry), UtimensatFlags::NoFollowSymlink)
            .map_err(failed("date", entry))
    }

    /// Owner, mode and extended attributes of what is open.
    fn give(&mut self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Error> {
        // Owner first: changing it clears set-user-id and file capabilities.
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(file, Some(uid), Some(gid)).map_err(failed("own", entry))?;
        }
        fchmod(file, mode(entry)).map_err(failed("chmod", entry))?;
        for (name, value) in &entry.xattrs {
            let Ok(name) = CString::new(name.clone()) else { continue };
            match sys::set_xattr(file, &name, value) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {
                    let name = name.to_string_lossy();
                    self.warnings.push(format!("{}: no attribute {name}: {error}", printable(&entry.path)));
                }
                set => set.map_err(failed("set an attribute of", entry))?,
            }
        }
        Ok(())
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        match self.options.owners {
            Owners::Archived => Some((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))),
            Owners::One(uid, gid) => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
            Owners::Mine => None,
        }
    }

    /// Innermost first: dating one changes nothing of another, but what is not there any more is nobody's fault.
    fn date_directories(&mut self) -> Result<(), Error> {
        for (path, time) in self.directories.iter().rev() {
            let Ok(directory) = self.open(path) else { continue };
            utimensat(&directory, ".", &TimeSpec::UTIME_OMIT, time, UtimensatFlags::NoFollowSymlink)
                .map_err(|error| Error::File { step: "date", path: self.named(path), source: error.into() })?;
        }
        Ok(())
    }

    /// A path for messages.
    fn named(&self, path: &Path) -> String {
        let path = path.strip_prefix("/").unwrap_or(path);
        printable(self.options.place.join(path).as_os_str().as_bytes())
    }
}

/// Opens a name that has just been made or looked at, and nothing that it might lead to.
fn open_beside(directory: BorrowedFd<'_>, base: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
    Ok(openat(directory, base, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The bytes of a file, its holes left out.
fn content(file: &File, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), Error> {
    let whole = [Segment { offset: 0, length: entry.size }];
    let mut buffer = vec![0; CHUNK.min(usize::try_from(entry.size).unwrap_or(CHUNK))];
    for segment in entry.sparse.as_deref().unwrap_or(&whole) {
        let mut done = 0;
        while done < segment.length {
            let want = usize::try_from(segment.length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            let count = reader.read(&mut buffer[..want])?;
            file.write_all_at(&buffer[..count], segment.offset + done).map_err(failed("write", entry))?;
            done += count as u64;
        }
    }
    if entry.sparse.is_some() {
        file.set_len(entry.size).map_err(failed("write", entry))?;
    }
    Ok(())
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_bits_truncate(u32::from(entry.mode))
}

fn time(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime, i64::from(entry.mtime_nsec))
}

fn refused(entry: &Entry, what: &str) -> Error {
    Error::Entry { name: printable(&entry.path), what: what.to_owned() }
}

fn failed<E: Into<io::Error>>(step: &'static str, entry: &Entry) -> impl FnOnce(E) -> Error {
    let path = printable(&entry.path);
    move |source| Error::File { step, path, source: source.into() }
}
