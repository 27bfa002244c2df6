//! File systems made by us, as e2fsck and this kernel see them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, proptest};
use sbx_rootfs::ext4::{self, FormatError, Identity, LEAST_BYTES, MOST_BYTES};

use crate::scratch::{Scratch, run};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn identity() -> Identity {
    let mut label = [0; ext4::LABEL_BYTES];
    label[..4].copy_from_slice(b"disk");
    Identity { uuid: *b"\x12file systems ID", hash_seed: *b"hashseedhashseed", label, created: 1_763_600_000 }
}

fn disk(path: &Path, bytes: u64) -> File {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    ext4::format(&file, bytes, &identity()).unwrap();
    file
}

/// e2fsck must find nothing wrong. `false` where there is none.
pub(crate) fn is_clean(test: &str, path: &Path) -> bool {
    let output = match Command::new("e2fsck").arg("-fn").arg(path).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("skipped {test}: e2fsck is missing (package e2fsprogs)");
            return false;
        }
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains('?') && !said.contains("WARNING"), "{}: {said}", path.display());
    true
}

/// Mounts a disk by a loop device that goes away with the mount.
pub(crate) fn mount(scratch: &Scratch, disk: &Path, name: &str) -> PathBuf {
    let point = scratch.mkdir(name);
    run("mount", &["-t", "ext4", "-o", "loop", disk.to_str().unwrap(), point.to_str().unwrap()]);
    point
}

