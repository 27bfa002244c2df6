//! Volumes: rules, life, and who uses them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Prune, VolumeError, VolumeRequest, Volumes, owned, users, validate_name, validate_options};
use crate::spec::{MountKind, SandboxSpec};
use crate::store::{Durability, Store};
use crate::testing;
use crate::timestamp::Timestamp;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn named(name: &str) -> VolumeRequest {
    VolumeRequest { name: name.into(), ..VolumeRequest::default() }
}

fn open() -> (tempfile::TempDir, Store, Volumes) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let volumes = Volumes::of(&store);
    (directory, store, volumes)
}

fn using(name: &str, volume: &str, anonymous: bool) -> SandboxSpec {
    let mut spec = testing::spec(name);
    let mut mount = testing::volume_mount(volume, "/data");
    mount.options.anonymous = anonymous;
    spec.mounts.push(mount);
    spec
}

#[test]
fn names_follow_docker() {
    for name in ["ab", "data-1", "A.b_c", &"f".repeat(64)] {
        assert!(validate_name(name).is_ok(), "{name}");
    }
    for (name, message) in [
        ("a", "volume name is too short, names should be at least two alphanumeric characters"),
        (
            "a/b",
            "\"a/b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (".ab", "includes invalid characters"),
        ("", "includes invalid characters"),
        (&"x".repeat(201), "too long"),
    ] {
        let error = validate_name(name).unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn options_follow_docker() {
    for pairs in [
        &[][..],
        &[("type", "tmpfs"), ("device", "tmpfs")],
        &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")],
        &[("type", "nfs"), ("device", ":/export"), ("o", "addr=192.0.2.1,rw")],
        &[("type", "none"), ("device", "/srv"), ("o", "bind")],
    ] {
        assert!(validate_options(&map(pairs)).is_ok(), "{pairs:?}");
    }
    for (pairs, message) in [
        (&[("foo", "1")][..], "invalid option: \"foo\""),
        (&[("device", "x")], "missing required option: \"type\""),
        (&[("type", "tmpfs")], "missing required option: \"device\""),
        (&[("o", "size=1")], "missing required option: \"device\""),
        (&[("size", "1g")], "no quota support"),
        (&[("type", "ext4"), ("device", "/dev/sda1")], "volume type \"ext4\" is not supported"),
        (&[("type", "cifs"), ("device", "//host/share")], "volume type \"cifs\" is not supported"),
        (&[("type", "none"), ("device", "/srv")], "add o=bind"),
        (&[("type", "none"), ("device", "srv"), ("o", "bind")], "not an absolute path"),
    ] {
        let error = validate_options(&map(pairs)).unwrap_err().to_string();
        assert!(error.contains(message), "{pairs:?}: {error}");
    }
}

#[test]
fn a_volume_is_made_once_and_found_again() {
    let (_directory, _store, volumes) = open();
    let request = VolumeRequest { labels: map(&[("a", "b")]), ..named("data") };
    let first = volumes.create(request, Timestamp::from_unix(5, 0)).unwrap();
    assert_eq!(fs::metadata(volumes.data("data")).unwrap().permissions().mode() & 0o777, 0o755);
    fs::write(volumes.data("data").join("file"), "kept").unwrap();
    let second = volumes.create(named("data"), Timestamp::from_unix(6, 0)).unwrap();
    assert_eq!(first, second);
    assert_eq!(volumes.get("data").unwrap(), first);
    assert_eq!(fs::read_to_string(volumes.data("data").join("file")).unwrap(), "kept");
    let other = VolumeRequest { options: map(&[("type", "tmpfs"), ("device", "tmpfs")]), ..named("data") };
    assert!(matches!(volumes.create(other, Timestamp::NEVER), Err(VolumeError::OtherOptions(_))));
    let plugin = VolumeRequest { driver: "nfs".into(), ..named("x1") };
    assert!(matches!(volumes.create(plugin, Timestamp::NEVER), Err(VolumeError::Driver(_))));
}

#[test]
fn anonymous_volumes_have_64_digits_and_are_pruned() {
    let (_directory, store, volumes) = open();
    let anonymous = volumes.create(VolumeRequest::default(), Timestamp::NEVER).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
    volumes.create(named("keep"), Timestamp::NEVER).unwrap();
    volumes.create(named("used"), Timestamp::NEVER).unwrap();
    store.create(&using("web", "used", false), Durability::Rebuildable).unwrap();
    let none = volumes.prune(&store, Prune::Anonymous, |_| false).unwrap();
    assert!(none.is_empty());
    let removed = volumes.prune(&store, Prune::Anonymous, |_| true).unwrap();
    assert_eq!(removed, [anonymous]);
    let removed = volumes.prune(&store, Prune::All, |_| true).unwrap();
    assert_eq!(removed.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["keep"]);
    assert_eq!(volumes.list().unwrap().len(), 1);
}

#[test]
fn a_volume_in_use_stays() {
    let (_directory, store, volumes) = open();
    volumes.create(named("data"), Timestamp::NEVER).unwrap();
    let spec = using("web", "data", true);
    store.create(&spec, Durability::Rebuildable).unwrap();
    assert_eq!(users(&store, "data").unwrap(), std::slice::from_ref(&spec.id));
    assert_eq!(owned(&spec), ["data"]);
    let error = volumes.remove(&store, "data").unwrap_err().to_string();
    assert_eq!(error, format!("remove data: volume is in use - [{}]", spec.id));
    store.remove(&spec.id).unwrap();
    volumes.remove(&store, "data").unwrap();
    assert_eq!(volumes.get("data").unwrap_err().to_string(), "get data: no such volume");
    assert!(!volumes.data("data").exists());
    assert_eq!(volumes.get("../x").unwrap_err().to_string(), "get ../x: no such volume");
}

#[test]
fn what_a_crash_left_does_not_come_back() {
    let (_directory, _store, volumes) = open();
    fs::create_dir_all(volumes.data("data")).unwrap();
    fs::write(volumes.data("data").join("old"), "").unwrap();
    assert!(volumes.get("data").is_err());
    assert!(volumes.list().unwrap().is_empty());
    volumes.create(named("data"), Timestamp::NEVER).unwrap();
    assert!(!volumes.data("data").join("old").exists());
    assert_eq!(testing::volume_mount("data", "/x").kind, MountKind::Volume);
}

#[test]
fn what_a_crash_left_is_swept_away_and_what_is_in_the_making_is_not() {
    let (_directory, store, volumes) = open();
    volumes.create(named("kept"), Timestamp::NEVER).unwrap();
    let left = [".new-a", ".removed-b"].map(|name| store.root().join("volumes").join(name));
    for path in &left {
        fs::create_dir_all(path.join("_data")).unwrap();
    }
    let making = volumes.lock().unwrap();
    volumes.sweep().unwrap();
    assert!(left.iter().all(|path| path.exists()));
    drop(making);
    volumes.sweep().unwrap();
    assert!(!left.iter().any(|path| path.exists()));
    assert_eq!(volumes.list().unwrap().len(), 1);
}
