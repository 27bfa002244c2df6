//! Data, attributes and extended attributes arrive where they belong.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::client::{Answer, Client, bytes, named};
use crate::virtio::fs::abi::{
    CopyFileRangeIn, CreateIn, EntryOut, FOPEN_KEEP_CACHE, FallocateIn, FsyncIn, GetattrIn, GetxattrIn, LinkIn,
    LseekIn, LseekOut, OpenOut, ROOT_ID, SetattrIn, WRITE_CACHE, WRITE_KILL_SUIDGID, Wire, WriteIn, WriteOut, fattr,
    opcode,
};

const RDWR: i32 = libc::O_RDWR;

#[test]
fn what_is_written_on_one_side_is_read_on_the_other() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", RDWR, 0o640).unwrap();
    let node = entry.nodeid;
    assert_eq!(entry.attr.mode, libc::S_IFREG | 0o640);
    let data: Vec<u8> = (0..300_000_u32).map(|index| index as u8).collect();
    assert_eq!(client.write(node, fh, 5, &data), Ok(300_000));
    assert_eq!(fs::read(client.host("f")).unwrap()[5..], data);
    assert_eq!(client.read(node, fh, 5, 1 << 20), Ok(data));
    assert_eq!(client.read(node, fh, 300_005, 10), Ok(Vec::new()));
    assert_eq!(client.read(node, fh, 0, 7), Ok(vec![0, 0, 0, 0, 0, 0, 1]));
    fs::write(client.host("f"), "host").unwrap();
    assert_eq!(client.read(node, fh, 0, 100), Ok(b"host".to_vec()));
    for (code, flags) in [(opcode::FSYNC, 0), (opcode::FSYNC, 1)] {
        client.order(code, node, &bytes(&FsyncIn { fh, flags, ..FsyncIn::default() })).unwrap();
    }
    let directory = client.opendir(ROOT_ID).unwrap();
    client.order(opcode::FSYNCDIR, ROOT_ID, &bytes(&FsyncIn { fh: directory, ..FsyncIn::default() })).unwrap();
    client.order(opcode::SYNCFS, ROOT_ID, &[0; 8]).unwrap();
    client.release(node, fh).unwrap();
    assert_eq!(client.read(node, fh, 0, 1), Err(Errno::EBADF));
}

#[test]
fn appending_is_the_hosts_but_for_pages_that_are_written_back() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "log", RDWR | libc::O_APPEND, 0o644).unwrap();
    let node = entry.nodeid;
    let append = |offset, write_flags| WriteIn {
        fh,
        offset,
        size: 3,
        write_flags,
        flags: (RDWR | libc::O_APPEND) as u32,
        ..WriteIn::default()
    };
    client.write_with(node, &append(0, 0), b"one").unwrap();
    // The host has appended in the meantime: the guest's idea of the end is too early.
    fs::OpenOptions::new().append(true).open(client.host("log")).and_then(|file| file.write_at(b"two", 3)).unwrap();
    client.write_with(node, &append(3, 0), b"tri").unwrap();
    client.write_with(node, &append(0, WRITE_CACHE), b"ONE").unwrap();
    assert_eq!(fs::read(client.host("log")).unwrap(), b"ONEtwotri");
}

#[test]
fn a_handle_allows_what_it_was_opened_for() {
    let mut client = Client::new();
    fs::write(client.host("f"), "abc").unwrap();
    let node = client.walk("f").unwrap();
    let reader = client.open(node, libc::O_RDONLY).unwrap().fh;
    let writer = client.open(node, libc::O_WRONLY).unwrap().fh;
    assert_eq!(client.write(node, reader, 0, b"x"), Err(Errno::EBADF));
    assert_eq!(client.read(node, writer, 0, 1), Err(Errno::EBADF));
    assert_eq!(client.open(node, libc::O_ACCMODE).err(), Some(Errno::EINVAL));
    // A handle of one node is none of another's.
    fs::write(client.host("g"), "").unwrap();
    let other = client.walk("g").unwrap();
    assert_eq!(client.read(other, reader, 0, 1), Err(Errno::EBADF));
    client.open(node, libc::O_RDWR | libc::O_TRUNC).unwrap();
    assert_eq!(fs::read(client.host("f")).unwrap(), b"");
    assert_eq!(client.open(ROOT_ID, libc::O_RDONLY).err(), Some(Errno::EISDIR));
    assert_eq!(client.opendir(node).err(), Some(Errno::ENOTDIR));
}

