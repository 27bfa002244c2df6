//! The first content of volumes.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sbx_rootfs::{CopyUp, OverlayOptions, copy_up, overlay};

use crate::archive::{Member, device, dir, file, link, member, pax, r, tar};
use crate::compare;
use crate::scratch::Scratch;

fn image(scratch: &Scratch, members: &[Member]) -> (PathBuf, File) {
    let layers = [scratch.layer(&tar(members))];
    let root = scratch.attach(&overlay(&layers, None, &OverlayOptions::default()).unwrap(), "root");
    let fd = File::open(&root).unwrap();
    (root, fd)
}

fn volume(scratch: &Scratch, name: &str) -> (PathBuf, File) {
    let path = scratch.mkdir(name);
    let fd = File::open(&path).unwrap();
    (path, fd)
}

#[test]
fn an_empty_volume_gets_the_images_directory_whole() {
    let scratch = Scratch::new();
    let attributes = [r("SCHILY.xattr.user.a", "1"), r("SCHILY.xattr.security.b", "2"), r("mtime", "1000000000.25")];
    let (root, fd) = image(
        &scratch,
        &[
            pax(&attributes),
            dir("data").mode(0o2750).owner(33, 44),
            pax(&attributes),
            file("data/file", &[5; 10_000]).mode(0o4751).owner(1, 2),
            file("data/empty", b""),
            link(b'1', "data/hard", "data/file"),
            link(b'1', "data/sub/hard", "data/file"),
            link(b'2', "data/dangling", "/nowhere"),
            link(b'1', "data/hard-dangling", "data/dangling"),
            device(b'3', "data/null", 1, 3).mode(0o666),
            device(b'4', "data/disk", 8, 1).mode(0o640).owner(0, 6),
            member(b'6', "data/fifo").mode(0o622),
            dir("data/sub/dir").mode(0).mtime(1_400_000_000),
            pax(&[r("SCHILY.xattr.trusted.d", "3"), r("mtime", "1111.5")]),
            dir("data/sub").mode(0o1777),
            pax(&[r("GNU.sparse.map", "0,4,100000000,4"), r("GNU.sparse.size", "200000000")]),
            file("data/sparse", b"dataDATA"),
            file("other", b"not copied"),
        ],
    );
    let (path, volume) = volume(&scratch, "volume");
    let copied = copy_up(fd.as_fd(), Path::new("/data"), volume.as_fd()).unwrap();
    compare::assert_same(&compare::tree(&path), &compare::tree(&root.join("data")));
    assert_eq!(copied, CopyUp::Copied { entries: 12, bytes: 10_000 + 2 * 4096 });
    assert!(fs::metadata(path.join("sparse")).unwrap().blocks() < 100);
    // Once it has content, it is the volume's own.
    assert_eq!(copy_up(fd.as_fd(), Path::new("/data"), volume.as_fd()).unwrap(), CopyUp::NotEmpty);
}

#[test]
fn an_empty_directory_gives_its_attributes() {
    let scratch = Scratch::new();
    let (_, fd) = image(&scratch, &[dir("empty").mode(0o700).owner(999, 998)]);
    let (path, volume) = volume(&scratch, "volume");
    assert_eq!(
        copy_up(fd.as_fd(), Path::new("empty/"), volume.as_fd()).unwrap(),
        CopyUp::Copied { entries: 0, bytes: 0 }
    );
    let metadata = fs::metadata(path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o700, 999, 998));
}

#[test]
fn nothing_outside_of_the_image_can_be_copied() {
    let scratch = Scratch::new();
    let secret = scratch.mkdir("secret");
    fs::write(secret.join("key"), b"secret").unwrap();
    let secret = secret.to_str().unwrap();
    let up = format!("{}{}", "../".repeat(20), &secret[1..]);
    let (_, fd) = image(
        &scratch,
        &[
            link(b'2', "absolute", secret),
            link(b'2', "relative", &up),
            link(b'2', "inside", "/real"),
            link(b'2', "magic", "/proc/self/root"),
            dir("real"),
            file("real/f", b"f"),
            file("file", b""),
        ],
    );
    for path in ["absolute", "relative", "absolute/../key", secret, &up, "/../../nothing", "missing", "magic"] {
        let (place, volume) = volume(&scratch, "volume");
        assert_eq!(copy_up(fd.as_fd(), Path::new(path), volume.as_fd()).unwrap(), CopyUp::Missing, "{path}");
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    }
    let (place, volume) = volume(&scratch, "volume");
    assert_eq!(copy_up(fd.as_fd(), Path::new("/file"), volume.as_fd()).unwrap(), CopyUp::NotADirectory);
    assert_eq!(copy_up(fd.as_fd(), Path::new("/real/f/x"), volume.as_fd()).unwrap(), CopyUp::NotADirectory);
    assert_eq!(
        copy_up(fd.as_fd(), Path::new("/../inside"), volume.as_fd()).unwrap(),
        CopyUp::Copied { entries: 1, bytes: 1 }
    );
    assert_eq!(fs::read(place.join("f")).unwrap(), b"f");
}

#[test]
fn a_path_that_never_ends_is_an_error() {
    let scratch = Scratch::new();
    let (_, fd) = image(&scratch, &[link(b'2', "loop", "loop")]);
    let (_, volume) = volume(&scratch, "volume");
    let error = copy_up(fd.as_fd(), Path::new("/loop"), volume.as_fd()).unwrap_err();
    assert!(error.to_string().contains("/loop"), "{error}");
    symlink("/", scratch.path("unused")).unwrap();
}
