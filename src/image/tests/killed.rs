//! A pull that is killed at any moment leaves a store that is right, and that the next pull completes.

mod fixture;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fixture::double::{Double, Reply, honest};
use fixture::{Made, MemorySink, Place, registries, request};
use sbx_image::{Digest, Silent, Store, pull};

const PLACE: &str = "SBX_TEST_KILLED_PLACE";
const IMAGE: &str = "SBX_TEST_KILLED_IMAGE";

/// Not a test of its own: what the test below runs in a process that it kills.
#[test]
fn the_pull_that_is_killed() {
    let (Some(place), Some(image)) = (std::env::var_os(PLACE), std::env::var_os(IMAGE)) else { return };
    let place = PathBuf::from(place);
    let store = Store::open(&place).unwrap();
    pull(&store, &request(image.to_str().unwrap()), &registries(&place), &MemorySink::default(), &Silent).unwrap();
}

#[test]
fn a_store_survives_kills_at_any_moment() {
    let made = Made::new(61, 4, 200_000);
    let served = made.clone();
    let double = Double::new(move |asked| match asked.path.contains("/blobs/") {
        true => Reply { drip: Some((16 << 10, Duration::from_millis(2))), ..honest(&served, asked) },
        false => honest(&served, asked),
    });
    let place = Place::new();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_pull_that_is_killed"])
            .env(PLACE, place.dir.path())
            .env(IMAGE, double.image())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + round * 9));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(place.store.verify().unwrap(), [], "round {round}");
        for image in place.store.list().unwrap() {
            assert_eq!((image.id, image.tags.len()), (made.id(), 1));
        }
    }
    pull(&place.store, &request(&double.image()), &registries(place.dir.path()), &place.sink, &Silent).unwrap();
    assert_eq!(place.store.verify().unwrap(), []);
    assert!(made.tars.iter().all(|tar| place.sink.layers.lock().unwrap()[&Digest::of(tar)] == *tar));
    place.store.collect_garbage(&[], &mut |_| {}).unwrap();
    assert_eq!(place.files("blobs/sha256").len(), 6);
    assert_eq!((place.files("ingest"), place.files("leases")), (vec![], vec![]));
}
