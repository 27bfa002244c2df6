//! Archives whose author would like to write somewhere else: nothing but what was asked for is touched, and what is said
//! names the entry.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sbx_archive::{Origin, Owners};
use tar::{EntryType, Header};
use tempfile::{TempDir, tempdir};

use crate::trees::{listing, unpacked};

/// An entry with any name and link, whatever they are.
fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
    }
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// A directory `here` to unpack into, beside a directory `outside` that nobody may touch.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = tempdir().unwrap();
        for folder in ["here", "outside"] {
            fs::create_dir(place.path().join(folder)).unwrap();
            fs::write(place.path().join(folder).join("mine"), "mine").unwrap();
        }
        Self(place)
    }

    fn here(&self) -> PathBuf {
        self.0.path().join("here")
    }

    #[track_caller]
    fn refuses(&self, top: &str, entries: &[Vec<u8>], message: &str) {
        let outside = listing(&self.0.path().join("outside"));
        let origin = Origin::Stranger { top: Path::new(top).to_owned() };
        let error = unpacked(&archive(entries), &self.here(), Owners::Mine, origin).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(listing(&self.0.path().join("outside")), outside);
        assert_eq!(fs::read_to_string(self.here().join("mine")).unwrap(), "mine");
    }
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", b"theirs")
}

#[test]
fn only_what_was_asked_for_is_touched() {
    let place = Place::new();
    for name in ["mine", "x/../mine", "../outside/mine", "/etc/passwd", "./mine", "xy", "x/../../outside/new"] {
        let message = if name.contains("..") { ".." } else { "only x was asked for" };
        place.refuses("x", &[file(name)], message);
    }
    place.refuses("x", &[entry(EntryType::hard_link(), "x", "mine", b"")], "only x was asked for");
    place.refuses("x", &[entry(EntryType::hard_link(), "x", "../outside/mine", b"")], "..");
    place.refuses(".", &[entry(EntryType::Regular, ".", "", b"")], "no name");
}

#[test]
fn no_link_is_followed() {
    let place = Place::new();
    for target in ["../outside", "/tmp", "."] {
        let link = entry(EntryType::Symlink, "x/link", target, b"");
        let folder = entry(EntryType::Directory, "x/", "", b"");
        place.refuses("x", &[folder.clone(), link.clone(), file("x/link/mine")], "x/link");
        place.refuses(
            "x",
            &[folder.clone(), link.clone(), entry(EntryType::Directory, "x/link/", "", b"")],
            "non-directory",
        );
        let through = entry(EntryType::hard_link(), "x/new", "x/link/mine", b"");
        place.refuses("x", &[folder, link, through], "x/link");
    }
    // Also where the user's own directory has one.
    symlink("../outside", place.here().join("theirs")).unwrap();
    place.refuses(".", &[file("theirs/new")], "theirs");
    // One in the place of a file is replaced, and not what it leads to.
    symlink("../outside/mine", place.here().join("y")).unwrap();
    let origin = Origin::Stranger { top: "y".into() };
    unpacked(&archive(&[file("y")]), &place.here(), Owners::Mine, origin).unwrap();
    assert_eq!(fs::read_to_string(place.here().join("y")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(place.0.path().join("outside/mine")).unwrap(), "mine");
}

#[test]
fn devices_are_not_made() {
    let place = Place::new();
    for kind in [EntryType::Char, EntryType::Block] {
        place.refuses("x", &[entry(kind, "x", "", b"")], "a device of a container");
    }
    assert!(!place.here().join("x").exists());
}

#[test]
fn half_a_file_does_not_stay() {
    let place = Place::new();
    let mut cut = archive(&[file("x")]);
    cut.truncate(515);
    let origin = Origin::Stranger { top: "x".into() };
    let error = unpacked(&cut, &place.here(), Owners::Mine, origin).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    assert!(!place.here().join("x").exists());
}

#[test]
fn neither_a_file_nor_a_directory_takes_the_others_place() {
    let place = Place::new();
    fs::create_dir(place.here().join("folder")).unwrap();
    place.refuses("folder", &[file("folder")], "cannot overwrite directory");
    place.refuses("mine", &[entry(EntryType::Directory, "mine/", "", b"")], "cannot overwrite non-directory");
}