#[test]
fn a_file_that_is_open_outlives_its_name() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    client.unlink(ROOT_ID, "f").unwrap();
    assert_eq!(client.write(node, fh, 0, b"still here"), Ok(10));
    let with_handle = GetattrIn { flags: 1, fh, ..GetattrIn::default() };
    let attr: crate::virtio::fs::abi::AttrOut = client.ask(opcode::GETATTR, node, &bytes(&with_handle)).unwrap();
    assert_eq!((attr.attr.size, attr.attr.nlink), (10, 0));
    // Without the handle too: a program may stand in a directory that is gone, or hold a file with O_PATH.
    assert_eq!(client.getattr(node).unwrap().attr.nlink, 0);
    client.setattr(node, &SetattrIn { valid: fattr::SIZE, size: 5, ..SetattrIn::default() }).unwrap();
    assert_eq!(client.read(node, fh, 0, 100), Ok(b"still".to_vec()));
    client.create(ROOT_ID, "f", RDWR | libc::O_EXCL, 0o644).unwrap();
}

#[test]
fn a_file_without_a_name_can_be_given_one() {
    let mut client = Client::new();
    let create = CreateIn { flags: RDWR as u32, mode: 0o600, ..CreateIn::default() };
    let answer = match client.bytes(opcode::TMPFILE, ROOT_ID, &[bytes(&create), named("#1")].concat()) {
        Err(Errno::EOPNOTSUPP) => return println!("skipped: this file system has no O_TMPFILE"),
        answer => answer.unwrap(),
    };
    let mut rest = answer.as_slice();
    let (entry, opened) = (EntryOut::take(&mut rest).unwrap(), OpenOut::take(&mut rest).unwrap());
    assert_eq!(entry.attr.nlink, 0);
    client.write(entry.nodeid, opened.fh, 0, b"x").unwrap();
    let link = [bytes(&LinkIn { oldnodeid: entry.nodeid }), named("name")].concat();
    let linked: EntryOut = client.ask(opcode::LINK, ROOT_ID, &link).unwrap();
    assert_eq!((linked.nodeid, linked.attr.nlink), (entry.nodeid, 1));
    assert_eq!(fs::read(client.host("name")).unwrap(), b"x");
}

#[test]
fn creating_is_exclusive_where_that_is_asked_for() {
    let mut client = Client::new();
    fs::write(client.host("f"), "old").unwrap();
    assert_eq!(client.create(ROOT_ID, "f", RDWR | libc::O_EXCL, 0o644).err(), Some(Errno::EEXIST));
    // The host has made it between the guest's lookup and its wish.
    let (entry, fh) = client.create(ROOT_ID, "f", RDWR, 0o644).unwrap();
    assert_eq!(client.read(entry.nodeid, fh, 0, 10), Ok(b"old".to_vec()));
    client.create(ROOT_ID, "f", RDWR | libc::O_TRUNC, 0o644).unwrap();
    assert_eq!(fs::read(client.host("f")).unwrap(), b"");
    fs::create_dir(client.host("d")).unwrap();
    assert_eq!(client.create(ROOT_ID, "d", RDWR, 0o644).err(), Some(Errno::EISDIR));
}

#[test]
fn sizes_times_modes_are_set_alone_and_together() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    let sized = SetattrIn { valid: fattr::SIZE | fattr::FH, fh, size: 12345, ..SetattrIn::default() };
    assert_eq!(client.setattr(node, &sized).unwrap().attr.size, 12345);
    let moded = SetattrIn { valid: fattr::MODE, mode: 0o4711, ..SetattrIn::default() };
    assert_eq!(client.setattr(node, &moded).unwrap().attr.mode, libc::S_IFREG | 0o4711);
    let timed = SetattrIn { valid: fattr::MTIME, mtime: 1_000_000_000, mtimensec: 7, ..SetattrIn::default() };
    let before = client.getattr(node).unwrap().attr;
    let after = client.setattr(node, &timed).unwrap().attr;
    assert_eq!((after.mtime, after.mtimensec), (1_000_000_000, 7));
    assert_eq!((after.atime, after.atimensec), (before.atime, before.atimensec));
    let now = SetattrIn { valid: fattr::ATIME | fattr::ATIME_NOW, ..SetattrIn::default() };
    let now_set = client.setattr(node, &now).unwrap().attr;
    assert!(now_set.atime >= before.atime && now_set.mtime == 1_000_000_000);
    // A negative time is one before 1970.
    let early = SetattrIn { valid: fattr::MTIME, mtime: (-5_i64) as u64, ..SetattrIn::default() };
    client.setattr(node, &early).unwrap();
    assert_eq!(fs::metadata(client.host("f")).unwrap().mtime(), -5);
    let huge = SetattrIn { valid: fattr::SIZE, size: u64::MAX, ..SetattrIn::default() };
    assert_eq!(client.setattr(node, &huge).err(), Some(Errno::EFBIG));
    let directory = SetattrIn { valid: fattr::SIZE, ..SetattrIn::default() };
    assert_eq!(client.setattr(ROOT_ID, &directory).err(), Some(Errno::EISDIR));
}

