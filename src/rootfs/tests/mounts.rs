//! Layers mounted once, used by many, unmounted by the last; whoever dies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use sbx_rootfs::{Backing, LayerId, LayerMounts, Released, RootfsError};

use crate::archive::{file, tar};
use crate::scratch::{Scratch, run};

fn layer_image(scratch: &Scratch, content: &[u8]) -> (LayerId, std::path::PathBuf) {
    let (id, _) = scratch.convert(&mut std::io::Cursor::new(tar(&[file("f", content)])));
    let path = scratch.store().path(&id);
    (id, path)
}

/// What mount points are below the scratch's run directory.
fn mounted(scratch: &Scratch) -> Vec<String> {
    let run = scratch.path("run/layers");
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(&run)))
        .map(str::to_owned)
        .collect()
}

/// Nothing is mounted and nobody's lock is left. The empty mount points of layers that were used stay for the next use.
fn is_unused(scratch: &Scratch) -> bool {
    let mut entries = fs::read_dir(scratch.path("run/layers")).unwrap().map(Result::unwrap);
    mounted(scratch).is_empty()
        && entries
            .all(|entry| entry.file_type().unwrap().is_dir() && fs::read_dir(entry.path()).unwrap().next().is_none())
}

#[test]
fn a_layer_is_mounted_once_and_unmounted_with_its_last_use() {
    let scratch = Scratch::new();
    let (id, image) = layer_image(&scratch, b"content");
    let mounts = scratch.mounts();
    for backing in [Backing::File, Backing::Loop, Backing::Auto] {
        let first = mounts.acquire_by(&id, &image, backing).unwrap();
        let second = mounts.acquire_by(&id, &image, backing).unwrap();
        let table = mounted(&scratch);
        assert_eq!(table.len(), 1, "{table:?}");
        assert!(table[0].contains(" ro,nosuid,nodev,noexec"), "{table:?}");
        assert_eq!(table[0].contains("/dev/loop"), backing == Backing::Loop, "{table:?}");
        let file = scratch.point(&first).join("f");
        assert_eq!(fs::read(&file).unwrap(), b"content");
        assert_eq!(first.release().unwrap(), Released::InUse);
        assert_eq!(fs::read(&file).unwrap(), b"content");
        assert_eq!(mounts.reap().unwrap(), []);
        assert_eq!(second.release().unwrap(), Released::Unmounted);
        assert!(is_unused(&scratch));
    }
    let dropped = mounts.acquire(&id, &image).unwrap();
    drop(dropped);
    assert!(is_unused(&scratch));
    assert!(!run("losetup", &["-a"]).contains(image.to_str().unwrap()), "the loop device is still bound");
}

#[test]
fn an_image_that_is_missing_or_damaged_is_named() {
    let scratch = Scratch::new();
    let (id, image) = layer_image(&scratch, b"content");
    let mounts = scratch.mounts();
    for backing in [Backing::File, Backing::Loop] {
        let error = mounts.acquire_by(&scratch.new_id(), Path::new("/nowhere/x.erofs"), backing).unwrap_err();
        assert!(error.to_string().contains("/nowhere/x.erofs"), "{error}");
        fs::write(&image, vec![0; 8192]).unwrap();
        let error = mounts.acquire_by(&id, &image, backing).unwrap_err();
        assert!(
            matches!(error, RootfsError::Kernel { .. }) && error.to_string().contains(image.to_str().unwrap()),
            "{error}"
        );
    }
    assert!(is_unused(&scratch), "who could not mount leaves no lock");
    assert_eq!(mounts.reap().unwrap(), []);
}

