//! A place for one test: a temporary directory, a private mount namespace, and images made and mounted in it.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sbx_rootfs::{LayerId, LayerMount, LayerMounts, LayerStats, LayerStore, Limits, write_layer};

pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    next: std::cell::Cell<u8>,
}

impl Scratch {
    /// Puts the test's thread (and the processes it starts) into a mount namespace of its own: nothing stays behind, even if it panics.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("the tests need root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), next: std::cell::Cell::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Mount points below the directory, in the order of mounting.
    pub(crate) fn mount_points(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.dir.path())).collect()
    }

    /// A new directory.
    pub(crate) fn mkdir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn store(&self) -> LayerStore {
        LayerStore::open(&self.path("lib")).unwrap()
    }

    pub(crate) fn mounts(&self) -> LayerMounts {
        LayerMounts::open(&self.path("run")).unwrap()
    }

    /// A layer id that no other layer of this test has.
    pub(crate) fn new_id(&self) -> LayerId {
        let number = self.next.get();
        self.next.set(number + 1);
        LayerId::parse(&format!("{number:02x}").repeat(32)).unwrap()
    }

    /// Converts a tar into the store.
    pub(crate) fn convert(&self, tar: &mut dyn Read) -> (LayerId, LayerStats) {
        let (store, id) = (self.store(), self.new_id());
        let writer = store.writer().unwrap();
        let stats = write_layer(tar, writer.image(), &Limits::default()).unwrap();
        writer.commit(&id).unwrap();
        (id, stats)
    }

    /// Converts and mounts a tar, and has fsck.erofs look at it.
    pub(crate) fn layer(&self, tar: &[u8]) -> LayerMount {
        let (id, _) = self.convert(&mut Cursor::new(tar));
        let image = self.store().path(&id);
        check_image(&image);
        self.mounts().acquire(&id, &image).unwrap()
    }

    /// Where a layer is mounted.
    pub(crate) fn point(&self, layer: &LayerMount) -> PathBuf {
        self.path("run/layers").join(layer.id().hex())
    }

    /// Attaches a detached mount.
    pub(crate) fn attach(&self, mount: &OwnedFd, name: &str) -> PathBuf {
        let target = self.mkdir(name);
        attach(mount, &target);
        target
    }
}

impl Drop for Scratch {
    /// What is mounted would keep the directory from being removed.
    fn drop(&mut self) {
        for point in self.mount_points().iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

pub(crate) fn attach(mount: &OwnedFd, target: &Path) {
    use std::os::fd::AsRawFd;
    // util-linux of Debian 12 cannot attach descriptors; move_mount(2) can.
    let path = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()).unwrap();
    sbx_test_sys::move_mount(mount.as_raw_fd(), &path);
}

#[path = "sys.rs"]
mod sbx_test_sys;

pub(crate) use sbx_test_sys::{get_xattr, list_xattrs, set_xattr, user_namespace};

/// fsck.erofs must find nothing wrong.
pub(crate) fn check_image(image: &Path) {
    let output = Command::new("fsck.erofs").arg(image).output().expect("erofs-utils is needed");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command that must succeed; its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Converts a tar that must be refused, and says why it was.
pub(crate) fn refusal(tar: &[u8], limits: &Limits) -> Option<String> {
    let image: File = tempfile::tempfile().unwrap();
    write_layer(&mut Cursor::new(tar), &image, limits).err().map(|error| error.to_string())
}
