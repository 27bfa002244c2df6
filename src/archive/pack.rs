//! A file or a directory tree becomes a tar stream, in the order of its names, while others may be changing it.
//!
//! What goes away meanwhile is left out; a file that grows or shrinks has the size that it had at first, filled up with
//! zeroes. Sockets are left out, as every tar does. GNU's form of long names, PAX records for extended attributes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};
use tar::{EntryType, Header};

use crate::error::Error;
use crate::reader::BLOCK;
use crate::sys;

/// What is read from a file at a time, in bytes.
const CHUNK: usize = 128 << 10;
/// Longest name that a header holds.
const SHORT: usize = 100;

/// Packs what `base` is below `directory`, and everything below that, under the name `name`.
///
/// `base` is `.` for the directory itself; with an empty `name` the archive begins with what is in it. A symbolic link is
/// packed as one.
///
/// Errors: [`Error::File`] where something cannot be read, [`Error::Write`] where `out` takes no more.
pub fn pack(directory: BorrowedFd<'_>, base: &OsStr, name: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let mut packer = Packer { out, links: HashMap::new() };
    let mut levels: Vec<Level> = packer.add(directory, base, name)?.into_iter().collect();
    while let Some(level) = levels.last_mut() {
        let Some(base) = level.names.next() else {
            levels.pop();
            continue;
        };
        let path = level.path.join(&base);
        match packer.add(level.directory.as_fd(), &base, &path) {
            Ok(next) => levels.extend(next),
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    packer.put(&[0; 2 * BLOCK])?;
    packer.out.flush().map_err(Error::Write)
}

/// A directory that is being walked.
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

struct Packer<'a> {
    out: &'a mut dyn Write,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    /// Adds one entry; a directory is returned, for what is in it.
    fn add(&mut self, directory: BorrowedFd<'_>, base: &OsStr, path: &Path) -> Result<Option<Level>, Error> {
        let name = path.as_os_str().as_bytes();
        let found = fstatat(directory, base, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("stat", name))?;
        let mut header = header(&found);
        let plain = records(&found, None).map_err(failed("stat", name))?;
        match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let opened = openat(directory, base, flags, Mode::empty()).map_err(failed("open", name))?;
                let names = names(&opened).map_err(failed("read the directory", name))?;
                let records = records(&found, Some(opened.as_fd())).map_err(failed("read the attributes of", name))?;
                header.set_entry_type(EntryType::Directory);
                let slashed = if name.ends_with(b"/") { name.to_vec() } else { [name, b"/"].concat() };
                if !name.is_empty() {
                    self.entry(&mut header, &slashed, b"", &records)?;
                }
                return Ok(Some(Level { directory: opened, path: path.to_owned(), names: names.into_iter() }));
            }
            SFlag::S_IFREG => self.file(directory, base, name, &found, header)?,
            SFlag::S_IFLNK => {
                let target = readlinkat(directory, base).map_err(failed("read the link", name))?;
                header.set_entry_type(EntryType::Symlink);
                self.entry(&mut header, name, target.as_bytes(), &plain)?;
            }
            SFlag::S_IFIFO => {
                header.set_entry_type(EntryType::Fifo);
                self.entry(&mut header, name, b"", &plain)?;
            }
            kind @ (SFlag::S_IFCHR | SFlag::S_IFBLK) => {
                header.set_entry_type(if kind == SFlag::S_IFCHR { EntryType::Char } else { EntryType::Block });
                let numbers = (u32::try_from(major(found.st_rdev)), u32::try_from(minor(found.st_rdev)));
                let (Ok(major), Ok(minor)) = numbers else { return Ok(None) };
                // A header of GNU's form has these fields.
                let _ = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
                self.entry(&mut header, name, b"", &plain)?;
            }
            // Sockets.
            _ => {}
        }
        Ok(None)
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        base: &OsStr,
        name: &[u8],
        found: &FileStat,
        mut header: Header,
    ) -> Result<(), Error> {
        if found.st_nlink > 1 {
            if let Some(first) = self.links.get(&(found.st_dev, found.st_ino)).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.entry(&mut header, name, &first, &[]);
            }
            self.links.insert((found.st_dev, found.st_ino), name.to_vec());
        }
        // Not to wait for what has become a pipe meanwhile.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(directory, base, flags, Mode::empty()).map_err(failed("open", name))?;
        let now = fstat(&opened).map_err(failed("stat", name))?;
        if now.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Ok(());
        }
        let records = records(&now, Some(opened.as_fd())).map_err(failed("read the attributes of", name))?;
        let size = u64::try_from(now.st_size).unwrap_or_default();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        self.entry(&mut header, name, b"", &records)?;
        self.content(&File::from(opened), size, name)
    }

    /// Exactly `size` bytes, and what fills the block.
    fn content(&mut self, file: &File, size: u64, name: &[u8]) -> Result<(), Error> {
        let mut source = file.take(size);
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut left = size;
        while left > 0 {
            let count = match source.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed::<io::Error>("read", name)(error)),
                Ok(0) => {
                    // It has become shorter.
                    buffer.fill(0);
                    usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()))
                }
                Ok(count) => count,
            };
            self.put(&buffer[..count])?;
            left -= count as u64;
        }
        self.fill(size)
    }

    /// The headers of one entry.
    fn entry(&mut self, header: &mut Header, name: &[u8], link: &[u8], records: &[u8]) -> Result<(), Error> {
        if !records.is_empty() {
            self.extension(EntryType::XHeader, b"././@PaxHeader", records)?;
        }
        if name.len() > SHORT {
            self.long(EntryType::GNULongName, name)?;
        }
        if link.len() > SHORT {
            self.long(EntryType::GNULongLink, link)?;
        }
        let block = header.as_mut_bytes();
        put_short(&mut block[..SHORT], name);
        put_short(&mut block[157..157 + SHORT], link);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn long(&mut self, kind: EntryType, text: &[u8]) -> Result<(), Error> {
        self.extension(kind, b"././@LongLink", &[text, b"\0"].concat())
    }

    /// A header that describes the entry after it.
    fn extension(&mut self, kind: EntryType, name: &[u8], payload: &[u8]) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(payload.len() as u64);
        for zero in [Header::set_uid, Header::set_gid, Header::set_mtime] {
            zero(&mut header, 0);
        }
        put_short(&mut header.as_mut_bytes()[..SHORT], name);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(payload)?;
        self.fill(payload.len() as u64)
    }

    fn fill(&mut self, size: u64) -> Result<(), Error> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.put(&[0; BLOCK][..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Write)
    }
}