#[test]
fn what_killed_users_leave_is_reaped() {
    let scratch = Scratch::new();
    let (id, image) = layer_image(&scratch, b"content");
    let (other, other_image) = layer_image(&scratch, b"other");
    let mounts = scratch.mounts();
    let kept = mounts.acquire(&other, &other_image).unwrap();
    // A flock that no process holds: what a SIGKILL leaves.
    use_and_die(&id, &image);
    assert_eq!(mounted(&scratch).len(), 2);
    assert_eq!(mounts.reap().unwrap(), std::slice::from_ref(&id));
    assert_eq!(mounted(&scratch).len(), 1);
    assert_eq!(kept.release().unwrap(), Released::Unmounted);
    // A crash between the steps of mounting and unmounting.
    let dir = scratch.path("run/layers");
    fs::write(dir.join(format!("{}.lock", id.hex())), b"").unwrap();
    assert!(dir.join(other.hex()).is_dir() && !dir.join(format!("{}.lock", other.hex())).exists());
    assert_eq!(mounts.reap().unwrap(), [id]);
    assert!(is_unused(&scratch));
}

/// Mounts like a process that then dies: its descriptors are closed, its `Drop` never runs.
fn use_and_die(id: &LayerId, image: &Path) {
    let me = std::env::current_exe().unwrap();
    let status = Command::new(me)
        .args(["--ignored", "--exact", "mounts::helper_that_dies", "--nocapture"])
        .env("SBX_TEST_RUN", mounts_run(image))
        .env("SBX_TEST_ID", id.hex())
        .env("SBX_TEST_IMAGE", image)
        .status()
        .unwrap();
    assert!(!status.success(), "the helper should have been killed");
}

fn mounts_run(image: &Path) -> std::path::PathBuf {
    image.ancestors().nth(3).unwrap().join("run")
}

#[test]
#[ignore = "a process that other tests start and kill"]
fn helper_that_dies() {
    let Some(run) = std::env::var_os("SBX_TEST_RUN") else {
        println!("skipped: only other tests start this one");
        return;
    };
    let mounts = LayerMounts::open(Path::new(&run)).unwrap();
    let id = LayerId::parse(&std::env::var("SBX_TEST_ID").unwrap()).unwrap();
    let image = std::path::PathBuf::from(std::env::var_os("SBX_TEST_IMAGE").unwrap());
    let rounds: u32 = std::env::var("SBX_TEST_ROUNDS").map_or(0, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let layer = mounts.acquire(&id, &image).unwrap();
        let file = run_path(&run, &id);
        assert_eq!(fs::read(&file).unwrap(), b"content", "round {round}");
        let _ = layer.release().unwrap();
    }
    if rounds == 0 {
        let _layer = mounts.acquire(&id, &image).unwrap();
        nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL).unwrap();
    }
}

fn run_path(run: &std::ffi::OsStr, id: &LayerId) -> std::path::PathBuf {
    Path::new(run).join("layers").join(id.hex()).join("f")
}

#[test]
fn many_processes_may_mount_and_unmount_at_once() {
    let scratch = Scratch::new();
    let (id, image) = layer_image(&scratch, b"content");
    let mut children: Vec<_> = (0..8)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "mounts::helper_that_dies"])
                .env("SBX_TEST_RUN", mounts_run(&image))
                .env("SBX_TEST_ID", id.hex())
                .env("SBX_TEST_IMAGE", &image)
                .env("SBX_TEST_ROUNDS", "200")
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    // One of them dies at a moment of its own choosing, and someone reaps all the while.
    children[0].kill().unwrap();
    while children[1..].iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        scratch.mounts().reap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    for child in &mut children[1..] {
        assert!(child.wait().unwrap().success());
    }
    children[0].wait().unwrap();
    scratch.mounts().reap().unwrap();
    assert!(is_unused(&scratch), "{:?}", mounted(&scratch));
}

#[test]
fn the_layers_root_is_the_tars() {
    let scratch = Scratch::new();
    let layer = scratch.layer(&tar(&[crate::archive::dir("./").mode(0o711).owner(7, 8)]));
    let metadata = fs::metadata(scratch.point(&layer)).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o711, 7, 8));
}
