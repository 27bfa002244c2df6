//! The messages: requests end in `In`, answers in `Out`. Fields have the names and meanings of `fuse.h`; padding and what
//! the server has no use for is `_`-prefixed.

use super::codec::message;

message!(
    /// Opens every request.
    InHeader {
        /// Length of the request in bytes, this header included.
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        /// Length of extensions at the end, in units of eight bytes.
        total_extlen: u16,
        _padding: u16,
    }
);
message!(
    /// Opens every answer.
    OutHeader {
        /// Length of the answer in bytes, this header included.
        len: u32,
        /// 0 or a negative errno.
        error: i32,
        unique: u64,
    }
);
message!(
    /// What a file is like.
    Attr {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }
);
message!(
    /// A name was found or made.
    EntryOut {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }
);
message!(ForgetIn { nlookup: u64 });
message!(BatchForgetIn { count: u32, _padding: u32 });
message!(
    /// One of a [`BatchForgetIn`].
    ForgetOne { nodeid: u64, nlookup: u64 }
);
message!(GetattrIn { flags: u32, _padding: u32, fh: u64 });
message!(AttrOut { attr_valid: u64, attr_valid_nsec: u32, _padding: u32, attr: Attr });
message!(MknodIn { mode: u32, rdev: u32, umask: u32, _padding: u32 });
message!(MkdirIn { mode: u32, umask: u32 });
message!(RenameIn { newdir: u64 });
message!(Rename2In { newdir: u64, flags: u32, _padding: u32 });
message!(LinkIn { oldnodeid: u64 });
message!(SetattrIn {
    /// Of [`super::fattr`].
    valid: u32,
    _padding: u32,
    fh: u64,
    size: u64,
    lock_owner: u64,
    atime: u64,
    mtime: u64,
    ctime: u64,
    atimensec: u32,
    mtimensec: u32,
    ctimensec: u32,
    mode: u32,
    _unused4: u32,
    uid: u32,
    gid: u32,
    _unused5: u32,
});
message!(OpenIn { flags: u32, open_flags: u32 });
message!(CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 });
message!(OpenOut { fh: u64, open_flags: u32, backing_id: i32 });
message!(ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 });
message!(FlushIn { fh: u64, _unused: u32, _padding: u32, lock_owner: u64 });
message!(ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, _padding: u32 });
message!(WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, _padding: u32 });
message!(WriteOut { size: u32, _padding: u32 });
message!(
    /// Answer to `STATFS`.
    KernelStatfs {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        _padding: u32,
        _spare: [u32; 6],
    }
);
message!(FsyncIn { fh: u64, flags: u32, _padding: u32 });
message!(
    /// Without the extension (`SETXATTR_EXT`), only the first two fields.
    SetxattrIn { size: u32, flags: u32, setxattr_flags: u32, _padding: u32 }
);
message!(GetxattrIn { size: u32, _padding: u32 });
message!(GetxattrOut { size: u32, _padding: u32 });
message!(LkIn { fh: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, flags: u32, _padding: u32 });
message!(LkOut { start: u64, end: u64, kind: u32, pid: u32 });
message!(
    /// Before 7.36 without `flags2` and what follows.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
);
message!(InitOut {
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u32,
    max_background: u16,
    congestion_threshold: u16,
    max_write: u32,
    time_gran: u32,
    max_pages: u16,
    map_alignment: u16,
    flags2: u32,
    max_stack_depth: u32,
    _unused: [u32; 6],
});
message!(InterruptIn { unique: u64 });
message!(FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, _padding: u32 });
message!(LseekIn { fh: u64, offset: u64, whence: u32, _padding: u32 });
message!(LseekOut { offset: u64 });
message!(CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 });
message!(StatxIn { flags: u32, _reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 });
message!(StatxTime { seconds: i64, nanoseconds: u32, _reserved: i32 });
message!(
    /// As `struct statx` of statx(2).
    Statx {
        mask: u32,
        blksize: u32,
        attributes: u64,
        nlink: u32,
        uid: u32,
        gid: u32,
        mode: u16,
        _spare0: u16,
        ino: u64,
        size: u64,
        blocks: u64,
        attributes_mask: u64,
        atime: StatxTime,
        btime: StatxTime,
        ctime: StatxTime,
        mtime: StatxTime,
        rdev_major: u32,
        rdev_minor: u32,
        dev_major: u32,
        dev_minor: u32,
        _spare2: [u64; 14],
    }
);
message!(StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, _spare: [u64; 2], stat: Statx });

#[cfg(test)]
mod tests {
    use super::super::Wire;
    use super::{
        Attr, AttrOut, CopyFileRangeIn, CreateIn, EntryOut, FallocateIn, InHeader, InitOut, KernelStatfs, LkIn, LkOut,
        OpenOut, OutHeader, ReadIn, SetattrIn, Statx, StatxIn, StatxOut, WriteIn,
    };

    #[test]
    fn messages_have_the_sizes_of_the_kernel_header() {
        let sizes = [
            (InHeader::SIZE, 40),
            (OutHeader::SIZE, 16),
            (Attr::SIZE, 88),
            (EntryOut::SIZE, 128),
            (AttrOut::SIZE, 104),
            (SetattrIn::SIZE, 88),
            (CreateIn::SIZE, 16),
            (OpenOut::SIZE, 16),
            (ReadIn::SIZE, 40),
            (WriteIn::SIZE, 40),
            (KernelStatfs::SIZE, 80),
            (LkIn::SIZE, 48),
            (LkOut::SIZE, 24),
            (InitOut::SIZE, 64),
            (FallocateIn::SIZE, 32),
            (CopyFileRangeIn::SIZE, 56),
            (StatxIn::SIZE, 24),
            (Statx::SIZE, 256),
            (StatxOut::SIZE, 288),
        ];
        for (index, (ours, theirs)) in sizes.into_iter().enumerate() {
            assert_eq!(ours, theirs, "message {index}");
        }
    }

    #[test]
    fn a_message_survives_the_wire_and_a_short_one_is_none() {
        let entry =
            EntryOut { nodeid: 7, attr: Attr { mode: 0o100_644, flags: 1, ..Attr::default() }, ..EntryOut::default() };
        let mut bytes = Vec::new();
        entry.put(&mut bytes);
        assert_eq!(bytes.len(), EntryOut::SIZE);
        assert_eq!(EntryOut::take(&mut bytes.as_slice()), Some(entry));
        assert_eq!(EntryOut::take(&mut &bytes[..127]), None);
    }
}
