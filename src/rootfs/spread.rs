//! Where the file system puts the directories of containers.
//!
//! ext4 puts a directory near its parent, and files near their directory: the files of containers that come and go share
//! few of its groups. Without a journal it passes over every inode that was deleted in the last minutes
//! (`recently_deleted`, fs/ext4/ialloc.c), one by one, for each file that it makes: starts that follow each other then take
//! twice as long. "Top of directory hierarchies" (chattr(1), `T`) is ext4's word for a directory whose children have
//! nothing to do with each other; it spreads them over the disk.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{major, minor};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};

use crate::sys;

/// Has the children of a directory spread over the disk where that makes containers faster; says whether it has.
///
/// # Errors
/// The directory cannot be opened or marked.
pub fn spread(directory: &Path) -> io::Result<bool> {
    let directory = File::open(directory)?;
    if fstatfs(&directory)?.filesystem_type() != EXT4_SUPER_MAGIC || has_journal(directory.metadata()?.dev()) {
        return Ok(false);
    }
    sys::add_flags(directory.as_fd(), sys::FS_TOPDIR_FL)
}

/// Whether the ext4 file system on a device has a journal; one that cannot be asked is taken to have one, as most have.
fn has_journal(device: u64) -> bool {
    let link = fs::read_link(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    let name = link.ok().and_then(|target| Some(target.file_name()?.to_owned()));
    let task = name.and_then(|name| fs::read(Path::new("/sys/fs/ext4").join(name).join("journal_task")).ok());
    task.is_none_or(|task| !task.starts_with(b"<none>"))
}
