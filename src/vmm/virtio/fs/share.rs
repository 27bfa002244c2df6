//! What a share is: dead data and the descriptors that the owner has opened before the process confined itself.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::virtio::device::DeviceError;

/// Longest tag in bytes (virtio specification 1.3, section 5.11.4).
pub const TAG_MAX: usize = 36;

/// What the guest sees as the root of its mount.
#[derive(Debug)]
pub enum Root {
    /// A directory, opened with `O_PATH | O_DIRECTORY`. Mounts below it belong to the share, as with a recursive bind.
    Directory(OwnedFd),
    /// One file, opened with `O_PATH | O_NOFOLLOW`, shown under a name in a directory that has nothing else. Its neighbours
    /// on the host are out of reach; when the host puts another file in its place, the share stays with this one, as a bind
    /// mount does.
    File {
        /// The file: anything but a directory or a symbolic link.
        file: OwnedFd,
        /// Its name in the share.
        name: CString,
    },
}

/// Whether the guest may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// Every request that would change something is answered with `EROFS` by the server, and files are only ever opened for
    /// reading. The mount flag in the guest does not matter (CVE-2026-46695). An owner who wants the host's kernel to stand
    /// behind that opens the root in a read-only clone of the mount (`open_tree(2)`, `mount_setattr(2)`).
    ReadOnly,
}

/// How long the guest may believe what it was told. Zero, the default, lets it ask every time: what the host changes is
/// seen by the next `stat`, `open` and `read` in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    /// That a name leads to a file, or to none.
    pub names: Duration,
    /// What a file is like. Any time above zero is rounded up by the guest's kernel to its next timer tick.
    pub attributes: Duration,
}

/// How much of the host a guest can take hold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors held for the guest: nodes, open files, locks. Nodes give theirs up for others and get them back by name;
    /// when open files and locks alone reach the number, the guest gets `ENFILE`. The process needs as many descriptors
    /// (`RLIMIT_NOFILE`) beside its own.
    pub descriptors: usize,
    /// Files that the guest can know at the same time, about 200 bytes of our memory each. A Linux guest holds at least a
    /// kilobyte of its own memory for each, so the size of its memory divided by 1024 is never too small.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { descriptors: 4096, nodes: 1 << 20 }
    }
}

/// A share: what one virtio-fs device shows.
#[derive(Debug)]
pub struct Share {
    /// The name that the guest mounts it by, 1 to 36 bytes without NUL.
    pub tag: String,
    /// What is shown.
    pub root: Root,
    /// `/proc/self/fd`, opened in the process that will serve (not before a fork): the way to open a file again.
    pub proc: OwnedFd,
    /// Whether it may be changed.
    pub access: Access,
    /// Whether the guest may mount it with other owners (mount_setattr(2), `MOUNT_ATTR_IDMAP`). Its kernel names callers then
    /// only where something is made: whoever allocates or copies within a file is taken for one who may not keep
    /// set-user-id.
    pub mappable: bool,
    /// How long the guest may believe what it was told.
    pub caching: Caching,
    /// How much the guest can take hold of.
    pub limits: Limits,
}

/// Why a share cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The tag is none.
    #[error("share tag {0:?} must have 1 to {TAG_MAX} bytes and no NUL")]
    Tag(String),
    /// The name of a single file is none.
    #[error("share {tag}: {name:?} is no file name: it must have 1 to 255 bytes, no slash, and not be . or ..")]
    Name {
        /// The share.
        tag: String,
        /// The name.
        name: CString,
    },
    /// The root is of another kind than was said.
    #[error("share {tag}: its root must be {wanted}")]
    Root {
        /// The share.
        tag: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// The host refused something.
    #[error("share {tag}: {step}: {source}")]
    Host {
        /// The share.
        tag: String,
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: std::io::Error,
    },
    /// No timer or eventfd.
    #[error("share {tag}: {source}")]
    Descriptor {
        /// The share.
        tag: String,
        /// The answer of the kernel.
        source: DeviceError,
    },
    /// The limits leave no room.
    #[error("share {tag}: limits of {} descriptors and {} nodes are too small: 16 of each is the least", .limits.descriptors, .limits.nodes)]
    Limits {
        /// The share.
        tag: String,
        /// What was asked for.
        limits: Limits,
    },
}
