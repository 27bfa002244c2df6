//! Names are found, made, changed and listed as on the host, and what the host changes is seen at once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::errno::Errno;

use super::client::{Client, Said, bytes, entries, named};
use crate::virtio::fs::abi::{
    Attr, EntryOut, KernelStatfs, LinkIn, MknodIn, ROOT_ID, ReadIn, RenameIn, Statx, StatxIn, StatxOut, Wire, opcode,
};

#[test]
fn a_name_leads_to_its_file_and_what_the_host_changes_is_seen_at_once() {
    let mut client = Client::new();
    assert_eq!(client.lookup(ROOT_ID, "a").err(), Some(Errno::ENOENT));
    fs::write(client.host("a"), "one").unwrap();
    let found = client.lookup(ROOT_ID, "a").unwrap();
    let metadata = fs::metadata(client.host("a")).unwrap();
    let Attr { ino, size, mode, nlink, .. } = found.attr;
    assert_eq!((ino, size, mode, nlink), (metadata.ino(), 3, metadata.mode(), 1));
    assert_eq!((found.entry_valid, found.entry_valid_nsec, found.attr_valid, found.attr_valid_nsec), (0, 0, 0, 0));
    fs::write(client.host("a"), "longer").unwrap();
    assert_eq!(client.getattr(found.nodeid).unwrap().attr.size, 6);
    fs::rename(client.host("a"), client.host("b")).unwrap();
    assert_eq!(client.lookup(ROOT_ID, "a").err(), Some(Errno::ENOENT));
    assert_eq!(client.lookup(ROOT_ID, "b").unwrap().nodeid, found.nodeid);
    fs::remove_file(client.host("b")).unwrap();
    fs::write(client.host("b"), "another").unwrap();
    assert_ne!(client.lookup(ROOT_ID, "b").unwrap().nodeid, found.nodeid);
}

#[test]
fn every_kind_of_file_is_made_and_is_what_it_was_made_as() {
    let mut client = Client::new();
    let directory = client.mkdir(ROOT_ID, "d", 0o777).unwrap();
    assert_eq!(directory.attr.mode, libc::S_IFDIR | 0o755);
    for (name, mode) in [("pipe", libc::S_IFIFO), ("socket", libc::S_IFSOCK), ("file", libc::S_IFREG)] {
        let node = MknodIn { mode: mode | 0o666, rdev: 0, umask: 0o022, ..MknodIn::default() };
        let made: EntryOut =
            client.ask(opcode::MKNOD, directory.nodeid, &[bytes(&node), named(name)].concat()).unwrap();
        assert_eq!(made.attr.mode, mode | 0o644, "{name}");
        assert_eq!(fs::symlink_metadata(client.host("d").join(name)).unwrap().mode(), mode | 0o644);
    }
    let link: EntryOut =
        client.ask(opcode::SYMLINK, directory.nodeid, &[named("link"), named("../some where")].concat()).unwrap();
    assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    assert_eq!(client.bytes(opcode::READLINK, link.nodeid, &[]), Ok(b"../some where".to_vec()));
    assert_eq!(client.bytes(opcode::READLINK, directory.nodeid, &[]), Err(Errno::EINVAL));
    let node = MknodIn { mode: libc::S_IFDIR | 0o777, ..MknodIn::default() };
    assert_eq!(client.order(opcode::MKNOD, ROOT_ID, &[bytes(&node), named("x")].concat()), Err(Errno::EINVAL));
    assert_eq!(client.mkdir(ROOT_ID, "d", 0o777).err(), Some(Errno::EEXIST));
}

#[test]
fn a_hard_link_is_the_same_node() {
    let mut client = Client::new();
    fs::write(client.host("a"), "").unwrap();
    let node = client.walk("a").unwrap();
    let link = |client: &mut Client, name: &str| {
        client.ask::<EntryOut>(opcode::LINK, ROOT_ID, &[bytes(&LinkIn { oldnodeid: node }), named(name)].concat())
    };
    let linked = link(&mut client, "b").unwrap();
    assert_eq!((linked.nodeid, linked.attr.nlink), (node, 2));
    assert_eq!(link(&mut client, "b").err(), Some(Errno::EEXIST));
    client.unlink(ROOT_ID, "a").unwrap();
    assert_eq!(client.getattr(node).unwrap().attr.nlink, 1);
    assert_eq!(client.lookup(ROOT_ID, "b").unwrap().nodeid, node);
}