#[test]
fn a_symbolic_link_has_times_of_its_own() {
    let mut client = Client::new();
    std::os::unix::fs::symlink("nowhere", client.host("l")).unwrap();
    let node = client.walk("l").unwrap();
    let timed = SetattrIn { valid: fattr::MTIME, mtime: 77, ..SetattrIn::default() };
    assert_eq!(client.setattr(node, &timed).unwrap().attr.mtime, 77);
    assert_eq!(fs::symlink_metadata(client.host("l")).unwrap().mtime(), 77);
    let moded = SetattrIn { valid: fattr::MODE, mode: 0o600, ..SetattrIn::default() };
    assert_eq!(client.setattr(node, &moded).err(), Some(Errno::EOPNOTSUPP));
}

#[test]
fn holes_are_made_and_found_and_ranges_copied() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    client.write(node, fh, 0, &vec![1; 1 << 18]).unwrap();
    let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    let punch = FallocateIn { fh, offset: 1 << 16, length: 1 << 16, mode, ..FallocateIn::default() };
    match client.order(opcode::FALLOCATE, node, &bytes(&punch)) {
        Err(Errno::EOPNOTSUPP) => return println!("skipped: this file system punches no holes"),
        result => result.unwrap(),
    }
    let seek = |client: &mut Client, offset, whence: i32| -> Answer<u64> {
        let seek = LseekIn { fh, offset, whence: whence as u32, ..LseekIn::default() };
        client.ask(opcode::LSEEK, node, &bytes(&seek)).map(|out: LseekOut| out.offset)
    };
    assert_eq!(seek(&mut client, 0, libc::SEEK_HOLE), Ok(1 << 16));
    assert_eq!(seek(&mut client, 1 << 16, libc::SEEK_DATA), Ok(1 << 17));
    assert_eq!(seek(&mut client, 1 << 30, libc::SEEK_DATA), Err(Errno::ENXIO));
    assert_eq!(seek(&mut client, 0, libc::SEEK_END), Err(Errno::EINVAL));
    let grow = FallocateIn { fh, offset: 0, length: 1 << 19, ..FallocateIn::default() };
    client.order(opcode::FALLOCATE, node, &bytes(&grow)).unwrap();
    assert_eq!(fs::metadata(client.host("f")).unwrap().len(), 1 << 19);
    let (copy, to) = client.create(ROOT_ID, "copy", RDWR, 0o644).unwrap();
    let range =
        CopyFileRangeIn { fh_in: fh, off_in: 100, nodeid_out: copy.nodeid, fh_out: to, off_out: 10, len: 50, flags: 0 };
    let copied: WriteOut = client.ask(opcode::COPY_FILE_RANGE, node, &bytes(&range)).unwrap();
    assert_eq!((copied.size, fs::read(client.host("copy")).unwrap()), (50, [vec![0; 10], vec![1; 50]].concat()));
}