fn header(found: &FileStat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(found.st_mode & 0o7777);
    header.set_uid(u64::from(found.st_uid));
    header.set_gid(u64::from(found.st_gid));
    header.set_mtime(u64::try_from(found.st_mtime).unwrap_or_default());
    header.set_size(0);
    header
}

/// A name or its beginning; a longer one stands in a header of its own.
fn put_short(field: &mut [u8], name: &[u8]) {
    field.fill(0);
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// `LENGTH KEY=VALUE\n`, the length counting its own digits (POSIX.1-2017, `pax`).
fn record(payload: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    payload.extend_from_slice(format!("{length} ").as_bytes());
    payload.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

/// What a header has no field for: times before 1970, and extended attributes but those that the kernel keeps for itself.
fn records(found: &FileStat, file: Option<BorrowedFd<'_>>) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    if found.st_mtime < 0 {
        record(&mut payload, b"mtime", found.st_mtime.to_string().as_bytes());
    }
    let Some(file) = file else { return Ok(payload) };
    for name in sys::list_xattrs(file)? {
        if name.to_bytes().starts_with(b"user.") || name.to_bytes() == b"security.capability" {
            let key = [b"SCHILY.xattr.", name.to_bytes()].concat();
            record(&mut payload, &key, &sys::get_xattr(file, &name)?);
        }
    }
    Ok(payload)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut listing = Dir::from_fd(directory.try_clone()?)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

fn failed<E: Into<io::Error>>(step: &'static str, path: &[u8]) -> impl FnOnce(E) -> Error {
    let path = String::from_utf8_lossy(path).into_owned();
    move |source| Error::File { step, path, source: source.into() }
}
