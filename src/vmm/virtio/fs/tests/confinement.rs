//! Nothing leads out of a share, nothing but regular files and directories is ever opened, and a read-only share stays as
//! it is.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::client::{Client, bytes, named};
use crate::virtio::fs::abi::{
    CopyFileRangeIn, CreateIn, FallocateIn, LinkIn, LkIn, MknodIn, ROOT_ID, SetattrIn, WriteIn, fattr, opcode,
};
use crate::virtio::fs::share::Access;

#[test]
fn names_that_are_not_one_step_down_lead_nowhere() {
    let mut client = Client::new();
    fs::create_dir(client.host("d")).unwrap();
    let node = client.walk("d").unwrap();
    for name in ["..", ".", "", "/", "/etc/passwd", "../..", "d/..", "./d", "..//"] {
        for parent in [ROOT_ID, node] {
            assert_eq!(client.lookup(parent, name).err(), Some(Errno::EINVAL), "look up {name:?}");
            assert_eq!(client.mkdir(parent, name, 0o777).err(), Some(Errno::EINVAL), "make {name:?}");
            assert_eq!(client.create(parent, name, libc::O_RDWR, 0o777).err(), Some(Errno::EINVAL));
            assert_eq!(client.unlink(parent, name).err(), Some(Errno::EINVAL), "remove {name:?}");
            assert_eq!(client.rename((ROOT_ID, "d"), (parent, name), 0).err(), Some(Errno::EINVAL));
            assert_eq!(client.rename((parent, name), (ROOT_ID, "x"), 0).err(), Some(Errno::EINVAL));
            let link = [bytes(&LinkIn { oldnodeid: node }), named(name)].concat();
            assert_eq!(client.order(opcode::LINK, parent, &link), Err(Errno::EINVAL));
        }
    }
    assert_eq!(client.lookup(ROOT_ID, &"x".repeat(256)).err(), Some(Errno::ENAMETOOLONG));
}

#[test]
fn symbolic_links_are_told_and_never_followed() {
    let mut client = Client::new();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), client.host("directory")).unwrap();
    symlink(outside.path().join("secret"), client.host("file")).unwrap();
    symlink("/proc/self/root", client.host("magic")).unwrap();
    for name in ["directory", "file", "magic"] {
        let entry = client.lookup(ROOT_ID, name).unwrap();
        assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK, "{name}");
        assert_eq!(client.lookup(entry.nodeid, "secret").err(), Some(Errno::ENOTDIR), "{name}");
        assert_eq!(client.open(entry.nodeid, libc::O_RDWR).err(), Some(Errno::EINVAL), "{name}");
        assert_eq!(client.opendir(entry.nodeid).err(), Some(Errno::ENOTDIR), "{name}");
        assert_eq!(client.create(entry.nodeid, "new", libc::O_RDWR, 0o666).err(), Some(Errno::ENOTDIR), "{name}");
        let size = SetattrIn { valid: fattr::SIZE, ..SetattrIn::default() };
        assert_eq!(client.setattr(entry.nodeid, &size).err(), Some(Errno::EINVAL), "{name}");
        // The client looks again when it hears that something was there.
        assert_eq!(client.create(ROOT_ID, name, libc::O_RDWR, 0o666).err(), Some(Errno::ESTALE), "{name}");
        let exclusive = client.create(ROOT_ID, name, libc::O_RDWR | libc::O_EXCL, 0o666);
        assert_eq!(exclusive.err(), Some(Errno::EEXIST), "{name}");
    }
    let linked = LinkIn { oldnodeid: client.walk("file").unwrap() };
    client
        .ask::<crate::virtio::fs::abi::EntryOut>(opcode::LINK, ROOT_ID, &[bytes(&linked), named("again")].concat())
        .unwrap();
    assert!(fs::symlink_metadata(client.host("again")).unwrap().is_symlink());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn pipes_sockets_and_devices_are_never_opened() {
    let mut client = Client::new();
    mkfifo(&client.host("pipe"), Mode::from_bits_truncate(0o666)).unwrap();
    std::os::unix::net::UnixListener::bind(client.host("socket")).unwrap();
    let mut names = vec!["pipe", "socket"];
    if nix::unistd::geteuid().is_root() {
        let node = MknodIn { mode: libc::S_IFCHR | 0o666, rdev: 0x105, ..MknodIn::default() };
        client.bytes(opcode::MKNOD, ROOT_ID, &[bytes(&node), named("zero")].concat()).unwrap();
        assert!(fs::symlink_metadata(client.host("zero")).unwrap().file_type().is_char_device());
        names.push("zero");
    }
    for name in names {
        let node = client.walk(name).unwrap();
        // Opening a pipe that nobody writes to would wait for ever.
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            assert_eq!(client.open(node, flags).err(), Some(Errno::EINVAL), "{name}");
        }
        assert_eq!(client.opendir(node).err(), Some(Errno::ENOTDIR), "{name}");
        let size = SetattrIn { valid: fattr::SIZE, ..SetattrIn::default() };
        assert_eq!(client.setattr(node, &size).err(), Some(Errno::EINVAL), "{name}");
        assert_eq!(client.create(ROOT_ID, name, libc::O_RDWR, 0o666).err(), Some(Errno::ESTALE), "{name}");
    }
}