#[test]
fn the_cache_is_kept_only_for_a_version_that_has_not_changed() {
    let mut client = Client::new();
    fs::write(client.host("f"), "abc").unwrap();
    let node = client.walk("f").unwrap();
    let keeps = |client: &mut Client| client.open(node, libc::O_RDONLY).unwrap().open_flags & FOPEN_KEEP_CACHE != 0;
    // Too young: a change within the same tick of the clock would look the same.
    assert!(!keeps(&mut client) && !keeps(&mut client));
    let age = |client: &Client| {
        let file = fs::File::options().write(true).open(client.host("f")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    };
    age(&client);
    // Setting a time changes the time of change, so wait until that is old as well.
    std::thread::sleep(Duration::from_millis(2100));
    assert!(!keeps(&mut client));
    assert!(keeps(&mut client));
    fs::write(client.host("f"), "xyz").unwrap();
    assert!(!keeps(&mut client) && !keeps(&mut client));
}

#[test]
fn extended_attributes_are_the_hosts() {
    let mut client = Client::new();
    fs::write(client.host("f"), "").unwrap();
    let node = client.walk("f").unwrap();
    match client.setxattr(node, "user.name", b"value", 0) {
        Err(Errno::EOPNOTSUPP) => return println!("skipped: this file system has no extended attributes"),
        result => result.unwrap(),
    }
    assert_eq!(client.getxattr(node, "user.name", 0).unwrap()[..4], [5, 0, 0, 0]);
    assert_eq!(client.getxattr(node, "user.name", 100), Ok(b"value".to_vec()));
    assert_eq!(client.getxattr(node, "user.name", 3), Err(Errno::ERANGE));
    assert_eq!(client.getxattr(node, "user.other", 100), Err(Errno::ENODATA));
    assert_eq!(client.getxattr(node, "nonsense", 100), Err(Errno::EOPNOTSUPP));
    let list = |client: &mut Client, size| {
        client.bytes(opcode::LISTXATTR, node, &bytes(&GetxattrIn { size, ..GetxattrIn::default() }))
    };
    assert_eq!(list(&mut client, 1000), Ok(b"user.name\0".to_vec()));
    assert_eq!(list(&mut client, 0).unwrap()[..4], [10, 0, 0, 0]);
    client.order(opcode::REMOVEXATTR, node, &named("user.name")).unwrap();
    assert_eq!(list(&mut client, 1000), Ok(Vec::new()));
    // A size that is not the value's.
    let lie = [bytes(&[100_u32, 0, 0, 0]), named("user.x"), b"short".to_vec()].concat();
    assert_eq!(client.order(opcode::SETXATTR, node, &lie), Err(Errno::EINVAL));
    // Of a symbolic link itself, not of what it leads to.
    std::os::unix::fs::symlink("f", client.host("l")).unwrap();
    let link = client.walk("l").unwrap();
    assert_eq!(client.setxattr(link, "user.name", b"value", 0), Err(Errno::EPERM));
    assert_eq!(client.getxattr(node, "user.name", 100), Err(Errno::ENODATA));
}

#[test]
fn set_user_id_goes_when_one_without_the_right_writes() {
    if !super::is_root("set_user_id_goes_when_one_without_the_right_writes") {
        return;
    }
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", RDWR, 0o755).unwrap();
    let node = entry.nodeid;
    let arm = |client: &Client| fs::set_permissions(client.host("f"), fs::Permissions::from_mode(0o6755)).unwrap();
    let mode = |client: &Client| fs::metadata(client.host("f")).unwrap().mode() & 0o7777;
    let write = WriteIn { fh, size: 1, ..WriteIn::default() };
    arm(&client);
    client.write_with(node, &write, b"x").unwrap();
    assert_eq!(mode(&client), 0o6755, "root may write");
    client.write_with(node, &WriteIn { write_flags: WRITE_KILL_SUIDGID, ..write }, b"x").unwrap();
    assert_eq!(mode(&client), 0o755);
    arm(&client);
    let valid = fattr::SIZE | fattr::KILL_SUIDGID;
    client.setattr(node, &SetattrIn { valid, size: 1, ..SetattrIn::default() }).unwrap();
    assert_eq!(mode(&client), 0o755);
    arm(&client);
    let kill = crate::virtio::fs::abi::OpenIn { flags: (RDWR | libc::O_TRUNC) as u32, open_flags: 1 };
    client.ask::<OpenOut>(opcode::OPEN, node, &bytes(&kill)).unwrap();
    assert_eq!(mode(&client), 0o755);
    arm(&client);
    client.setattr(node, &SetattrIn { valid: fattr::UID, uid: 5, ..SetattrIn::default() }).unwrap();
    assert_eq!(mode(&client), 0o755);
    arm(&client);
    client.user = 1000;
    client.order(opcode::FALLOCATE, node, &bytes(&FallocateIn { fh, length: 10, ..FallocateIn::default() })).unwrap();
    assert_eq!(mode(&client), 0o755);
}
