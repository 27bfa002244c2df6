//! Writable layers: made like the image's root, measured, removed whatever is in them.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use sbx_rootfs::{OverlayOptions, RootfsError, WritableLayer, overlay};

use crate::archive::{dir, file, pax, r, tar};
use crate::scratch::{Scratch, get_xattr, run, set_xattr};

#[test]
fn the_upper_root_is_the_images_root() {
    let scratch = Scratch::new();
    // The topmost layer that describes its root, not the topmost layer.
    let layers = [
        scratch.layer(&tar(&[dir("./").mode(0o700).owner(1, 1)])),
        scratch.layer(&tar(&[
            pax(&[r("SCHILY.xattr.user.mark", "m"), r("mtime", "1234.5")]),
            dir("./").mode(0o1751).owner(11, 12),
        ])),
        scratch.layer(&tar(&[file("f", b"")])),
    ];
    let writable = WritableLayer::create(&scratch.path("c"), &layers).unwrap();
    assert_eq!(fs::metadata(scratch.path("c")).unwrap().mode() & 0o7777, 0o700);
    for path in [
        writable.upper(),
        scratch.attach(&overlay(&layers, Some(&writable), &OverlayOptions::default()).unwrap(), "root"),
    ] {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o1751, 11, 12));
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1234, 500_000_000));
        let path = CString::new(path.to_str().unwrap()).unwrap();
        assert_eq!(get_xattr(&path, c"user.mark").unwrap(), b"m");
    }
    assert_eq!(WritableLayer::open(&scratch.path("c")).unwrap(), writable);
    let plain = WritableLayer::create(&scratch.path("d"), &layers[2..]).unwrap();
    assert_eq!(fs::metadata(plain.upper()).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn its_size_is_that_of_its_files() {
    let scratch = Scratch::new();
    let writable = WritableLayer::create(&scratch.path("c"), &[]).unwrap();
    assert_eq!(writable.size().unwrap(), 0);
    let upper = writable.upper();
    fs::create_dir_all(upper.join("a/b/c")).unwrap();
    fs::write(upper.join("a/b/c/f"), [1; 1000]).unwrap();
    fs::hard_link(upper.join("a/b/c/f"), upper.join("a/same")).unwrap();
    symlink("12345", upper.join("l")).unwrap();
    symlink("/etc", upper.join("a/etc")).unwrap();
    assert_eq!(writable.size().unwrap(), 1000 + 5 + 4);
}

#[test]
fn removal_takes_all_and_follows_nothing() {
    let scratch = Scratch::new();
    let canary = scratch.mkdir("canary");
    fs::write(canary.join("f"), b"alive").unwrap();
    let writable = WritableLayer::create(&scratch.path("c"), &[]).unwrap();
    let upper = writable.upper();
    symlink(&canary, upper.join("link")).unwrap();
    fs::create_dir_all(upper.join("ro/deep")).unwrap();
    fs::write(upper.join("ro/deep/f"), b"x").unwrap();
    fs::set_permissions(upper.join("ro/deep"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(upper.join("ro"), fs::Permissions::from_mode(0o500)).unwrap();
    for name in ["fifo", "socket"] {
        let kind = if name == "fifo" { nix::sys::stat::SFlag::S_IFIFO } else { nix::sys::stat::SFlag::S_IFSOCK };
        nix::sys::stat::mknod(&upper.join(name), kind, nix::sys::stat::Mode::S_IRWXU, 0).unwrap();
    }
    fs::create_dir(upper.join("frozen")).unwrap();
    fs::write(upper.join("frozen/f"), b"x").unwrap();
    run("chattr", &["+i", upper.join("frozen/f").to_str().unwrap(), upper.join("frozen").to_str().unwrap()]);
    fs::write(upper.join("log"), b"x").unwrap();
    run("chattr", &["+a", upper.join("log").to_str().unwrap()]);
    run("chattr", &["+i", upper.to_str().unwrap()]);
    fs::create_dir_all(writable.work().join("work/x")).unwrap();
    fs::set_permissions(writable.work().join("work"), fs::Permissions::from_mode(0o0)).unwrap();
    let again = writable.clone();
    writable.remove().unwrap();
    again.remove().unwrap();
    assert_eq!(fs::read_dir(scratch.path("c")).unwrap().count(), 0);
    assert_eq!(fs::read(canary.join("f")).unwrap(), b"alive");
    let error = WritableLayer::open(&scratch.path("c")).unwrap_err();
    assert!(matches!(error, RootfsError::Io { .. }) && error.to_string().contains("upper"), "{error}");
}

#[test]
fn neither_depth_nor_number_stops_removal() {
    let scratch = Scratch::new();
    let writable = WritableLayer::create(&scratch.path("c"), &[]).unwrap();
    let upper = writable.upper();
    let wide = upper.join("wide");
    fs::create_dir(&wide).unwrap();
    for i in 0..100_000 {
        nix::sys::stat::mknod(
            &wide.join(i.to_string()),
            nix::sys::stat::SFlag::S_IFREG,
            nix::sys::stat::Mode::S_IRWXU,
            0,
        )
        .unwrap();
    }
    // Far deeper than PATH_MAX and than any limit of descriptors.
    nix::unistd::chdir(&upper).unwrap();
    for _ in 0..5_000 {
        fs::create_dir("d").unwrap();
        nix::unistd::chdir("d").unwrap();
    }
    fs::write("f", b"deep").unwrap();
    nix::unistd::chdir("/").unwrap();
    assert_eq!(writable.size().unwrap(), 4);
    writable.remove().unwrap();
    assert!(!upper.exists());
}

#[test]
fn what_a_container_wrote_is_measured_and_removed() {
    let scratch = Scratch::new();
    let layers = [scratch.layer(&tar(&[dir("./"), file("etc/hosts", &[b'h'; 500]), dir("d"), file("d/x", b"x")]))];
    let writable = WritableLayer::create(&scratch.path("c"), &layers).unwrap();
    let root = scratch.attach(&overlay(&layers, Some(&writable), &OverlayOptions::default()).unwrap(), "root");
    assert_eq!(writable.size().unwrap(), 0);
    fs::write(root.join("new"), [0; 100]).unwrap();
    fs::set_permissions(root.join("etc/hosts"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(root.join("d")).unwrap();
    assert_eq!(writable.size().unwrap(), 600);
    let path = CString::new(root.join("new").to_str().unwrap()).unwrap();
    set_xattr(&path, c"user.a", b"b");
    nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).unwrap();
    writable.remove().unwrap();
}