/// The host swaps a directory of the share with a symbolic link to another place, and a file with a pipe, as fast as it can,
/// while the guest goes through them.
#[test]
fn whatever_the_host_renames_in_the_meantime_leads_nowhere_else() {
    let mut client = Client::new();
    let outside = TempDir::new().unwrap();
    fs::create_dir(outside.path().join("inner")).unwrap();
    fs::write(outside.path().join("inner/file"), "secret").unwrap();
    fs::create_dir_all(client.host("a/inner")).unwrap();
    fs::write(client.host("a/inner/file"), "public").unwrap();
    symlink(outside.path(), client.host("b")).unwrap();
    fs::write(client.host("f"), "public").unwrap();
    mkfifo(&client.host("p"), Mode::from_bits_truncate(0o666)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, paths) = (stop.clone(), ["a", "b", "f", "p"].map(|name| client.host(name)));
        move || {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                for (one, other) in [(0, 1), (2, 3)] {
                    swap(&paths[one], &paths[other]);
                }
                swaps += 1;
            }
            swaps
        }
    });
    let (mut reads, mut refusals) = (0, 0);
    while reads < 200 || refusals < 200 {
        for path in ["a/inner/file", "b/inner/file", "f", "p"] {
            let opened = client.walk(path).and_then(|node| Ok((node, client.open(node, libc::O_RDWR)?.fh)));
            match opened {
                Ok((node, fh)) => {
                    assert_eq!(client.read(node, fh, 0, 100), Ok(b"public".to_vec()), "{path}");
                    client.release(node, fh).unwrap();
                    reads += 1;
                }
                Err(Errno::ENOTDIR | Errno::EINVAL | Errno::ENOENT | Errno::ESTALE) => refusals += 1,
                Err(error) => panic!("{path}: {error}"),
            }
        }
        let made = client.walk("a").and_then(|node| client.create(node, "new", libc::O_RDWR, 0o644));
        if let Ok((entry, fh)) = made {
            client.release(entry.nodeid, fh).unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(swapper.join().unwrap() > 0);
    assert!(!outside.path().join("new").exists());
    assert_eq!(fs::read(outside.path().join("inner/file")).unwrap(), b"secret");
}

fn swap(one: &std::path::Path, other: &std::path::Path) {
    use std::os::fd::AsFd;
    let root = super::client::path(one.parent().unwrap());
    let name =
        |path: &std::path::Path| std::ffi::CString::new(path.file_name().unwrap().as_encoded_bytes().to_vec()).unwrap();
    crate::virtio::fs::host::rename((root.as_fd(), &name(one)), (root.as_fd(), &name(other)), libc::RENAME_EXCHANGE)
        .unwrap();
}

#[test]
fn a_read_only_share_refuses_every_change_itself() {
    let mut client = Client::with(|path, share| {
        fs::write(path.join("f"), "content").unwrap();
        fs::create_dir(path.join("d")).unwrap();
        share.access = Access::ReadOnly;
    });
    let (f, d) = (client.walk("f").unwrap(), client.walk("d").unwrap());
    let fh = client.open(f, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(f, fh, 0, 100), Ok(b"content".to_vec()));
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(client.open(f, flags).err(), Some(Errno::EROFS));
    }
    let create = [bytes(&CreateIn::default()), named("n")].concat();
    let changes: Vec<(u32, u64, Vec<u8>)> = vec![
        (opcode::SETATTR, f, bytes(&SetattrIn { valid: fattr::MODE, ..SetattrIn::default() })),
        (opcode::SETATTR, f, bytes(&SetattrIn { valid: fattr::SIZE | fattr::FH, fh, ..SetattrIn::default() })),
        (opcode::SYMLINK, ROOT_ID, [named("n"), named("t")].concat()),
        (opcode::MKNOD, ROOT_ID, [bytes(&MknodIn { mode: libc::S_IFREG, ..MknodIn::default() }), named("n")].concat()),
        (opcode::MKDIR, ROOT_ID, [vec![0; 8], named("n")].concat()),
        (opcode::UNLINK, ROOT_ID, named("f")),
        (opcode::RMDIR, ROOT_ID, named("d")),
        (opcode::RENAME, ROOT_ID, [bytes(&ROOT_ID), named("f"), named("g")].concat()),
        (opcode::RENAME2, ROOT_ID, [bytes(&[d, 0]), named("f"), named("g")].concat()),
        (opcode::LINK, d, [bytes(&f), named("g")].concat()),
        (opcode::WRITE, f, [bytes(&WriteIn { fh, size: 1, ..WriteIn::default() }), vec![0]].concat()),
        (opcode::SETXATTR, f, [bytes(&[1_u32, 0, 0, 0]), named("user.a"), vec![0]].concat()),
        (opcode::REMOVEXATTR, f, named("user.a")),
        (opcode::CREATE, ROOT_ID, create.clone()),
        (opcode::TMPFILE, ROOT_ID, create),
        (opcode::FALLOCATE, f, bytes(&FallocateIn { fh, length: 1, ..FallocateIn::default() })),
        (
            opcode::COPY_FILE_RANGE,
            f,
            bytes(&CopyFileRangeIn { fh_in: fh, nodeid_out: f, fh_out: fh, len: 1, ..CopyFileRangeIn::default() }),
        ),
        (opcode::ACCESS, f, bytes(&[libc::W_OK as u32, 0])),
    ];
    for (code, node, body) in changes {
        assert_eq!(client.bytes(code, node, &body), Err(Errno::EROFS), "request {code}");
    }
    // Locking changes nothing that is on the disk, and is allowed, as on a read-only mount.
    let lock = LkIn { fh, owner: 1, end: i64::MAX as u64, kind: libc::F_RDLCK as u32, ..LkIn::default() };
    client.order(opcode::SETLK, f, &bytes(&lock)).unwrap();
    let exclusive = LkIn { kind: libc::F_WRLCK as u32, ..lock };
    assert_eq!(client.order(opcode::SETLK, f, &bytes(&exclusive)), Err(Errno::EBADF));
    assert_eq!(fs::read(client.host("f")).unwrap(), b"content");
    assert_eq!(fs::read_dir(client.host("")).unwrap().count(), 2);
}
