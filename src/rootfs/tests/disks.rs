//! What a virtual machine gets as disks: writable ones, layers, and layers as partitions.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Cursor, ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sbx_rootfs::disk::{Extent, LayerFiles, MOST_PARTITIONS, SECTOR, WritableDisk, partitions};
use sbx_rootfs::{RootfsError, write_layer};

use crate::archive::{file, tar};
use crate::ext4::{is_clean, mount, unmount};
use crate::scratch::{Scratch, run};

const MIB: u64 = 1 << 20;

/// Other tests start programs all the time, and between `fork` and `execve` those have copies of our descriptors.
fn once_free<T>(attach: impl Fn() -> Result<T, RootfsError>) -> Result<T, RootfsError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match attach() {
            Err(RootfsError::DiskInUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

#[test]
fn a_container_has_a_disk_from_creation_to_removal() {
    let scratch = Scratch::new();
    let dir = scratch.path("containers/c");
    let error = WritableDisk::open(&dir).unwrap_err();
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    let disk = WritableDisk::create(&dir, WritableDisk::DEFAULT_BYTES).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(disk.path()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(WritableDisk::open(&dir).unwrap(), disk);
    assert_eq!(disk.capacity().unwrap(), 64 << 30);
    let empty = disk.usage().unwrap();
    assert!(empty < 256 << 10, "{empty}");
    is_clean("a_container_has_a_disk_from_creation_to_removal", &disk.path());
    let point = mount(&scratch, &disk.path(), "point");
    fs::write(point.join("f"), vec![1; 8 << 20]).unwrap();
    unmount(&point);
    assert!(disk.usage().unwrap() >= empty + 8 * MIB);
    assert_eq!(disk.capacity().unwrap(), 64 << 30);
    let again = disk.clone();
    disk.remove().unwrap();
    again.remove().unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_disk_that_cannot_be_made_leaves_nothing() {
    let scratch = Scratch::new();
    let dir = scratch.path("c");
    for bytes in [0, 31 * MIB, 17 << 40] {
        let error = WritableDisk::create(&dir, bytes).unwrap_err().to_string();
        assert!(error.contains("32 MiB") && error.contains(dir.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
    let disk = WritableDisk::create(&dir, 64 * MIB).unwrap();
    let before = fs::read(disk.path()).unwrap();
    let error = WritableDisk::create(&dir, 64 * MIB).unwrap_err();
    assert!(matches!(&error, RootfsError::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists), "{error}");
    assert!(fs::read(disk.path()).unwrap() == before);
    // Neither is one disk another.
    let other = WritableDisk::create(&scratch.path("d"), 64 * MIB).unwrap();
    let uuid = |disk: &WritableDisk| {
        let mut uuid = [0; 16];
        File::open(disk.path()).unwrap().read_exact_at(&mut uuid, 1024 + 0x68).unwrap();
        uuid
    };
    assert_ne!(uuid(&disk), uuid(&other));
    // A link is no disk, wherever it leads.
    fs::create_dir(scratch.path("e")).unwrap();
    symlink(disk.path(), scratch.path("e/disk")).unwrap();
    assert!(WritableDisk::open(&scratch.path("e")).is_err());
}

#[test]
fn one_machine_at_a_time_has_the_disk() {
    let scratch = Scratch::new();
    let disk = WritableDisk::create(&scratch.path("c"), 64 * MIB).unwrap();
    let first = once_free(|| disk.attach()).unwrap();
    let refused = || {
        let error = disk.attach().unwrap_err();
        assert!(matches!(error, RootfsError::DiskInUse { .. }), "{error}");
        assert!(error.to_string().contains(disk.path().to_str().unwrap()), "{error}");
    };
    refused();
    // A copy of the descriptor is the same machine's.
    let copy = first.try_clone().unwrap();
    drop(first);
    refused();
    drop(copy);
    let (same, file) = once_free(|| WritableDisk::attach_or_create(&scratch.path("c"), 128 * MIB)).unwrap();
    assert_eq!((same.capacity().unwrap(), same), (64 * MIB, disk.clone()));
    refused();
    drop(file);
    // A new one belongs to its maker from its first moment.
    let (new, _file) = WritableDisk::attach_or_create(&scratch.path("d"), 128 * MIB).unwrap();
    assert_eq!(new.capacity().unwrap(), 128 * MIB);
    assert!(matches!(new.attach().unwrap_err(), RootfsError::DiskInUse { .. }));
    is_clean("one_machine_at_a_time_has_the_disk", &new.path());
}

#[test]
fn a_disk_that_never_reached_the_host_is_made_again_and_no_other() {
    let scratch = Scratch::new();
    let disk = WritableDisk::create(&scratch.path("c"), 300 * MIB).unwrap();
    // A power cut right after its creation: the superblock has reached the disk and the tables have not, or the other way round.
    for (offset, length) in [(4096, 8 * MIB), (0, 4096)] {
        let file = File::options().write(true).open(disk.path()).unwrap();
        file.write_all_at(&vec![0; length as usize], offset).unwrap();
        if offset == 0 {
            file.write_all_at(&[0; 4096], 128 * MIB).unwrap();
        }
        drop(once_free(|| disk.attach()).unwrap());
        is_clean("a_disk_that_never_reached_the_host_is_made_again_and_no_other", &disk.path());
    }
    let point = mount(&scratch, &disk.path(), "point");
    fs::write(point.join("f"), b"kept").unwrap();
    unmount(&point);
    drop(once_free(|| disk.attach()).unwrap());
    assert_eq!(fs::read(mount(&scratch, &disk.path(), "point").join("f")).unwrap(), b"kept");
    // A disk whose length is no longer one of ours.
    let other = WritableDisk::create(&scratch.path("d"), 64 * MIB).unwrap();
    File::options().write(true).open(other.path()).unwrap().set_len(1000).unwrap();
    let error = once_free(|| other.attach()).unwrap_err();
    assert!(matches!(error, RootfsError::Disk { .. }), "{error}");
}

#[test]
fn whoever_is_killed_leaves_a_whole_disk_or_none() {
    let scratch = Scratch::new();
    let mut whole = 0;
    for round in 0..20 {
        let dir = scratch.mkdir(&format!("round{round}"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "disks::helper_that_makes_disks"])
            .env("SBX_TEST_DISK", &dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Until it has made a few; then at any of its instructions.
        while !dir.join("2/disk").exists() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(137 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let containers = fs::read_dir(&dir).unwrap().count();
        for container in 0..containers {
            let dir = dir.join(container.to_string());
            let names: Vec<OsString> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            if names.is_empty() {
                assert_eq!(container, containers - 1, "only the last one can be missing");
                continue;
            }
            assert_eq!(names, ["disk"]);
            whole += 1;
            if container + 2 >= containers {
                is_clean("whoever_is_killed_leaves_a_whole_disk_or_none", &dir.join("disk"));
            }
            let disk = WritableDisk::open(&dir).unwrap();
            drop(once_free(|| disk.attach()).unwrap());
        }
    }
    assert!(whole >= 60, "{whole}");
}

#[test]
#[ignore = "a process that other tests start and kill"]
fn helper_that_makes_disks() {
    let Some(dir) = std::env::var_os("SBX_TEST_DISK") else {
        println!("skipped: only other tests start this one");
        return;
    };
    for container in 0.. {
        WritableDisk::create(&Path::new(&dir).join(container.to_string()), 300 * MIB).unwrap();
    }
}

#[test]
fn layers_are_opened_in_order_and_stay_while_they_are_open() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let ids: Vec<_> = (0..5u8)
        .map(|n| scratch.convert(&mut Cursor::new(tar(&[file("f", &vec![n; 10_000 * usize::from(n)])]))).0)
        .collect();
    let files = LayerFiles::open(&store, &ids).unwrap();
    assert_eq!(files.layers().iter().map(|layer| layer.id().clone()).collect::<Vec<_>>(), ids);
    assert_eq!(files.lengths(), ids.iter().map(|id| fs::metadata(store.path(id)).unwrap().len()).collect::<Vec<_>>());
    assert!(files.lengths().iter().all(|length| length.is_multiple_of(4096)));
    let content = fs::read(store.path(&ids[4])).unwrap();
    assert!(store.remove(&ids[4]).unwrap());
    let mut found = vec![0; content.len()];
    files.layers()[4].file().read_exact_at(&mut found, 0).unwrap();
    assert!(found == content);
    assert!(files.layers()[0].file().write_at(b"x", 0).is_err());
    let error = LayerFiles::open(&store, &ids).unwrap_err();
    assert!(error.to_string().contains(ids[4].hex()), "{error}");
    assert!(LayerFiles::open(&store, &[]).unwrap().layers().is_empty());
}

#[test]
fn what_is_no_layer_is_refused_by_name() {
    let scratch = Scratch::new();
    let (store, id) = (scratch.store(), scratch.new_id());
    let content: Vec<u8> = (0..100_000).map(|at| at as u8).collect();
    let mut written = tempfile::tempfile().unwrap();
    write_layer(&mut Cursor::new(tar(&[file("f", &content)])), &written, &Default::default()).unwrap();
    let mut image = Vec::new();
    written.rewind().unwrap();
    written.read_to_end(&mut image).unwrap();
    for bytes in [&b""[..], &[0; 4096], &image[..4096], &image[..image.len() - 4096], &image[..image.len() - 1]] {
        fs::write(store.path(&id), bytes).unwrap();
        let error = LayerFiles::open(&store, std::slice::from_ref(&id)).unwrap_err();
        assert!(matches!(error, RootfsError::DamagedLayer { .. }) && error.to_string().contains(id.hex()), "{error}");
    }
    fs::write(store.path(&id), &image).unwrap();
    LayerFiles::open(&store, std::slice::from_ref(&id)).unwrap();
    fs::rename(store.path(&id), scratch.path("elsewhere")).unwrap();
    symlink(scratch.path("elsewhere"), store.path(&id)).unwrap();
    assert!(LayerFiles::open(&store, &[id]).is_err());
}

/// Number, first sector and sectors of each partition that a program of util-linux finds.
fn partx(disk: &Path) -> Vec<(usize, u64, u64)> {
    let out = run("partx", &["--show", "--noheadings", "-o", "NR,START,SECTORS,TYPE", disk.to_str().unwrap()]);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[3], "0fc63daf-8483-4772-8e79-3d69d8477de4", "{line}");
        (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].parse().unwrap())
    };
    out.lines().map(row).collect()
}

#[test]
fn other_programs_read_the_table_by_either_of_its_copies() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    let many: Vec<u64> = (0..MOST_PARTITIONS as u64).map(|n| (n * n + 1) * 4096).collect();
    for (lengths, alignment) in
        [(vec![4096], 4096), (vec![4096, 1, 5 << 40, 512 * 77], 4096), (vec![4096, 8192], 2 * MIB), (many, 2 * MIB)]
    {
        let table = partitions(&lengths, alignment).unwrap();
        let expected: Vec<_> = table
            .extents
            .iter()
            .enumerate()
            .map(|(index, extent)| (index + 1, extent.offset / SECTOR, extent.length.div_ceil(SECTOR)))
            .collect();
        for damaged in [None, Some(SECTOR), Some(table.disk_bytes() - SECTOR)] {
            let disk = File::create(&path).unwrap();
            disk.set_len(table.disk_bytes()).unwrap();
            disk.write_all_at(&table.head, 0).unwrap();
            disk.write_all_at(&table.tail, table.tail_offset).unwrap();
            if let Some(offset) = damaged {
                disk.write_all_at(&[0xFF; SECTOR as usize], offset).unwrap();
            }
            assert_eq!(partx(&path), expected, "damaged: {damaged:?}");
        }
    }
}

#[test]
fn extents_stand_where_they_are_told() {
    let lengths = [4096, 1, 3 * MIB + 7, 0, 512];
    for alignment in [4096, 2 * MIB] {
        let table = partitions(&lengths, alignment).unwrap();
        let mut end = table.head.len() as u64;
        for (Extent { offset, length }, wanted) in table.extents.iter().zip(lengths) {
            assert!(offset % alignment == 0 && *offset >= end && *offset - end < alignment, "{table:?}");
            assert_eq!(*length, wanted);
            end = offset + length;
        }
        assert!(table.tail_offset >= end && table.disk_bytes().is_multiple_of(4096));
        assert_eq!(table, partitions(&lengths, alignment).unwrap());
    }
    assert!(partitions(&[], 4096).unwrap().extents.is_empty());
    let error = partitions(&vec![4096; MOST_PARTITIONS + 1], 4096).unwrap_err().to_string();
    assert!(error.contains("129") && error.contains("several disks"), "{error}");
}

#[test]
fn a_kernel_mounts_every_layer_of_the_one_disk() {
    let scratch = Scratch::new();
    let ids: Vec<_> =
        (0..20u8).map(|n| scratch.convert(&mut Cursor::new(tar(&[file("f", &vec![n; 5_000])]))).0).collect();
    let files = LayerFiles::open(&scratch.store(), &ids).unwrap();
    let table = partitions(&files.lengths(), 4096).unwrap();
    let path = scratch.path("disk");
    let disk = File::create(&path).unwrap();
    disk.set_len(table.disk_bytes()).unwrap();
    disk.write_all_at(&table.head, 0).unwrap();
    for (layer, extent) in files.layers().iter().zip(&table.extents) {
        let mut bytes = Vec::new();
        let mut from = layer.file();
        from.read_to_end(&mut bytes).unwrap();
        disk.write_all_at(&bytes, extent.offset).unwrap();
    }
    disk.write_all_at(&table.tail, table.tail_offset).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let point = scratch.mkdir("point");
    for (number, start, sectors) in partx(&path) {
        let options = format!("ro,loop,offset={},sizelimit={}", start * SECTOR, sectors * SECTOR);
        run("mount", &["-t", "erofs", "-o", &options, path.to_str().unwrap(), point.to_str().unwrap()]);
        assert_eq!(fs::read(point.join("f")).unwrap(), vec![number as u8 - 1; 5_000]);
        unmount(&point);
    }
}