#[test]
fn removing_says_what_the_host_says() {
    let mut client = Client::new();
    fs::create_dir_all(client.host("d/e")).unwrap();
    fs::write(client.host("f"), "").unwrap();
    assert_eq!(client.order(opcode::RMDIR, ROOT_ID, &named("d")), Err(Errno::ENOTEMPTY));
    assert_eq!(client.order(opcode::RMDIR, ROOT_ID, &named("f")), Err(Errno::ENOTDIR));
    assert_eq!(client.unlink(ROOT_ID, "d"), Err(Errno::EISDIR));
    assert_eq!(client.unlink(ROOT_ID, "missing"), Err(Errno::ENOENT));
    let d = client.walk("d").unwrap();
    assert_eq!(client.order(opcode::RMDIR, d, &named("e")), Ok(()));
    assert_eq!(client.order(opcode::RMDIR, ROOT_ID, &named("d")), Ok(()));
    // Somebody may still stand in it.
    assert_eq!(client.getattr(d).unwrap().attr.nlink, 0);
    assert_eq!(client.lookup(d, "e").err(), Some(Errno::ENOENT));
    assert_eq!(client.mkdir(d, "e", 0o777).err(), Some(Errno::ENOENT));
}

#[test]
fn renaming_replaces_exchanges_or_refuses() {
    let mut client = Client::new();
    for name in ["a", "b"] {
        fs::write(client.host(name), name).unwrap();
    }
    fs::create_dir(client.host("d")).unwrap();
    let (a, b, d) = (client.walk("a").unwrap(), client.walk("b").unwrap(), client.walk("d").unwrap());
    assert_eq!(client.rename((ROOT_ID, "a"), (ROOT_ID, "b"), libc::RENAME_NOREPLACE), Err(Errno::EEXIST));
    client.rename((ROOT_ID, "a"), (ROOT_ID, "b"), libc::RENAME_EXCHANGE).unwrap();
    assert_eq!((client.walk("a").unwrap(), client.walk("b").unwrap()), (b, a));
    client.rename((ROOT_ID, "b"), (d, "c"), 0).unwrap();
    assert_eq!(client.walk("d/c").unwrap(), a);
    let old = [bytes(&RenameIn { newdir: d }), named("a"), named("c")].concat();
    client.order(opcode::RENAME, ROOT_ID, &old).unwrap();
    assert_eq!(client.walk("d/c").unwrap(), b);
    // What was replaced is still there for whom it is open.
    assert_eq!(client.getattr(a).unwrap().attr.nlink, 0);
    assert_eq!(client.rename((ROOT_ID, "d"), (d, "d"), 0), Err(Errno::EINVAL));
    assert_eq!(client.rename((d, "c"), (ROOT_ID, "c"), 1 << 7), Err(Errno::EINVAL));
}

#[test]
fn a_whiteout_is_left_where_one_is_asked_for() {
    if !super::is_root("a_whiteout_is_left_where_one_is_asked_for") {
        return;
    }
    let mut client = Client::new();
    fs::write(client.host("a"), "").unwrap();
    client.rename((ROOT_ID, "a"), (ROOT_ID, "b"), libc::RENAME_WHITEOUT).unwrap();
    let left = client.lookup(ROOT_ID, "a").unwrap().attr;
    assert_eq!((left.mode & libc::S_IFMT, left.rdev), (libc::S_IFCHR, 0));
    let node = MknodIn { mode: libc::S_IFCHR | 0o600, rdev: 0x1234_5607, ..MknodIn::default() };
    let made: EntryOut = client.ask(opcode::MKNOD, ROOT_ID, &[bytes(&node), named("device")].concat()).unwrap();
    assert_eq!(made.attr.rdev, 0x1234_5607);
    let device = fs::symlink_metadata(client.host("device")).unwrap().rdev();
    assert_eq!((libc::major(device), libc::minor(device)), (0x456, 0x1_2307));
}

