//! A share is saved and restored with what the guest knows, and refuses while it cannot be.

use std::fs;

use nix::errno::Errno;

use super::client::{Client, path, share};
use crate::virtio::fs::abi::{LkIn, ROOT_ID, opcode};
use crate::virtio::fs::share::Root;

fn restored(client: Client, state: &[u8]) -> Client {
    let share = share(Root::Directory(path(&client.host(""))));
    let mut client = client.reconnected(share);
    client.server.restore(state).unwrap();
    client
}

#[test]
fn the_guest_goes_on_with_the_nodes_that_it_knew() {
    let mut client = Client::new();
    fs::create_dir_all(client.host("a/b")).unwrap();
    for name in ["a/b/f", "gone", "replaced"] {
        fs::write(client.host(name), name).unwrap();
    }
    let nodes = ["a/b/f", "gone", "replaced"].map(|path| client.walk(path).unwrap());
    let state = client.server.save().unwrap();
    fs::remove_file(client.host("gone")).unwrap();
    fs::remove_file(client.host("replaced")).unwrap();
    fs::write(client.host("replaced"), "by another").unwrap();
    let mut client = restored(client, &state);
    let fh = client.open(nodes[0], libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(nodes[0], fh, 0, 100), Ok(b"a/b/f".to_vec()));
    assert_eq!(client.walk("a/b/f").unwrap(), nodes[0]);
    for node in &nodes[1..] {
        assert_eq!(client.getattr(*node).err(), Some(Errno::ESTALE));
    }
    let again = client.walk("replaced").unwrap();
    assert!(!nodes.contains(&again));
    // Told before and after: forgotten only when both are.
    client.forget(nodes[0], 1);
    assert!(client.getattr(nodes[0]).is_ok());
    client.forget(nodes[0], 1);
    assert_eq!(client.getattr(nodes[0]).err(), Some(Errno::ESTALE));
}

#[test]
fn what_is_open_locked_or_nameless_is_not_saved_and_the_error_says_so() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", libc::O_RDWR, 0o644).unwrap();
    let why = |client: &Client| client.server.save().unwrap_err().to_string();
    assert!(why(&client).contains("has 1 of its files open"), "{}", why(&client));
    let lock = LkIn { fh, owner: 1, end: 1, kind: libc::F_WRLCK as u32, ..LkIn::default() };
    client.order(opcode::SETLK, entry.nodeid, &super::client::bytes(&lock)).unwrap();
    client.release(entry.nodeid, fh).unwrap();
    client.server.save().unwrap();
    client.unlink(ROOT_ID, "f").unwrap();
    assert!(why(&client).contains("1 files whose names are gone"), "{}", why(&client));
    client.forget(entry.nodeid, 1);
    client.server.save().unwrap();
}

#[test]
fn a_state_that_is_none_is_refused() {
    let mut client = Client::new();
    fs::write(client.host("f"), "").unwrap();
    client.walk("f").unwrap();
    let state = client.server.save().unwrap();
    let at = state.windows(2).position(|bytes| bytes == [1, b'f']).unwrap();
    let mut bad = state.clone();
    bad[at + 1] = b'/';
    assert!(client.server.restore(&bad).unwrap_err().to_string().contains("is no file name"));
    assert!(client.server.restore(&state[..state.len() - 3]).is_err());
}