/// Unmounts. Other tests start programs all the time, and between `fork` and `execve` those have copies of our descriptors.
pub(crate) fn unmount(point: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = nix::mount::umount(point) {
        assert!(error == nix::errno::Errno::EBUSY && Instant::now() < deadline, "{}: {error}", point.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that a file takes on the host.
fn real(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn disks_of_every_size_are_clean() {
    let scratch = Scratch::new();
    let group = 128 * MIB;
    let sizes = [
        LEAST_BYTES,
        LEAST_BYTES + 4097,
        100 * MIB,
        group - 4096,
        group,
        group + 4096,
        group + 3 * MIB,
        2 * group - 1,
        2 * group + 564 * 4096,
        10 * group + 12345,
        10 * GIB,
        64 * GIB,
        (1 << 40) + 77 * MIB,
    ];
    for bytes in sizes {
        let path = scratch.path("disk");
        disk(&path, bytes);
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
        if !is_clean("disks_of_every_size_are_clean", &path) {
            return;
        }
    }
}

#[test]
fn the_largest_disk_is_mounted_and_written_to() {
    let scratch = Scratch::new();
    // Files of 16 TiB are too large for most file systems, but not for this one. (e2fsck finds it clean, too, in half a minute.)
    let memory = scratch.mkdir("memory");
    run("mount", &["-t", "tmpfs", "tmpfs", memory.to_str().unwrap()]);
    let path = memory.join("disk");
    disk(&path, MOST_BYTES);
    assert!(real(&path) < 17 * MIB, "{}", real(&path));
    let point = mount(&scratch, &path, "point");
    let facts = nix::sys::statvfs::statvfs(&point).unwrap();
    assert!(facts.blocks_free() * facts.fragment_size() > 15 << 40, "{facts:?}");
    assert_eq!(facts.files(), MOST_BYTES / 16384);
    fs::write(point.join("f"), content(1, 1_000_000)).unwrap();
    unmount(&point);
    let point = mount(&scratch, &path, "point");
    assert!(fs::read(point.join("f")).unwrap() == content(1, 1_000_000));
    unmount(&point);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn disks_of_any_size_are_clean(bytes in LEAST_BYTES..3 * GIB) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        disk(&path, bytes);
        is_clean("disks_of_any_size_are_clean", &path);
    }
}

#[test]
fn next_to_nothing_is_written() {
    let scratch = Scratch::new();
    for (bytes, most) in [(LEAST_BYTES, 64 << 10), (64 * GIB, 160 << 10), (1 << 40, 4 * MIB)] {
        let path = scratch.path("disk");
        disk(&path, bytes);
        assert!(real(&path) <= most, "{bytes} bytes take {}", real(&path));
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let scratch = Scratch::new();
    let file = File::create(scratch.path("disk")).unwrap();
    for bytes in [0, LEAST_BYTES - 1, MOST_BYTES + 1] {
        assert!(matches!(ext4::format(&file, bytes, &identity()), Err(FormatError::Size { .. })));
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
    // A file system with small files, ours: 512 blocks of 1 KiB hold no pointers to 4 TiB.
    let (image, point) = (scratch.path("host"), scratch.mkdir("small"));
    File::create(&image).unwrap().set_len(16 * MIB).unwrap();
    run("mkfs.ext4", &["-q", "-O", "^extents,^64bit,^huge_file,^metadata_csum", "-b", "1024", image.to_str().unwrap()]);
    run("mount", &["-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
    let file = File::create(point.join("disk")).unwrap();
    let error = ext4::format(&file, 4 << 40, &identity()).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("smaller"), "{error}");
}

#[test]
fn the_kernel_mounts_it_and_has_nothing_left_to_do() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    disk(&path, 64 * GIB);
    let before = real(&path);
    let point = mount(&scratch, &path, "point");
    let root = fs::metadata(&point).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o755, 0, 0));
    assert_eq!(root.mtime(), 1_763_600_000);
    let names: Vec<_> = fs::read_dir(&point).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lost+found"]);
    let free = nix::sys::statvfs::statvfs(&point).unwrap();
    assert!(free.blocks_available() * free.fragment_size() > 62 * GIB, "{free:?}");
    assert_eq!(free.files(), 64 * GIB / 16384);
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(point.to_str().unwrap())).unwrap();
    let device = line.split(" - ext4 /dev/").nth(1).unwrap().split(' ').next().unwrap();
    let fact = |name: &str| fs::read_to_string(format!("/sys/fs/ext4/{device}/{name}")).unwrap();
    assert_eq!(fact("errors_count").trim(), "0");
    unmount(&point);
    // Mounting writes superblock and journal, and would write 1 MiB of bitmaps and tables for each group that it initialises.
    assert!(real(&path) - before <= 256 << 10, "{before} → {}", real(&path));
    is_clean("the_kernel_mounts_it_and_has_nothing_left_to_do", &path);
}

#[test]
fn an_overlay_can_write_to_it() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    disk(&path, 256 * MIB);
    let point = mount(&scratch, &path, "point");
    for name in ["upper", "work"] {
        fs::create_dir(point.join(name)).unwrap();
    }
    let lower = scratch.mkdir("lower/etc");
    fs::write(lower.join("hosts"), b"below").unwrap();
    fs::write(lower.join("gone"), b"below").unwrap();
    let root = scratch.mkdir("root");
    let options = format!(
        "lowerdir={},upperdir={},workdir={},xino=on,index=off,metacopy=off",
        scratch.path("lower").display(),
        point.join("upper").display(),
        point.join("work").display()
    );
    run("mount", &["-t", "overlay", "overlay", "-o", &options, root.to_str().unwrap()]);
    fs::write(root.join("etc/hosts"), b"above").unwrap();
    fs::remove_file(root.join("etc/gone")).unwrap();
    fs::remove_dir_all(root.join("etc")).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    let name = std::ffi::CString::new(root.join("etc").to_str().unwrap()).unwrap();
    crate::scratch::set_xattr(&name, c"user.mine", &[7; 1000]);
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
    unmount(&root);
    let upper = point.join("upper/etc");
    // The kernel tells types with names, without which overlayfs would refuse to be mounted for writing.
    assert!(fs::read_dir(point.join("upper")).unwrap().all(|entry| entry.unwrap().file_type().unwrap().is_dir()));
    let name = std::ffi::CString::new(upper.to_str().unwrap()).unwrap();
    assert_eq!(crate::scratch::get_xattr(&name, c"trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(crate::scratch::get_xattr(&name, c"user.mine").unwrap(), [7; 1000]);
    unmount(&point);
    is_clean("an_overlay_can_write_to_it", &path);
}

/// Bytes that only this file has.
fn content(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number * 31 + at / 7) as u8).collect()
}

/// Writes files until something runs out; how many are whole.
fn fill(point: &Path, length: usize) -> usize {
    for number in 0.. {
        let directory = point.join(format!("d{}", number % 50));
        let made = if number < 50 { fs::create_dir(&directory) } else { Ok(()) };
        let written = made.and_then(|()| fs::write(directory.join(number.to_string()), content(number, length)));
        if let Err(error) = written {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
            return number;
        }
    }
    unreachable!("numbers do not end")
}

#[test]
fn it_can_be_filled_and_emptied() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    for (bytes, length, least) in [(LEAST_BYTES, 0, 1900), (LEAST_BYTES, 100_000, 200), (300 * MIB, 300_000, 800)] {
        disk(&path, bytes);
        let point = mount(&scratch, &path, "point");
        for round in 0..2 {
            let count = fill(&point, length);
            assert!(count >= least, "round {round}: {count} files of {length} bytes");
            run("sync", &["-f", point.to_str().unwrap()]);
            for number in 0..count {
                let file = point.join(format!("d{}/{number}", number % 50));
                assert!(fs::read(&file).unwrap() == content(number, length), "{}", file.display());
            }
            if round == 0 {
                (0..50).for_each(|number| fs::remove_dir_all(point.join(format!("d{number}"))).unwrap());
            }
        }
        unmount(&point);
        if !is_clean("it_can_be_filled_and_emptied", &path) {
            return;
        }
    }
}

