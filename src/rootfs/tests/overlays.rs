//! Roots of containers, as the container sees them.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use sbx_rootfs::{LayerMount, OverlayMethod, OverlayOptions, UpperFate, WritableLayer, overlay};

use crate::archive::{device, dir, file, link, member, pax, r, tar};
use crate::compare;
use crate::scratch::{Scratch, run, user_namespace};

const METHODS: [OverlayMethod; 2] = [OverlayMethod::Descriptors, OverlayMethod::Namespace];

fn names(top: &Path) -> Vec<String> {
    compare::tree(top).into_keys().skip(1).map(|name| String::from_utf8(name).unwrap()).collect()
}

fn base(scratch: &Scratch) -> LayerMount {
    scratch.layer(&tar(&[
        dir("./").mode(0o755),
        dir("etc"),
        file("etc/hosts", b"base"),
        file("etc/passwd", b"root"),
        dir("data"),
        file("data/old", b"old"),
        dir("gone"),
        file("gone/x", b"x"),
        link(b'2', "link", "etc/hosts"),
    ]))
}

fn change(scratch: &Scratch) -> LayerMount {
    scratch.layer(&tar(&[
        file("etc/hosts", b"changed"),
        file("etc/.wh.passwd", b""),
        file(".wh.gone", b""),
        dir("data"),
        file("data/.wh..wh..opq", b""),
        file("data/new", b"new"),
    ]))
}

#[test]
fn layers_stack_with_whiteouts_and_a_writable_top() {
    for method in METHODS {
        let scratch = Scratch::new();
        let layers = [base(&scratch), change(&scratch)];
        let writable = WritableLayer::create(&scratch.path("container"), &layers).unwrap();
        let options = OverlayOptions { method, ..OverlayOptions::default() };
        let mount = overlay(&layers, Some(&writable), &options).unwrap();
        assert_eq!(scratch.mount_points().len(), 2, "only the two layers are to be seen");
        let root = scratch.attach(&mount, "root");
        assert_eq!(names(&root), ["data", "data/new", "etc", "etc/hosts", "link"]);
        assert_eq!(fs::read(root.join("link")).unwrap(), b"changed");
        // One st_dev for all, as where all layers are on one file system.
        fs::write(root.join("etc/own"), b"own").unwrap();
        let device = fs::metadata(&root).unwrap().dev();
        for name in ["data/new", "etc", "etc/hosts", "etc/own"] {
            assert_eq!(fs::metadata(root.join(name)).unwrap().dev(), device, "{name}");
        }
        // Copying up, removing, making anew.
        fs::write(root.join("etc/hosts"), b"mine").unwrap();
        fs::remove_dir_all(root.join("data")).unwrap();
        fs::create_dir(root.join("data")).unwrap();
        assert_eq!(names(&root), ["data", "etc", "etc/hosts", "etc/own", "link"]);
        assert_eq!(fs::read(scratch.point(&layers[1]).join("etc/hosts")).unwrap(), b"changed");
        let error = fs::rename(root.join("etc"), root.join("etc2")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "directories of the image are not renamed, as in Docker");
    }
}

#[test]
fn the_mount_is_gone_with_its_descriptor() {
    for method in METHODS {
        let scratch = Scratch::new();
        let layers = [base(&scratch)];
        let writable = WritableLayer::create(&scratch.path("container"), &layers).unwrap();
        let options = OverlayOptions { method, ..OverlayOptions::default() };
        drop(overlay(&layers, Some(&writable), &options).unwrap());
        // While an overlay lives, another over the same upper directory is refused or warned of; this one is new and works.
        let mount = overlay(&layers, Some(&writable), &options).unwrap();
        let root = scratch.attach(&mount, "root");
        fs::write(root.join("x"), b"x").unwrap();
        drop(mount);
        nix::mount::umount2(&root, nix::mount::MntFlags::empty()).unwrap();
        assert_eq!(scratch.mount_points().len(), 1);
    }
}