#[test]
fn a_directory_is_listed_once_each_in_pieces_and_from_anywhere() {
    let mut client = Client::new();
    let expected: BTreeSet<String> = (0..1000).map(|index| format!("file number {index}")).collect();
    for name in &expected {
        fs::write(client.host(name), "").unwrap();
    }
    let listed = client.list(ROOT_ID).unwrap();
    let names: BTreeSet<String> =
        listed.iter().map(|(name, _)| name.clone()).filter(|name| !name.starts_with('.')).collect();
    assert_eq!((listed.len(), &names), (1002, &expected));
    let root = client.getattr(ROOT_ID).unwrap().attr.ino;
    for dots in [".", ".."] {
        assert!(listed.contains(&(dots.to_owned(), root)), "the root's {dots} is the root");
    }
    // From the middle again, by a position that an answer gave; and from the beginning anew.
    let fh = client.opendir(ROOT_ID).unwrap();
    let at = |client: &mut Client, offset| {
        let read = ReadIn { fh, offset, size: 4096, ..ReadIn::default() };
        let answer = client.bytes(opcode::READDIR, ROOT_ID, &bytes(&read)).unwrap();
        let mut names = Vec::new();
        (entries(&answer, &mut names), names)
    };
    let (second, first_names) = at(&mut client, 0);
    let (third, second_names) = at(&mut client, second);
    at(&mut client, third);
    assert_eq!(at(&mut client, second).1, second_names);
    assert_eq!(at(&mut client, 0).1, first_names);
    fs::write(client.host("new"), "").unwrap();
    let again = client.list(ROOT_ID).unwrap();
    assert!(again.iter().any(|(name, _)| name == "new"));
}

#[test]
fn a_listing_with_attributes_tells_of_each_entry_once() {
    let mut client = Client::new();
    for index in 0..50 {
        fs::write(client.host(&format!("{index}")), vec![0; index]).unwrap();
    }
    let fh = client.opendir(ROOT_ID).unwrap();
    let (mut offset, mut seen) = (0, Vec::new());
    loop {
        let read = ReadIn { fh, offset, size: 1000, ..ReadIn::default() };
        let answer = client.bytes(opcode::READDIRPLUS, ROOT_ID, &bytes(&read)).unwrap();
        let mut rest = answer.as_slice();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let entry = EntryOut::take(&mut rest).unwrap();
            let length = 24 + u32::from_le_bytes(rest[16..20].try_into().unwrap()).next_multiple_of(8) as usize;
            let mut name = Vec::new();
            offset = entries(&rest[..length], &mut name);
            rest = &rest[length..];
            seen.push((name.remove(0).0, entry));
        }
    }
    assert_eq!(seen.len(), 52);
    for (name, entry) in seen {
        if name.starts_with('.') {
            assert_eq!(entry.nodeid, 0);
        } else {
            assert_eq!(entry.attr.size, name.parse::<u64>().unwrap());
            assert_eq!(client.lookup(ROOT_ID, &name).unwrap().nodeid, entry.nodeid);
            // Told twice, by the listing and by the lookup.
            client.forget(entry.nodeid, 1);
            assert!(client.getattr(entry.nodeid).is_ok());
            client.forget(entry.nodeid, 1);
            assert_eq!(client.getattr(entry.nodeid).err(), Some(Errno::ESTALE));
        }
    }
}

#[test]
fn many_are_forgotten_at_once() {
    let mut client = Client::new();
    let nodes: Vec<u64> =
        (0..10).map(|index| client.mkdir(ROOT_ID, &format!("{index}"), 0o777).unwrap().nodeid).collect();
    let batch: Vec<u8> = nodes.iter().flat_map(|node| bytes(&[*node, 1])).collect();
    assert_eq!(client.say(opcode::BATCH_FORGET, 0, &[bytes(&[10_u32, 0]), batch].concat()), Said::Nothing);
    assert!(nodes.iter().all(|node| client.getattr(*node).err() == Some(Errno::ESTALE)));
    client.forget(ROOT_ID, u64::MAX);
    assert!(client.getattr(ROOT_ID).is_ok());
}

#[test]
fn statx_and_statfs_are_the_hosts() {
    let mut client = Client::new();
    fs::write(client.host("a"), "abc").unwrap();
    symlink("a", client.host("l")).unwrap();
    for name in ["a", "l"] {
        let node = client.walk(name).unwrap();
        let answer: StatxOut = client.ask(opcode::STATX, node, &bytes(&StatxIn::default())).unwrap();
        let host = fs::symlink_metadata(client.host(name)).unwrap();
        let Statx { mode, size, ino, mtime, .. } = answer.stat;
        assert_eq!((u32::from(mode), size, ino), (host.mode(), host.size(), host.ino()));
        assert_eq!((mtime.seconds, i64::from(mtime.nanoseconds)), (host.mtime(), host.mtime_nsec()));
        if let Ok(created) = host.created() {
            let since = created.duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(answer.stat.btime.seconds, since.as_secs() as i64);
        }
    }
    let answer: KernelStatfs = client.ask(opcode::STATFS, ROOT_ID, &[]).unwrap();
    let host = nix::sys::statfs::statfs(&client.host("a")).unwrap();
    assert_eq!((answer.blocks, answer.files, answer.namelen), (host.blocks(), host.files(), 255));
}