#[test]
fn all_kinds_of_files_live_in_it() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    disk(&path, 160 * MIB);
    let point = mount(&scratch, &path, "point");
    let at = |name: &str| point.join(name);
    // Enough names that the directory gets an index, and more subdirectories than a link count of ext3 could hold.
    fs::create_dir(at("wide")).unwrap();
    for number in 0..3_000 {
        fs::write(at(&format!("wide/{number:0>80}")), b"").unwrap();
    }
    for number in 0..3_000 {
        fs::rename(at(&format!("wide/{number:0>80}")), at(&format!("wide/{number:x>90}"))).unwrap();
    }
    assert_eq!(fs::read_dir(at("wide")).unwrap().count(), 3_000);
    std::os::unix::fs::symlink("x".repeat(1_000), at("long")).unwrap();
    std::os::unix::fs::symlink("short", at("link")).unwrap();
    fs::write(at("one"), b"1").unwrap();
    (0..200).for_each(|number| fs::hard_link(at("one"), at(&format!("same{number}"))).unwrap());
    assert_eq!(fs::metadata(at("one")).unwrap().nlink(), 201);
    std::os::unix::fs::chown(at("one"), Some(70_000), Some(4_000_000_000)).unwrap();
    fs::set_permissions(at("one"), fs::Permissions::from_mode(0o6751)).unwrap();
    nix::sys::stat::mknod(
        &at("null"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::S_IRUSR,
        libc::makedev(1, 3),
    )
    .unwrap();
    // A sparse file beyond 4 GiB, on a disk of 160 MiB.
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"end", 5 << 40).unwrap();
    drop(sparse);
    unmount(&point);
    is_clean("all_kinds_of_files_live_in_it", &path);
    let point = mount(&scratch, &path, "point");
    let one = fs::metadata(point.join("same199")).unwrap();
    assert_eq!((one.uid(), one.gid(), one.mode() & 0o7777), (70_000, 4_000_000_000, 0o6751));
    assert_eq!(fs::read_link(point.join("long")).unwrap().as_os_str().len(), 1_000);
    assert_eq!(fs::metadata(point.join("null")).unwrap().rdev(), libc::makedev(1, 3));
    let mut end = [0; 3];
    File::open(point.join("sparse")).unwrap().read_exact_at(&mut end, 5 << 40).unwrap();
    assert_eq!(&end, b"end");
    unmount(&point);
}

#[test]
fn what_was_synced_survives_the_machine_that_wrote_it() {
    let scratch = Scratch::new();
    let (path, copy) = (scratch.path("disk"), scratch.path("copy"));
    disk(&path, 200 * MIB);
    let point = mount(&scratch, &path, "point");
    for number in 0..100 {
        let file = File::create(point.join(number.to_string())).unwrap();
        file.write_all_at(&content(number, 5_000), 0).unwrap();
        file.sync_all().unwrap();
    }
    // As the disk is when the virtual machine is killed now: the journal has what the tables have not.
    run("cp", &["--sparse=always", path.to_str().unwrap(), copy.to_str().unwrap()]);
    unmount(&point);
    let point = mount(&scratch, &copy, "point");
    for number in 0..100 {
        let mut found = Vec::new();
        File::open(point.join(number.to_string())).unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, content(number, 5_000));
    }
    unmount(&point);
    is_clean("what_was_synced_survives_the_machine_that_wrote_it", &copy);
}

#[test]
fn whether_it_was_ever_mounted_is_seen() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    let bytes = 300 * MIB;
    let file = disk(&path, bytes);
    let untouched = || ext4::is_untouched(&file, bytes).unwrap();
    assert!(untouched());
    unmount(&mount(&scratch, &path, "point"));
    assert!(!untouched());
    // Lost before it reached the disk, or lost later: then the copy is there.
    let zeroes = [0; 1024];
    file.write_all_at(&zeroes, 1024).unwrap();
    assert!(!untouched());
    file.write_all_at(&zeroes, 128 * MIB).unwrap();
    assert!(untouched());
    // Formatting takes everything away that was there.
    file.write_all_at(&[7; 4096], 200 * MIB).unwrap();
    ext4::format(&file, bytes, &identity()).unwrap();
    assert!(untouched());
    let mut found = [1; 4096];
    file.read_exact_at(&mut found, 200 * MIB).unwrap();
    assert_eq!(found, [0; 4096]);
    is_clean("whether_it_was_ever_mounted_is_seen", &path);
}
