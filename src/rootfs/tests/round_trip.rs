//! A whole Debian, through the image and through GNU tar.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use crate::compare;
use crate::scratch::{Scratch, check_image, run};

/// The tar that `SBX_TEST_TAR` names, or one that mmdebstrap makes (40 s and the Debian mirror).
fn debian(scratch: &Scratch) -> PathBuf {
    if let Some(tar) = std::env::var_os("SBX_TEST_TAR") {
        return tar.into();
    }
    let tar = scratch.path("debian.tar");
    run("mmdebstrap", &["--variant=minbase", "--mode=root", "bookworm", tar.to_str().unwrap()]);
    tar
}

#[test]
#[ignore = "needs SBX_TEST_TAR=<tar of a root file system>, or makes one by mmdebstrap; run with --ignored"]
fn a_debian_root_survives_whole() {
    let scratch = Scratch::new();
    let tar = debian(&scratch);
    let extracted = scratch.mkdir("extracted");
    run(
        "tar",
        &[
            "-x",
            "--numeric-owner",
            "-p",
            "--xattrs",
            "--xattrs-include=*",
            "-f",
            tar.to_str().unwrap(),
            "-C",
            extracted.to_str().unwrap(),
        ],
    );
    let reference = scratch.path("reference.erofs");
    run("mkfs.erofs", &[reference.to_str().unwrap(), extracted.to_str().unwrap()]);

    let start = Instant::now();
    let (id, stats) = scratch.convert(&mut File::open(&tar).unwrap());
    let took = start.elapsed();
    let image = scratch.store().path(&id);
    check_image(&image);
    let ours = fs::metadata(&image).unwrap().len();
    let theirs = fs::metadata(&reference).unwrap().len();
    println!(
        "{} entries, {} bytes in {took:?}; image {ours} bytes, mkfs.erofs makes {theirs}",
        stats.entries, stats.tar_bytes
    );
    assert!(ours < theirs + theirs / 10, "image of {ours} bytes, mkfs.erofs makes {theirs}");

    let layer = scratch.mounts().acquire(&id, &image).unwrap();
    compare::assert_same(&compare::tree(&scratch.point(&layer)), &compare::tree(&extracted));
}
