//! However much the guest takes hold of, the server holds no more than it may, and what it may goes to who uses it.

use std::fs;

use nix::errno::Errno;

use super::client::Client;
use crate::virtio::fs::abi::{LkIn, ROOT_ID, opcode};
use crate::virtio::fs::share::{Limits, Share};

fn small(share: &mut Share) {
    share.limits = Limits { descriptors: 32, nodes: 2000 };
}

/// Uses 64 files, so that all others give up their descriptors.
fn give_up(client: &mut Client) {
    for file in 0..64 {
        client.walk(&format!("{file}")).unwrap();
    }
}

/// Descriptors of this process that lead into a client's directory.
fn held(client: &Client) -> usize {
    let inside = |entry: std::io::Result<fs::DirEntry>| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        target.starts_with(client.host("")).then_some(())
    };
    fs::read_dir("/proc/self/fd").unwrap().filter_map(inside).count()
}

#[test]
fn nodes_give_up_their_descriptors_and_get_them_back() {
    let mut client = Client::with(|path, share| {
        small(share);
        for directory in 0..20 {
            fs::create_dir_all(path.join(format!("{directory}/deep/er"))).unwrap();
            for file in 0..20 {
                fs::write(path.join(format!("{directory}/deep/er/{file}")), format!("{directory} {file}")).unwrap();
            }
        }
    });
    let mut nodes = Vec::new();
    for directory in 0..20 {
        for file in 0..20 {
            nodes.push((client.walk(&format!("{directory}/deep/er/{file}")).unwrap(), format!("{directory} {file}")));
        }
    }
    assert!(held(&client) <= 32, "{} descriptors", held(&client));
    for (node, content) in &nodes {
        let fh = client.open(*node, libc::O_RDONLY).unwrap().fh;
        assert_eq!(client.read(*node, fh, 0, 100), Ok(content.clone().into_bytes()));
        client.release(*node, fh).unwrap();
    }
    assert!(held(&client) <= 32, "{} descriptors", held(&client));
}

#[test]
fn open_files_fill_the_share_and_closing_them_empties_it() {
    let mut client = Client::with(|path, share| {
        small(share);
        (0..100).for_each(|file| fs::write(path.join(format!("{file}")), "x").unwrap());
    });
    let mut open = Vec::new();
    let full = loop {
        let node = client.walk(&format!("{}", open.len())).unwrap();
        match client.open(node, libc::O_RDONLY) {
            Ok(opened) => open.push((node, opened.fh)),
            Err(error) => break error,
        }
    };
    assert_eq!(full, Errno::ENFILE);
    assert!((20..32).contains(&open.len()), "{} open files", open.len());
    // What is open still works.
    assert_eq!(client.read(open[0].0, open[0].1, 0, 1), Ok(b"x".to_vec()));
    for (node, fh) in open {
        client.release(node, fh).unwrap();
    }
    let node = client.walk("99").unwrap();
    let fh = client.open(node, libc::O_RDWR).unwrap().fh;
    // Owners of locks count as well.
    let lock = |owner| LkIn { fh, owner, start: owner, end: owner, kind: libc::F_WRLCK as u32, ..LkIn::default() };
    let answers: Vec<_> =
        (0..100).map(|owner| client.order(opcode::SETLK, node, &super::client::bytes(&lock(owner)))).collect();
    assert!(answers.contains(&Ok(())) && answers.contains(&Err(Errno::ENFILE)));
    assert!(held(&client) <= 32);
    client.server.reset();
    assert_eq!(held(&client), 1, "only the root is held when the guest is gone");
}

#[test]
fn a_guest_knows_no_more_files_than_it_may() {
    let mut client = Client::with(|path, share| {
        small(share);
        (0..2100).for_each(|file| fs::write(path.join(format!("{file}")), "").unwrap());
    });
    let mut known = Vec::new();
    let full = loop {
        match client.lookup(ROOT_ID, &format!("{}", known.len())) {
            Ok(entry) => known.push(entry.nodeid),
            Err(error) => break error,
        }
    };
    assert_eq!((full, known.len()), (Errno::ENFILE, 1999));
    client.forget(known[0], 1);
    client.lookup(ROOT_ID, "2099").unwrap();
}

/// What was given up is found again only if it is the same file: else the guest is told that its node is stale, and looks
/// the name up anew.
#[test]
fn a_node_is_never_another_file() {
    let mut client = Client::with(|path, share| {
        small(share);
        (0..64).for_each(|file| fs::write(path.join(format!("{file}")), "filler").unwrap());
        fs::write(path.join("f"), "first").unwrap();
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/g"), "inside").unwrap();
    });
    let (f, g) = (client.walk("f").unwrap(), client.walk("d/g").unwrap());
    give_up(&mut client);
    // The same inode number, most likely, but not the same file.
    fs::remove_file(client.host("f")).unwrap();
    fs::write(client.host("f"), "second").unwrap();
    assert_eq!(client.open(f, libc::O_RDONLY).err(), Some(Errno::ESTALE));
    let again = client.lookup(ROOT_ID, "f").unwrap();
    assert_ne!(again.nodeid, f);
    let fh = client.open(again.nodeid, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(again.nodeid, fh, 0, 100), Ok(b"second".to_vec()));
    assert_eq!(client.getattr(f).err(), Some(Errno::ESTALE));
    give_up(&mut client);
    fs::rename(client.host("d"), client.host("e")).unwrap();
    assert_eq!(client.getattr(g).err(), Some(Errno::ESTALE));
    assert_eq!(client.walk("e/g").unwrap(), g);
    assert!(client.getattr(g).is_ok());
    // What the guest itself renames it can still reach.
    client.rename((ROOT_ID, "e"), (ROOT_ID, "h"), 0).unwrap();
    give_up(&mut client);
    assert!(client.getattr(g).is_ok());
}

#[test]
fn what_lost_its_name_is_not_given_up() {
    let mut client = Client::with(|path, share| {
        small(share);
        (0..64).for_each(|file| fs::write(path.join(format!("{file}")), "filler").unwrap());
    });
    let (entry, fh) = client.create(ROOT_ID, "f", libc::O_RDWR, 0o644).unwrap();
    client.release(entry.nodeid, fh).unwrap();
    give_up(&mut client);
    client.unlink(ROOT_ID, "f").unwrap();
    give_up(&mut client);
    assert_eq!(client.getattr(entry.nodeid).unwrap().attr.nlink, 0);
}
