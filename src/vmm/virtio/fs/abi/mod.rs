//! The words of FUSE, protocol 7.41, as the Linux client speaks them (`include/uapi/linux/fuse.h` of Linux 6.12). Written
//! down here, not generated: what stands here is what the server knows.
//!
//! Numbers are little-endian: the client speaks in the byte order of its CPU, and the server asks for nothing else.

mod codec;
mod messages;

pub use codec::Wire;
pub use messages::{
    Attr, AttrOut, BatchForgetIn, CopyFileRangeIn, CreateIn, EntryOut, FallocateIn, FlushIn, ForgetIn, ForgetOne,
    FsyncIn, GetattrIn, GetxattrIn, GetxattrOut, InHeader, InitIn, InitOut, InterruptIn, KernelStatfs, LinkIn, LkIn,
    LkOut, LseekIn, LseekOut, MkdirIn, MknodIn, OpenIn, OpenOut, OutHeader, ReadIn, ReleaseIn, Rename2In, RenameIn,
    SetattrIn, SetxattrIn, Statx, StatxIn, StatxOut, StatxTime, WriteIn, WriteOut,
};

/// Major version of the protocol.
pub const MAJOR: u32 = 7;
/// Newest minor version that the server knows (Linux 6.12).
pub const MINOR: u32 = 41;
/// Oldest minor version that the server serves: that of Linux 5.4, the first with virtio-fs.
pub const OLDEST_MINOR: u32 = 31;
/// Node of the share's root.
pub const ROOT_ID: u64 = 1;
/// Longest name of a directory entry in bytes.
pub const NAME_MAX: usize = 255;

/// What a request asks for.
pub mod opcode {
    #![allow(missing_docs)]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// What client and server can agree on in `INIT`.
pub mod init {
    /// Reads may overtake each other.
    pub const ASYNC_READ: u64 = 1 << 0;
    /// The server keeps the locks of `fcntl(2)`.
    pub const POSIX_LOCKS: u64 = 1 << 1;
    /// `OPEN` and `CREATE` carry `O_TRUNC`.
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    /// Writes may be longer than a page.
    pub const BIG_WRITES: u64 = 1 << 5;
    /// The server applies the umask.
    pub const DONT_MASK: u64 = 1 << 6;
    /// The server keeps the locks of `flock(2)`.
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    /// The client throws cached data away where size or modification time is another.
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    /// The server knows `READDIRPLUS`.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// The client decides when to use it.
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Direct reads and writes may overtake each other.
    pub const ASYNC_DIO: u64 = 1 << 15;
    /// Lookups and listings of one directory may run at the same time.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// The client honours POSIX access control lists, which the server stores.
    pub const POSIX_ACL: u64 = 1 << 20;
    /// [`super::InitOut::max_pages`] counts.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Roots of mounts below the share are marked, so that the client mounts them.
    pub const SUBMOUNTS: u64 = 1 << 27;
    /// The server takes set-uid and set-gid away on writing, truncating and changing owners.
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// `SETXATTR` has flags.
    pub const SETXATTR_EXT: u64 = 1 << 29;
    /// There is a second word of flags.
    pub const INIT_EXT: u64 = 1 << 30;
    /// The client may map owners (Linux 6.12); it names callers only in requests that make something.
    pub const ALLOW_IDMAP: u64 = 1 << 40;
    /// Node ids mean nothing once they are forgotten.
    pub const NO_EXPORT_SUPPORT: u64 = 1 << 38;
}

/// `OPEN` and its kin, answer: the cached data are still right.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `OPEN` and `CREATE`: truncation takes set-uid and set-gid away.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `GETATTR`: the handle is valid.
pub const GETATTR_FH: u32 = 1 << 0;
/// `SETLK` and its kin: the lock is one of `flock(2)`.
pub const LK_FLOCK: u32 = 1 << 0;
/// `WRITE`: from the page cache; handle and flags are not the writer's.
pub const WRITE_CACHE: u32 = 1 << 0;
/// `WRITE`: take set-uid and set-gid away.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FSYNC`: data, and only what is needed to read them.
pub const FSYNC_DATA: u32 = 1 << 0;
/// `RELEASE`: drop the handle's `flock(2)`.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `SETXATTR`: an access control list was set by one who may not keep set-gid.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// [`Attr::flags`]: root of a mount.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;

/// Which fields of [`SetattrIn`] count.
pub mod fattr {
    #![allow(missing_docs)]
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}
