//! The first content of a volume: what the image has where the volume is mounted.
//!
//! As Docker does when a named or anonymous volume is empty at the start of a container. Everything is reached by descriptor: the image's
//! path is resolved inside of the container's root by the kernel (CVE-2022-23648 was a path joined by text), and in the volume, which another
//! container may be using already, no name is trusted twice.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{linkat, symlinkat};
use sbx_container::overlay::copy_attributes;

use crate::error::RootfsError;
use crate::sys;
use crate::walk::{self, Visitor};

const BUFFER: usize = 256 << 10;
/// A run of zeroes of this length becomes a hole.
const HOLE: usize = 4096;

/// What [`copy_up`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyUp {
    /// The image's directory is in the volume.
    Copied {
        /// Files, directories and others made in the volume.
        entries: u64,
        /// Bytes of content written; holes do not count.
        bytes: u64,
    },
    /// The image has nothing there.
    Missing,
    /// The image has something other than a directory there.
    NotADirectory,
    /// The volume has content of its own, which stays.
    NotEmpty,
}

/// Fills an empty volume with the image's directory `path_in_image`: content, and the directory's own mode, owner, times and attributes.
///
/// `root` is the container's root (the overlay). Symbolic links in the path are followed inside of it, never out of it.
pub fn copy_up(root: BorrowedFd<'_>, path_in_image: &Path, volume: BorrowedFd<'_>) -> Result<CopyUp, RootfsError> {
    let failed = |e: io::Error| RootfsError::io(Copy::STEP, path_in_image, e);
    let source = match open_in_root(root, path_in_image) {
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => return Ok(CopyUp::Missing),
            Some(libc::ENOTDIR) => return Ok(CopyUp::NotADirectory),
            _ => return Err(failed(error)),
        },
        Ok(source) => source,
    };
    let volume = walk::open_directory(volume, c".").map_err(failed)?;
    if !walk::names(volume.as_fd()).map_err(failed)?.is_empty() {
        return Ok(CopyUp::NotEmpty);
    }
    let mut copy = Copy::new(volume.as_fd()).map_err(failed)?;
    walk::walk(source.as_fd(), path_in_image, &mut copy)?;
    // The directory itself last: what was made in it changed its times.
    let stat = fstat(&source).map_err(|e| failed(e.into()))?;
    copy_attributes(source.as_fd(), &stat, volume.as_fd()).map_err(failed)?;
    Ok(CopyUp::Copied { entries: copy.entries, bytes: copy.bytes })
}

fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // A path of "" or "/" is the root.
    let path = if path.is_empty() { c"." } else { path.as_c_str() };
    sys::openat2(root, path, libc::O_RDONLY | libc::O_DIRECTORY, sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS)
}

struct Copy {
    /// The volume's top, for hard links.
    top: OwnedFd,
    /// The directory of the volume that is being filled, and where it is below the top.
    here: OwnedFd,
    path: Vec<Vec<u8>>,
    /// Device and inode of the directories above.
    above: Vec<(u64, u64)>,
    /// Inodes with several names, and the first name that they got in the volume.
    linked: HashMap<(u64, u64), CString>,
    buffer: Box<[u8]>,
    entries: u64,
    bytes: u64,
}

impl Copy {
    fn new(volume: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            top: volume.try_clone_to_owned()?,
            here: volume.try_clone_to_owned()?,
            path: Vec::new(),
            above: Vec::new(),
            linked: HashMap::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            entries: 0,
            bytes: 0,
        })
    }

    /// Makes `name` another name of a file that is in the volume already; false if this is its first.
    fn link(&mut self, name: &CStr, stat: &FileStat) -> io::Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
            let first = sys::openat2(
                self.top.as_fd(),
                first,
                libc::O_PATH | libc::O_NOFOLLOW,
                sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS,
            )?;
            linkat(
                nix::fcntl::AT_FDCWD,
                sys::fd_path(&first).as_c_str(),
                &self.here,
                name,
                AtFlags::AT_SYMLINK_FOLLOW,
            )?;
            return Ok(true);
        }
        let mut path = self.path.join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        self.linked.insert((stat.st_dev, stat.st_ino), CString::new(path)?);
        Ok(false)
    }

    fn regular(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let from = File::from(openat(dir, name, flags, Mode::empty())?);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let to = File::from(openat(&self.here, name, flags, Mode::from_bits_truncate(0o600))?);
        self.content(&from, &to)?;
        copy_attributes(from.as_fd(), stat, to.as_fd())
    }

    /// Copies what is not zero. EROFS and overlayfs do not tell where a file's holes are, so they are found by looking.
    fn content(&mut self, mut from: &File, to: &File) -> io::Result<()> {
        let mut end = 0u64;
        loop {
            let got = match from.read(&mut self.buffer) {
                Ok(0) => return to.set_len(end),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                got => got?,
            };
            let mut start = end;
            for block in self.buffer[..got].chunks(HOLE) {
                if block.iter().any(|&b| b != 0) {
                    to.write_all_at(block, start)?;
                    self.bytes += block.len() as u64;
                }
                start += block.len() as u64;
            }
            end = start;
        }
    }

    fn special(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()> {
        let kind = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT);
        if kind == SFlag::S_IFLNK {
            symlinkat(readlinkat(dir, name)?.as_os_str(), &self.here, name)?;
        } else {
            mknodat(&self.here, name, kind, Mode::from_bits_truncate(0o600), stat.st_rdev)?;
        }
        let to = itself(self.here.as_fd(), name)?;
        copy_attributes(itself(dir, name)?.as_fd(), stat, to.as_fd())
    }
}

/// The inode of a name, whatever it is.
fn itself(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    Ok(openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

impl Visitor for Copy {
    const STEP: &'static str = "copy into the volume the image's";

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()> {
        self.entries += 1;
        if self.link(name, stat)? {
            return Ok(());
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.regular(dir, name, stat),
            _ => self.special(dir, name, stat),
        }
    }

    fn enter(&mut self, _: BorrowedFd<'_>, name: &CStr, _: &FileStat) -> io::Result<()> {
        self.entries += 1;
        let stat = fstat(&self.here)?;
        mkdirat(&self.here, name, Mode::from_bits_truncate(0o700))?;
        self.here = walk::open_directory(self.here.as_fd(), name)?;
        self.above.push((stat.st_dev, stat.st_ino));
        self.path.push(name.to_bytes().to_vec());
        Ok(())
    }

    fn leave(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> io::Result<()> {
        copy_attributes(itself(dir, name)?.as_fd(), stat, self.here.as_fd())?;
        self.here = walk::open_directory(self.here.as_fd(), c"..")?;
        self.path.pop();
        let stat = fstat(&self.here)?;
        if self.above.pop() != Some((stat.st_dev, stat.st_ino)) {
            return Err(io::Error::other("the volume is being changed by somebody else"));
        }
        Ok(())
    }
}
