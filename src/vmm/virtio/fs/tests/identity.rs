//! What the guest makes belongs to who made it there, with the permissions that the host would have given.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;

use super::client::{Client, bytes, named};
use super::is_root;
use crate::virtio::fs::abi::{EntryOut, MkdirIn, ROOT_ID, SETXATTR_ACL_KILL_SGID, SetattrIn, fattr, opcode};

fn owner(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn what_is_made_belongs_to_the_caller_in_the_guest() {
    if !is_root("what_is_made_belongs_to_the_caller_in_the_guest") {
        return;
    }
    let mut client = Client::new();
    // The directory is root's and closed to others: the guest's kernel has allowed it, for a caller with CAP_DAC_OVERRIDE.
    fs::set_permissions(client.host(""), fs::Permissions::from_mode(0o700)).unwrap();
    for (user, group) in [(1000, 1001), (0, 0), (4_000_000_000, 7)] {
        (client.user, client.group) = (user, group);
        let name = |what: &str| format!("{what}-{user}");
        client.create(ROOT_ID, &name("f"), libc::O_RDWR, 0o666).unwrap();
        client.mkdir(ROOT_ID, &name("d"), 0o777).unwrap();
        let link = [named(&name("l")), named("target")].concat();
        client.ask::<EntryOut>(opcode::SYMLINK, ROOT_ID, &link).unwrap();
        assert_eq!(owner(&client.host(&name("f"))), (user, group, 0o644));
        assert_eq!(owner(&client.host(&name("d"))), (user, group, 0o755));
        assert_eq!(owner(&client.host(&name("l"))), (user, group, 0o777));
    }
    (client.user, client.group) = (u32::MAX, 0);
    assert_eq!(client.create(ROOT_ID, "nobody", libc::O_RDWR, 0o666).err(), Some(Errno::EPERM));
    assert!(!client.host("nobody").exists());
}

#[test]
fn a_set_group_id_directory_hands_its_group_on() {
    if !is_root("a_set_group_id_directory_hands_its_group_on") {
        return;
    }
    let mut client = Client::new();
    fs::create_dir(client.host("d")).unwrap();
    chown(client.host("d"), Some(0), Some(500)).unwrap();
    fs::set_permissions(client.host("d"), fs::Permissions::from_mode(0o2777)).unwrap();
    let d = client.walk("d").unwrap();
    (client.user, client.group) = (1000, 1000);
    client.create(d, "f", libc::O_RDWR, 0o664).unwrap();
    client.mkdir(d, "e", 0o777).unwrap();
    assert_eq!(owner(&client.host("d/f")), (1000, 500, 0o644));
    assert_eq!(owner(&client.host("d/e")), (1000, 500, 0o2755));
}

#[test]
fn owners_and_modes_are_changed_as_the_guest_has_allowed() {
    if !is_root("owners_and_modes_are_changed_as_the_guest_has_allowed") {
        return;
    }
    let mut client = Client::new();
    let (entry, _) = client.create(ROOT_ID, "f", libc::O_RDWR, 0o644).unwrap();
    client.user = 1234;
    let change = SetattrIn {
        valid: fattr::UID | fattr::GID | fattr::MODE,
        uid: 12,
        gid: 34,
        mode: 0o6711,
        ..SetattrIn::default()
    };
    let attr = client.setattr(entry.nodeid, &change).unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.mode & 0o7777), (12, 34, 0o6711));
    client.setattr(entry.nodeid, &SetattrIn { valid: fattr::GID, gid: 56, ..SetattrIn::default() }).unwrap();
    assert_eq!(owner(&client.host("f")), (12, 56, 0o711));
}

/// A default access control list takes the umask's place; where there is none the umask counts.
#[test]
fn the_umask_gives_way_to_a_default_access_control_list() {
    let mut client = Client::new();
    for name in ["plain", "listed"] {
        fs::create_dir(client.host(name)).unwrap();
    }
    let set = Command::new("setfacl").args(["-d", "-m", "u::rwx,g::rwx,o::rwx"]).arg(client.host("listed")).status();
    if !set.is_ok_and(|status| status.success()) {
        return println!("skipped: no setfacl here, or no access control lists on this file system");
    }
    for (name, mode) in [("plain", 0o700), ("listed", 0o777)] {
        let directory = client.walk(name).unwrap();
        let make = [bytes(&MkdirIn { mode: 0o777, umask: 0o077 }), named("made")].concat();
        let made: EntryOut = client.ask(opcode::MKDIR, directory, &make).unwrap();
        assert_eq!(made.attr.mode & 0o777, mode, "{name}");
    }
    let listed = client.walk("listed").unwrap();
    assert!(!client.getxattr(listed, "system.posix_acl_default", 1000).unwrap().is_empty());
    assert_eq!(client.getxattr(listed, "system.posix_acl_access", 1000), Err(Errno::ENODATA));
}

#[test]
fn an_access_control_list_set_by_a_stranger_to_the_group_takes_set_group_id_away() {
    if !is_root("an_access_control_list_set_by_a_stranger_to_the_group_takes_set_group_id_away") {
        return;
    }
    let mut client = Client::new();
    let (entry, _) = client.create(ROOT_ID, "f", libc::O_RDWR, 0o755).unwrap();
    fs::set_permissions(client.host("f"), fs::Permissions::from_mode(0o2755)).unwrap();
    // Version 2: owner, a user, group, mask, others (linux/posix_acl_xattr.h).
    let list: Vec<u8> =
        [(1_u16, 7_u16, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)]
            .iter()
            .fold(vec![2, 0, 0, 0], |mut list, (tag, permissions, id)| {
                list.extend_from_slice(&tag.to_le_bytes());
                list.extend_from_slice(&permissions.to_le_bytes());
                list.extend_from_slice(&id.to_le_bytes());
                list
            });
    let name = "system.posix_acl_access";
    match client.setxattr(entry.nodeid, name, &list, 0) {
        Err(Errno::EOPNOTSUPP) => return println!("skipped: no access control lists on this file system"),
        result => result.unwrap(),
    }
    assert_eq!(owner(&client.host("f")).2, 0o2775);
    (client.user, client.group) = (1000, 1000);
    client.setxattr(entry.nodeid, name, &list, SETXATTR_ACL_KILL_SGID).unwrap();
    assert_eq!(owner(&client.host("f")).2, 0o775);
}
