//! Owner, mode, times and extended attributes, from one open file to another.
//!
//! Both are descriptors of the very inode (`O_PATH` will do), never names: a name in a volume may be exchanged for a link by a container
//! that runs already. `/proc/self/fd/N` leads each call to the inode, also that of a symbolic link.

use std::io;
use std::os::fd::BorrowedFd;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use super::sys;

/// Copies everything that `stat` (of `from`) shows and all extended attributes but overlayfs's own.
pub fn copy_attributes(from: BorrowedFd<'_>, stat: &FileStat, to: BorrowedFd<'_>) -> io::Result<()> {
    let path = sys::fd_path(to);
    let path = path.as_c_str();
    // Owner first: changing it clears set-user-id and file capabilities.
    fchownat(to, c"", Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::AT_EMPTY_PATH)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
        fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(stat.st_mode & 0o7777), FchmodatFlags::FollowSymlink)?;
    }
    copy_xattrs(from, to)?;
    // Times last: all of the above changes some of them.
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(AT_FDCWD, path, &accessed, &modified, UtimensatFlags::FollowSymlink)?;
    Ok(())
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for name in sys::list_xattrs(from)? {
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let value = sys::get_xattr(from, &name)?;
        match sys::set_xattr(to, &name, &value) {
            // Docker goes on likewise where the volume's file system has no such name space.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            result => result?,
        }
    }
    Ok(())
}
