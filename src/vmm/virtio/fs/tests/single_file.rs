//! A share of a single file is that file and nothing else of its directory.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use tempfile::TempDir;

use super::client::{Client, bytes, named, path, share};
use crate::virtio::fs::abi::{
    Attr, GetxattrIn, KernelStatfs, LinkIn, ROOT_ID, SetattrIn, StatxIn, StatxOut, fattr, opcode,
};
use crate::virtio::fs::share::{Access, Root, ShareError};
use crate::virtio::fs::{Server, Share};

fn single(name: &str) -> (TempDir, Share) {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "content").unwrap();
    fs::write(directory.path().join("neighbour"), "secret").unwrap();
    let root = Root::File { file: path(&directory.path().join("file")), name: CString::new(name).unwrap() };
    (directory, share(root))
}

fn connected(access: Access) -> Client {
    let (directory, mut share) = single("shown");
    share.access = access;
    let mut client = Client::unconnected(share, directory);
    client.init();
    client
}

#[test]
fn the_file_is_there_under_its_name_and_its_neighbours_are_not() {
    let mut client = connected(Access::ReadWrite);
    let entry = client.lookup(ROOT_ID, "shown").unwrap();
    let inode = fs::metadata(client.host("file")).unwrap().ino();
    assert_eq!(entry.attr.ino, inode);
    for name in ["file", "neighbour", "show", "shown2"] {
        assert_eq!(client.lookup(ROOT_ID, name).err(), Some(Errno::ENOENT), "{name}");
    }
    let names: Vec<(String, u64)> = client.list(ROOT_ID).unwrap();
    assert_eq!(names, [(".".to_owned(), 1), ("..".to_owned(), 1), ("shown".to_owned(), inode)]);
    let Attr { mode, nlink, uid, .. } = client.getattr(ROOT_ID).unwrap().attr;
    assert_eq!((mode, nlink, uid), (libc::S_IFDIR | 0o555, 2, 0));
    let statx: StatxOut = client.ask(opcode::STATX, ROOT_ID, &bytes(&StatxIn::default())).unwrap();
    assert_eq!(u32::from(statx.stat.mode), libc::S_IFDIR | 0o555);
    client.ask::<KernelStatfs>(opcode::STATFS, ROOT_ID, &[]).unwrap();
    let fh = client.open(entry.nodeid, libc::O_RDWR).unwrap().fh;
    assert_eq!(client.read(entry.nodeid, fh, 0, 100), Ok(b"content".to_vec()));
    client.write(entry.nodeid, fh, 0, b"CON").unwrap();
    assert_eq!(fs::read(client.host("file")).unwrap(), b"CONtent");
    client.setattr(entry.nodeid, &SetattrIn { valid: fattr::MODE, mode: 0o600, ..SetattrIn::default() }).unwrap();
    // Forgotten, it can be found again.
    client.forget(entry.nodeid, 1);
    assert!(client.lookup(ROOT_ID, "shown").is_ok());
}

#[test]
fn its_directory_cannot_be_changed() {
    let mut client = connected(Access::ReadWrite);
    let node = client.walk("shown").unwrap();
    assert_eq!(client.create(ROOT_ID, "new", libc::O_RDWR, 0o644).err(), Some(Errno::EPERM));
    assert_eq!(client.mkdir(ROOT_ID, "new", 0o755).err(), Some(Errno::EPERM));
    assert_eq!(
        client.order(opcode::LINK, ROOT_ID, &[bytes(&LinkIn { oldnodeid: node }), named("new")].concat()),
        Err(Errno::EPERM)
    );
    assert_eq!(client.unlink(ROOT_ID, "shown"), Err(Errno::EBUSY));
    assert_eq!(client.rename((ROOT_ID, "shown"), (ROOT_ID, "new"), 0), Err(Errno::EBUSY));
    let mode = SetattrIn { valid: fattr::MODE, mode: 0o777, ..SetattrIn::default() };
    assert_eq!(client.setattr(ROOT_ID, &mode).err(), Some(Errno::EPERM));
    assert_eq!(client.setxattr(ROOT_ID, "user.a", b"", 0), Err(Errno::EPERM));
    assert_eq!(client.getxattr(ROOT_ID, "user.a", 10), Err(Errno::ENODATA));
    let list = bytes(&GetxattrIn { size: 10, ..GetxattrIn::default() });
    assert_eq!(client.bytes(opcode::LISTXATTR, ROOT_ID, &list), Ok(Vec::new()));
    assert_eq!(client.open(ROOT_ID, libc::O_RDONLY).err(), Some(Errno::EPERM));
    assert_eq!(fs::read_dir(client.host("")).unwrap().count(), 2);
}

#[test]
fn it_stays_the_file_that_it_was_when_the_host_replaces_it() {
    let mut client = connected(Access::ReadWrite);
    fs::write(client.host("next"), "replacement").unwrap();
    fs::rename(client.host("next"), client.host("file")).unwrap();
    let node = client.walk("shown").unwrap();
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(node, fh, 0, 100), Ok(b"content".to_vec()));
}

#[test]
fn a_read_only_file_is_not_written_to() {
    let mut client = connected(Access::ReadOnly);
    let node = client.walk("shown").unwrap();
    assert_eq!(client.open(node, libc::O_RDWR).err(), Some(Errno::EROFS));
    let fh = client.open(node, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.write(node, fh, 0, b"x"), Err(Errno::EROFS));
    let size = SetattrIn { valid: fattr::SIZE, ..SetattrIn::default() };
    assert_eq!(client.setattr(node, &size).err(), Some(Errno::EROFS));
    assert_eq!(fs::read(client.host("file")).unwrap(), b"content");
}

#[test]
fn a_share_that_is_none_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Share)| {
        let (_directory, mut share) = single("shown");
        change(&mut share);
        Server::new(share).err()
    };
    assert!(matches!(refused(&|share| share.tag = String::new()), Some(ShareError::Tag(_))));
    assert!(matches!(refused(&|share| share.tag = "x".repeat(37)), Some(ShareError::Tag(_))));
    assert!(matches!(refused(&|share| share.limits.nodes = 1), Some(ShareError::Limits { .. })));
    for name in ["", "..", "a/b"] {
        let bad = single(name).1;
        assert!(matches!(Server::new(bad).err(), Some(ShareError::Name { .. })), "{name:?}");
    }
    let directory = TempDir::new().unwrap();
    let wrong = Root::File { file: path(directory.path()), name: c"x".to_owned() };
    assert!(matches!(Server::new(share(wrong)).err(), Some(ShareError::Root { .. })));
    let (files, _) = single("x");
    let wrong = Root::Directory(path(&files.path().join("file")));
    assert!(matches!(Server::new(share(wrong)).err(), Some(ShareError::Root { .. })));
    let not_proc = refused(&|share| share.proc = path(directory.path()));
    let text = not_proc.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("/proc/self/fd"), "{text:?}");
}
