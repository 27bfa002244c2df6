//! What goes in comes out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use sbx_archive::{Origin, Owners, pack};
use tempfile::tempdir;

use crate::trees::{listing, packed, unpacked};

/// Every kind of file, with attributes that are nobody's default.
fn tree(directory: &Path) {
    fs::create_dir_all(directory.join("folder/empty")).unwrap();
    fs::write(directory.join("folder/file"), "content").unwrap();
    fs::write(directory.join("folder/none"), "").unwrap();
    fs::write(directory.join("block"), [7; 512]).unwrap();
    fs::hard_link(directory.join("block"), directory.join("folder/same")).unwrap();
    symlink("folder/file", directory.join("link")).unwrap();
    symlink(Path::new(&"long/".repeat(100)), directory.join("long link")).unwrap();
    let long: PathBuf = ["n".repeat(250), "m".repeat(250)].iter().collect();
    fs::create_dir_all(directory.join(long.parent().unwrap())).unwrap();
    fs::write(directory.join(&long), "deep").unwrap();
    for (name, kind, number) in [("pipe", SFlag::S_IFIFO, 0), ("null", SFlag::S_IFCHR, makedev(1, 3))] {
        mknod(&directory.join(name), kind, Mode::from_bits_truncate(0o640), number).unwrap();
    }
    chown(directory.join("folder"), Some(12), Some(34)).unwrap();
    chown(directory.join("folder/file"), Some(3_000_000_000), Some(56)).unwrap();
    lchown(directory.join("link"), Some(7), Some(8)).unwrap();
    for (name, mode) in [("folder", 0o1751), ("folder/file", 0o6755), ("block", 0o400)] {
        fs::set_permissions(directory.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let attribute =
        Command::new("setfattr").args(["-n", "user.note", "-v", "two words"]).arg(directory.join("block")).status();
    assert!(attribute.is_ok_and(|status| status.success()), "setfattr of the package attr");
    let old = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
    for name in ["block", "folder"] {
        File::open(directory.join(name)).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn a_tree_survives_an_archive() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    tree(from.path());
    let archive = packed(from.path(), ".", ".");
    let done = unpacked(&archive, to.path(), Owners::Archived, Origin::Trusted).unwrap();
    assert_eq!((done.bytes, done.warnings), (archive.len() as u64, vec![]));
    assert_eq!(listing(to.path()), listing(from.path()));
    let note =
        Command::new("getfattr").args(["--only-values", "-n", "user.note"]).arg(to.path().join("block")).output();
    assert_eq!(note.unwrap().stdout, b"two words");
    let (one, other) = (to.path().join("block"), to.path().join("folder/same"));
    assert_eq!(fs::metadata(one).unwrap().ino(), fs::metadata(other).unwrap().ino());
    // Once more over what is there.
    unpacked(&archive, to.path(), Owners::Archived, Origin::Trusted).unwrap();
    assert_eq!(listing(to.path()), listing(from.path()));
}

#[test]
fn other_programs_read_and_write_the_same_archives() {
    let (from, to, back) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    tree(from.path());
    fs::write(from.path().join("archive.tar"), packed(from.path(), "folder", "renamed")).unwrap();
    let tar = |args: &[&str], place: &Path| {
        let archive = from.path().join("archive.tar");
        let status = Command::new("tar").arg("-C").arg(place).args(args).arg("-f").arg(archive).arg(".").status();
        assert!(status.unwrap().success());
    };
    let archive = from.path().join("archive.tar");
    let status = Command::new("tar").arg("-xpf").arg(archive).arg("-C").arg(to.path()).status();
    assert!(status.unwrap().success());
    assert_eq!(
        listing(&to.path().join("renamed")),
        listing(&from.path().join("folder")).iter().map(|line| line.replace("links 2", "links 1")).collect::<Vec<_>>()
    );
    // And sparse files of theirs.
    let sparse = File::create(to.path().join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 32 << 20).unwrap();
    tar(&["-c", "--sparse"], to.path());
    let archive = fs::read(from.path().join("archive.tar")).unwrap();
    assert!(archive.len() < 1 << 20);
    unpacked(&archive, back.path(), Owners::Archived, Origin::Trusted).unwrap();
    assert_eq!(fs::read(back.path().join("sparse")).unwrap(), fs::read(to.path().join("sparse")).unwrap());
    assert!(fs::metadata(back.path().join("sparse")).unwrap().blocks() < 2048, "its holes are holes");
}

#[test]
fn files_become_those_of_whom_is_said() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    tree(from.path());
    let archive = packed(from.path(), "folder", "folder");
    let owner = |path: &str| fs::metadata(to.path().join(path)).map(|found| (found.uid(), found.gid())).unwrap();
    unpacked(&archive, to.path(), Owners::One(21, 22), Origin::Trusted).unwrap();
    assert_eq!((owner("folder"), owner("folder/file")), ((21, 22), (21, 22)));
    assert_eq!(fs::metadata(to.path().join("folder/file")).unwrap().mode() & 0o7777, 0o6755);
    fs::remove_dir_all(to.path().join("folder")).unwrap();
    unpacked(&archive, to.path(), Owners::Mine, Origin::Trusted).unwrap();
    assert_eq!((owner("folder"), owner("folder/file")), ((0, 0), (0, 0)));
}

/// Takes an archive and does something to the files as soon as it begins.
struct Meddler<F: FnMut()> {
    archive: Vec<u8>,
    act: Option<F>,
}

impl<F: FnMut()> Write for Meddler<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut act) = self.act.take() {
            act();
        }
        self.archive.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_archive_of_files_that_change_is_whole() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    for name in ["a", "gone", "shrinking"] {
        fs::write(from.path().join(name), [1; 1000]).unwrap();
    }
    let opened = File::open(from.path()).unwrap();
    let act = || {
        // After the directory has been listed.
        fs::remove_file(from.path().join("gone")).unwrap();
        fs::write(from.path().join("a"), [2; 5]).unwrap();
    };
    let mut meddler = Meddler { archive: Vec::new(), act: Some(act) };
    pack(opened.as_fd(), OsStr::new("."), Path::new("."), &mut meddler).unwrap();
    unpacked(&meddler.archive, to.path(), Owners::Archived, Origin::Trusted).unwrap();
    let names: Vec<String> = listing(to.path()).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["a", "shrinking"]);

    // A file that becomes shorter after its header is filled up.
    let act = || File::options().write(true).open(from.path().join("shrinking")).unwrap().set_len(10).unwrap();
    let mut meddler = Meddler { archive: Vec::new(), act: Some(act) };
    pack(opened.as_fd(), OsStr::new("shrinking"), Path::new("file"), &mut meddler).unwrap();
    unpacked(&meddler.archive, to.path(), Owners::Archived, Origin::Trusted).unwrap();
    let file = fs::read(to.path().join("file")).unwrap();
    assert_eq!((file.len(), file[..10] == [1; 10], file[10..].iter().all(|&byte| byte == 0)), (1000, true, true));
}

#[test]
fn what_cannot_be_packed_is_said() {
    let from = tempdir().unwrap();
    let opened = File::open(from.path()).unwrap();
    let error = pack(opened.as_fd(), OsStr::new("none"), Path::new("x"), &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "stat \"x\": no such file or directory");
}