#[test]
fn a_writable_layer_that_will_be_discarded_is_never_synced() {
    for method in METHODS {
        let scratch = Scratch::new();
        let layers = [base(&scratch)];
        let writable = WritableLayer::create(&scratch.path("container"), &layers).unwrap();
        let options = OverlayOptions { upper: UpperFate::Discarded, method, ..OverlayOptions::default() };
        let root = scratch.attach(&overlay(&layers, Some(&writable), &options).unwrap(), "root");
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(root.to_str().unwrap())).unwrap();
        assert!(line.contains("volatile"), "{line}");
        fs::write(root.join("etc/hosts"), b"mine").unwrap();
        nix::mount::umount2(&root, nix::mount::MntFlags::empty()).unwrap();
        writable.remove().unwrap();
    }
}

#[test]
fn read_only_roots_need_no_upper_and_hide_whiteouts_even_in_one_layer() {
    for method in METHODS {
        let scratch = Scratch::new();
        let layers = [change(&scratch)];
        let options = OverlayOptions { method, ..OverlayOptions::default() };
        let root = scratch.attach(&overlay(&layers, None, &options).unwrap(), "root");
        assert_eq!(names(&root), ["data", "data/new", "etc", "etc/hosts"]);
        assert!(compare::tree(&root).values().all(|node| node.xattrs.is_empty()), "overlayfs's marks are visible");
        let error = fs::write(root.join("x"), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let both = [base(&scratch), change(&scratch)];
        let root = scratch.attach(&overlay(&both, None, &options).unwrap(), "root2");
        assert_eq!(names(&root), ["data", "data/new", "etc", "etc/hosts", "link"]);
    }
}

#[test]
fn an_opaque_root_hides_all_layers_below_it() {
    let scratch = Scratch::new();
    let opaque = scratch.layer(&tar(&[file(".wh..wh..opq", b""), file("only", b"x")]));
    let top = scratch.layer(&tar(&[file("top", b"x")]));
    let layers = [base(&scratch), opaque, top];
    let root = scratch.attach(&overlay(&layers, None, &OverlayOptions::default()).unwrap(), "root");
    assert_eq!(names(&root), ["only", "top"]);
}

#[test]
fn an_image_without_layers_has_an_empty_root() {
    for method in METHODS {
        let scratch = Scratch::new();
        let options = OverlayOptions { method, ..OverlayOptions::default() };
        let writable = WritableLayer::create(&scratch.path("container"), &[]).unwrap();
        let root = scratch.attach(&overlay(&[], Some(&writable), &options).unwrap(), "root");
        assert_eq!(names(&root), Vec::<String>::new());
        fs::write(root.join("x"), b"x").unwrap();
        let error = overlay(&[], None, &options).unwrap_err();
        assert!(error.to_string().contains("0 layers"), "{error}");
    }
}

#[test]
fn programs_run_with_their_bits_and_devices_open() {
    for method in METHODS {
        let scratch = Scratch::new();
        let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/bin/true")).unwrap();
        let layers = [scratch.layer(&tar(&[
            file("bin/program", &busybox).mode(0o4755),
            device(b'3', "dev/zero", 1, 5).mode(0o666),
            member(b'6', "fifo"),
            pax(&[r(
                "SCHILY.xattr.security.capability",
                [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            )]),
            file("bin/ping", &busybox).mode(0o755),
        ]))];
        let writable = WritableLayer::create(&scratch.path("container"), &layers).unwrap();
        let options = OverlayOptions { method, ..OverlayOptions::default() };
        let root = scratch.attach(&overlay(&layers, Some(&writable), &options).unwrap(), "root");
        assert_eq!(fs::metadata(root.join("bin/program")).unwrap().mode() & 0o7777, 0o4755);
        let status = Command::new(root.join("bin/program")).arg("true").status().unwrap();
        assert!(status.code().is_some());
        let mut byte = [1];
        io::Read::read_exact(&mut fs::File::open(root.join("dev/zero")).unwrap(), &mut byte).unwrap();
        assert_eq!(byte, [0]);
        // Copying up keeps them.
        chown(root.join("fifo"), Some(3), Some(4)).unwrap();
        fs::set_permissions(root.join("dev/zero"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(root.join("dev/zero")).unwrap().rdev(), libc::makedev(1, 5));
    }
}

#[test]
fn a_user_namespace_sees_its_own_root_as_the_owner() {
    for method in METHODS {
        let scratch = Scratch::new();
        let layers = [
            base(&scratch),
            scratch.layer(&tar(&[
                file("tool", b"x").mode(0o4711),
                file("users", b"x").owner(1000, 1000),
                dir("home").owner(1000, 1000),
            ])),
        ];
        let writable = WritableLayer::create(&scratch.path("container"), &layers).unwrap();
        let (namespace, mut keeper) = user_namespace(300_000);
        let options = OverlayOptions { user_namespace: Some(namespace.as_fd()), method, ..OverlayOptions::default() };
        let mount = overlay(&layers, Some(&writable), &options).unwrap();
        let root = scratch.attach(&mount, "root");
        fs::set_permissions(scratch.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        // The host sees the mapped ids, the disk keeps the image's.
        assert_eq!(fs::metadata(root.join("tool")).unwrap().uid(), 300_000);
        assert_eq!(fs::metadata(root.join("users")).unwrap().uid(), 301_000);
        assert_eq!(fs::metadata(&root).unwrap().uid(), 300_000);
        // In the namespace: what is, copying up, new files, other owners.
        let script = "stat -c '%u:%g %a' tool users home . && echo mine > etc/hosts && echo new > new && chown 5:6 new && rm users && mkdir home/d \
            && stat -c '%u:%g' etc/hosts new home/d && cat etc/hosts && ls";
        let keeper_id = keeper.id().to_string();
        let directory = format!("--wd={}", root.display());
        let arguments = ["-t", &keeper_id, "-U", "-S", "0", "-G", "0", &directory, "sh", "-ec", script];
        let output = run("nsenter", &arguments);
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(
            lines[..7],
            ["0:0 4711", "1000:1000 644", "1000:1000 755", "0:0 755", "0:0", "5:6", "0:0"],
            "{output}"
        );
        assert_eq!(lines[7..], ["mine", "data", "etc", "gone", "home", "link", "new", "tool"], "{output}");
        let upper = writable.upper();
        let owner = |name: &str| fs::symlink_metadata(upper.join(name)).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!(
            (owner("etc/hosts"), owner("new"), owner("home/d"), owner("home")),
            ((0, 0), (5, 6), (0, 0), (1000, 1000))
        );
        // The host's root is nobody there.
        let error = Command::new("nsenter")
            .args([
                "-t",
                &keeper_id,
                "-U",
                "-S",
                "0",
                "-G",
                "0",
                "sh",
                "-c",
                &format!("echo x > {}/canary", scratch.path("").display()),
            ])
            .output()
            .unwrap();
        assert!(!error.status.success());
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
    }
}

#[test]
fn two_hundred_layers_are_stacked_in_order() {
    for method in METHODS {
        let scratch = Scratch::new();
        let layers: Vec<LayerMount> = (0..200)
            .map(|i| scratch.layer(&tar(&[file("who", format!("{i}").as_bytes()), file(&format!("layer-{i}"), b"")])))
            .collect();
        let writable = WritableLayer::create(&scratch.path("container"), &layers).unwrap();
        let options = OverlayOptions { method, ..OverlayOptions::default() };
        let root = scratch.attach(&overlay(&layers, Some(&writable), &options).unwrap(), "root");
        assert_eq!(fs::read(root.join("who")).unwrap(), b"199");
        assert_eq!(names(&root).len(), 201);
    }
}

#[test]
fn layers_by_loop_device_work_the_same() {
    let scratch = Scratch::new();
    let (id, _) = scratch.convert(&mut io::Cursor::new(tar(&[file("f", b"loop")])));
    let layer = scratch.mounts().acquire_by(&id, &scratch.store().path(&id), sbx_rootfs::Backing::Loop).unwrap();
    let writable = WritableLayer::create(&scratch.path("container"), std::slice::from_ref(&layer)).unwrap();
    let root = scratch
        .attach(&overlay(std::slice::from_ref(&layer), Some(&writable), &OverlayOptions::default()).unwrap(), "root");
    assert_eq!(fs::read(root.join("f")).unwrap(), b"loop");
    symlink("f", root.join("l")).unwrap();
    assert_eq!(fs::read(root.join("l")).unwrap(), b"loop");
}
