//! Images of layers on disk.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use sbx_rootfs::{Limits, write_layer};

use crate::archive::{file, tar};
use crate::scratch::{Scratch, check_image};

#[test]
fn a_layer_is_there_once_it_is_committed() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let (id, other) = (scratch.new_id(), scratch.new_id());
    let writer = store.writer().unwrap();
    let stats =
        write_layer(&mut Cursor::new(tar(&[file("f", &[1; 10_000])])), writer.image(), &Limits::default()).unwrap();
    assert!(!store.has(&id).unwrap());
    assert_eq!(store.list().unwrap(), []);
    let path = writer.commit(&id).unwrap();
    assert_eq!(path, store.path(&id));
    check_image(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().len(), stats.image_bytes);
    assert!(store.has(&id).unwrap() && !store.has(&other).unwrap());
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&id));
    assert!(store.size(&id).unwrap() >= 12_288);
    assert!(store.remove(&id).unwrap());
    assert!(!store.remove(&id).unwrap());
    let error = store.size(&id).unwrap_err();
    assert!(error.to_string().contains(id.hex()), "{error}");
}

#[test]
fn two_may_convert_the_same_layer_at_once() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let id = scratch.new_id();
    let writers: Vec<_> = (0..3).map(|_| store.writer().unwrap()).collect();
    for writer in &writers {
        write_layer(&mut Cursor::new(tar(&[file("f", b"x")])), writer.image(), &Limits::default()).unwrap();
    }
    for writer in writers {
        check_image(&writer.commit(&id).unwrap());
    }
    assert_eq!(fs::read_dir(scratch.path("lib/layers")).unwrap().count(), 1);
}

#[test]
fn unfinished_layers_vanish_or_are_reaped() {
    let scratch = Scratch::new();
    let store = scratch.store();
    drop(store.writer().unwrap());
    assert_eq!(fs::read_dir(scratch.path("lib/layers")).unwrap().count(), 0);
    // As a killed process leaves it on a file system without O_TMPFILE; and one that is being written.
    let dead = scratch.path("lib/layers/1-0.tmp");
    fs::write(&dead, b"half").unwrap();
    let alive = scratch.path("lib/layers/2-0.tmp");
    let lock = nix::fcntl::Flock::lock(fs::File::create(&alive).unwrap(), nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert_eq!(store.reap().unwrap(), 1);
    assert!(!dead.exists() && alive.exists());
    drop(lock);
    assert_eq!(store.reap().unwrap(), 1);
}
