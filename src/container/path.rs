//! Paths inside a container's root. A path comes from an image or a user and may lead anywhere, so it is never used as
//! a string: it is resolved below the root's descriptor by openat2(2) with RESOLVE_IN_ROOT, component by component where
//! something has to be made, and whoever asked gets a descriptor (CVE-2021-30465, CVE-2019-19921, CVE-2025-52881).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat, mknodat};

use crate::sys::{RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2};

/// A container's root directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RootDir<'a> {
    directory: BorrowedFd<'a>,
}

impl<'a> RootDir<'a> {
    pub(crate) fn new(directory: BorrowedFd<'a>) -> Self {
        Self { directory }
    }

    pub(crate) fn as_fd(self) -> BorrowedFd<'a> {
        self.directory
    }

    /// Opens what `path` leads to.
    pub(crate) fn open(self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
        openat2(self.directory, Path::new(path), flags.bits(), 0, resolve)
    }

    /// A descriptor of the directory `path`, made with its parents (mode 0755) where it is missing.
    pub(crate) fn make_directory(self, path: &str) -> io::Result<OwnedFd> {
        let path = without_dots(path);
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match self.open_directory(ancestor) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
                Err(error) => return Err(error),
                Ok(found) => {
                    let mut directory = found;
                    for path in missing.into_iter().rev() {
                        directory = self.make_child(&directory, path)?;
                    }
                    return Ok(directory);
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn open_directory(self, path: &Path) -> io::Result<OwnedFd> {
        self.open(&path.to_string_lossy(), OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// Makes the directory `path`, whose parent is open, unless it exists. A link that leads nowhere is followed by making
    /// what it names, inside the root, as runc does.
    fn make_child(self, parent: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
        let name = path.file_name().unwrap_or_default();
        match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                return openat2(parent.as_fd(), Path::new(name), flags.bits(), 0, RESOLVE_IN_ROOT);
            }
            Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match self.open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let link = nix::fcntl::readlinkat(parent, name)?;
                let target = path.parent().unwrap_or(path).join(link);
                if target.components().count() > 64 {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                self.make_directory(&target.to_string_lossy())
            }
            other => other,
        }
    }

    /// A descriptor of the file `path`, made empty with its parents where it is missing.
    pub(crate) fn make_file(self, path: &str) -> io::Result<OwnedFd> {
        match self.open(path, OFlag::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = split(path)?;
        let parent = self.make_directory(parent)?;
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let made = openat2(parent.as_fd(), Path::new(name), flags.bits(), 0o644, RESOLVE_IN_ROOT);
        match made {
            Ok(_) => self.open(path, OFlag::O_PATH),
            Err(error) => Err(error),
        }
    }

    /// Makes a symbolic link unless something is there.
    pub(crate) fn make_link(self, target: &str, path: &str) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let parent = self.make_directory(parent)?;
        match nix::unistd::symlinkat(target, &parent, name) {
            Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a device node; whatever is there already is replaced unless it is that device.
    pub(crate) fn make_node(self, path: &str, kind: SFlag, mode: u32, device: u64) -> io::Result<OwnedFd> {
        let (parent, name) = split(path)?;
        let parent = self.make_directory(parent)?;
        match mknodat(&parent, name, kind, Mode::from_bits_truncate(mode), device) {
            Ok(()) => {}
            Err(nix::Error::EEXIST) => {
                let found = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if !is_node(&found, kind, device) {
                    nix::unistd::unlinkat(&parent, name, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
                    mknodat(&parent, name, kind, Mode::from_bits_truncate(mode), device)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        openat2(parent.as_fd(), Path::new(name), flags.bits(), 0, RESOLVE_IN_ROOT)
    }
}

fn is_node(found: &FileStat, kind: SFlag, device: u64) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == kind.bits() && (kind == SFlag::S_IFIFO || found.st_rdev == device)
}

/// The absolute path that `path` spells, `.` and `..` taken as they are written.
pub(crate) fn without_dots(path: &str) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => drop(plain.pop()),
            Component::Normal(name) => plain.push(name),
        }
    }
    plain
}

/// Parent and last component of an absolute path.
fn split(path: &str) -> io::Result<(&str, &str)> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let trimmed = path.trim_end_matches('/');
    let (parent, name) = trimmed.rsplit_once('/').ok_or_else(invalid)?;
    if name.is_empty() || name == "." || name == ".." {
        return Err(invalid());
    }
    Ok((if parent.is_empty() { "/" } else { parent }, name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    fn with_root(test: impl FnOnce(RootDir<'_>, &Path)) {
        let outer =
            std::env::temp_dir().join(format!("sbx-path-{}-{:?}", std::process::id(), std::thread::current().id()));
        let root = outer.join("root");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(outer.join("canary")).unwrap();
        let directory = fs::File::open(&root).unwrap();
        test(RootDir::new(directory.as_fd()), &outer);
        assert_eq!(fs::read_dir(outer.join("canary")).unwrap().count(), 0, "something left the root");
        fs::remove_dir_all(outer).unwrap();
    }

    #[test]
    fn directories_are_made_inside_whatever_links_say() {
        with_root(|root, outer| {
            symlink(outer.join("canary"), outer.join("root/absolute")).unwrap();
            symlink("../../../../canary", outer.join("root/relative")).unwrap();
            root.make_directory("/absolute/a/b").unwrap();
            root.make_directory("/relative/c").unwrap();
            root.make_directory("/x/../../../y").unwrap();
            assert!(outer.join("root/canary/c").is_dir());
            assert!(outer.join("root/y").is_dir());
        });
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        with_root(|root, outer| {
            symlink("b", outer.join("root/a")).unwrap();
            symlink("a", outer.join("root/b")).unwrap();
            assert!(root.make_directory("/a/x").is_err());
            assert!(root.make_file("/a/x").is_err());
        });
    }

    #[test]
    fn files_and_nodes_are_made_in_place_of_links() {
        with_root(|root, outer| {
            fs::create_dir(outer.join("root/dev")).unwrap();
            symlink(outer.join("canary/null"), outer.join("root/dev/null")).unwrap();
            root.make_node("/dev/null", SFlag::S_IFCHR, 0o666, nix::sys::stat::makedev(1, 3)).unwrap();
            assert!(fs::symlink_metadata(outer.join("root/dev/null")).unwrap().file_type().is_char_device());
            root.make_file("/etc/hosts").unwrap();
            assert!(outer.join("root/etc/hosts").is_file());
        });
    }
}
