//! What a layer's tar means, seen through the kernel's eyes.

use std::ffi::CString;
use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sbx_rootfs::{Limits, write_layer};

use crate::archive::{Member, device, dir, file, link, long, member, pax, r, tar};
use crate::compare;
use crate::scratch::{Scratch, get_xattr, refusal, run};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    get_xattr(&path, &CString::new(name).unwrap())
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.mode() & libc::S_IFMT == libc::S_IFCHR && m.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

/// Every kind of entry, each with something unusual about it.
fn every_feature() -> Vec<Member> {
    let name255 = "n".repeat(255);
    let mut members = vec![
        dir("./").mode(0o751).owner(5, 6),
        dir("etc/").mtime(1_600_000_000),
        file("etc/empty", b""),
        file("etc/small", b"small\n").mode(0o4755).owner(1000, 2000),
        file("etc/block", &[7; 4096]),
        file("etc/block-and-more", &[8; 4097]),
        file("etc/most-of-a-block", &[9; 4032]),
        file("etc/large", &(0..3_000_001u32).map(|i| (i * 7 % 251) as u8).collect::<Vec<_>>()),
        link(b'2', "etc/link", "../nowhere/at/all"),
        link(b'2', "etc/absolute", "/etc/small"),
        link(b'1', "etc/hard", "etc/small"),
        link(b'1', "etc/hard-link-to-link", "./etc/link"),
        dir("dev").mode(0o1777),
        device(b'3', "dev/null", 1, 3).mode(0o666),
        device(b'4', "dev/sda", 8, 0x12345).mode(0o660).owner(0, 6),
        member(b'6', "dev/fifo").mode(0o600),
        member(b'7', "etc/contiguous").content(b"old type"),
        pax(&[r("mtime", b"1500000000.123456789"), r("uid", b"3000000000"), r("gid", b"4000000000")]),
        file("etc/large-ids", b"x"),
        pax(&[r("mtime", b"-1.5")]),
        file("etc/before-1970", b"x"),
        pax(&[
            r("SCHILY.xattr.user.one", b"1"),
            r("SCHILY.xattr.user.binary", b"\0\xff\n=\0"),
            r("SCHILY.xattr.security.capability", CAPABILITY),
        ]),
        file("etc/attributes", b"x"),
        pax(&[
            r("SCHILY.xattr.user.one", b"1"),
            r("SCHILY.xattr.trusted.mine", b"t"),
            r("SCHILY.xattr.system.posix_acl_access", acl()),
        ]),
        file("etc/acl", b"x").mode(0o674),
        pax(&[r("SCHILY.xattr.system.posix_acl_default", acl()), r("LIBARCHIVE.xattr.user.b%3D64", b"aGVsbG8")]),
        dir("etc/default-acl"),
        pax(&[r("SCHILY.xattr.user.big", [b'v'; 60000]), r("SCHILY.xattr.user.big2", [b'w'; 60000])]),
        file("etc/big-attributes", &[1; 3000]),
        pax(&[r("SCHILY.xattr.trusted.on-link", [b'v'; 5000])]),
        link(b'2', "etc/link-with-big-attributes", "target"),
        long(b'L', format!("etc/{name255}").as_bytes()).gnu(),
        file("short", b"gnu long name").gnu(),
        long(b'K', "t".repeat(4000).as_bytes()),
        link(b'2', "etc/long-target", "short"),
        pax(&[r("path", b"etc/pax-name\xff\xfe"), r("linkpath", "p/".repeat(1000).as_bytes())]),
        link(b'2', "etc/ignored", "ignored"),
        file(&format!("{}/{}", "d".repeat(60), "f".repeat(90)), b"ustar prefix"),
        file("usr/share/doc/made/up/parents", b"x"),
    ];
    members
        .extend((0..300).map(|i| file(&format!("many/{i:03}-{}", "m".repeat(i % 80)), &vec![i as u8; i * 13 % 5000])));
    members
}

/// `struct vfs_cap_data` with cap_net_raw, as ping has it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// u::rw-,u:1000:rwx,g::r--,m::rwx,o::r--
fn acl() -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 6u16, u32::MAX), (2, 7, 1000), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 4, u32::MAX)]
    {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

#[test]
fn every_feature_is_as_gnu_tar_extracts_it() {
    let scratch = Scratch::new();
    let tar = tar(&every_feature());
    let layer = scratch.layer(&tar);
    fs::write(scratch.path("layer.tar"), &tar).unwrap();
    let extracted = scratch.mkdir("extracted");
    extract(&scratch.path("layer.tar"), &extracted);
    let mut expected = compare::tree(&extracted);
    // What GNU tar does not do: base64 attributes (libarchive's), and dates for parents that it made up.
    expected.get_mut(&b"etc/default-acl"[..]).unwrap().xattrs.insert(b"user.b=64".to_vec(), b"hello".to_vec());
    // ext4 has one block for attributes: these do not fit, EROFS has room.
    for name in [&b"etc/big-attributes"[..], b"etc/link-with-big-attributes"] {
        expected.get_mut(name).unwrap().xattrs.clear();
    }
    let mut found = compare::tree(&scratch.point(&layer));
    let big = std::mem::take(&mut found.get_mut(&b"etc/big-attributes"[..]).unwrap().xattrs);
    assert_eq!(big.values().map(Vec::len).collect::<Vec<_>>(), [60000, 60000]);
    let on_link = std::mem::take(&mut found.get_mut(&b"etc/link-with-big-attributes"[..]).unwrap().xattrs);
    assert_eq!(on_link[&b"trusted.on-link"[..]], [b'v'; 5000]);
    for made_up in [
        "d".repeat(60).as_str(),
        "usr",
        "usr/share",
        "usr/share/doc",
        "usr/share/doc/made",
        "usr/share/doc/made/up",
        "many",
    ] {
        let node = found.get_mut(made_up.as_bytes()).unwrap();
        assert_eq!((node.mode & 0o7777, node.owner, node.mtime), (0o755, (0, 0), (1_700_000_000, 0)));
        node.mtime = expected[made_up.as_bytes()].mtime;
    }
    compare::assert_same(&found, &expected);
}

fn extract(tar: &Path, into: &Path) {
    // The umask is GNU tar's for parents that it makes up.
    let options =
        ["--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "--delay-directory-restore"];
    let script = format!("umask 022; exec tar -x {} -f \"$1\" -C \"$2\" 2>/dev/null || true", options.join(" "));
    run("sh", &["-c", &script, "sh", tar.to_str().unwrap(), into.to_str().unwrap()]);
}

#[test]
fn the_same_tar_gives_the_same_bytes_however_it_arrives() {
    /// Hands out a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);
    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1 = self.1 * 31 % 70_001;
            let count = into.len().min(self.0.len()).min(1 + self.1);
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }
    let tar = tar(&every_feature());
    let convert = |input: &mut dyn Read| {
        let mut image = tempfile::tempfile().unwrap();
        let stats = write_layer(input, &image, &Limits::default()).unwrap();
        assert_eq!(stats.tar_bytes, tar.len() as u64);
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut image).unwrap();
        image.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, stats.image_bytes);
        bytes
    };
    let first = convert(&mut Cursor::new(&tar));
    assert!(first == convert(&mut Cursor::new(&tar)));
    assert!(first == convert(&mut Trickle(&tar, 12345)));
}

#[test]
fn whiteouts_become_what_overlayfs_knows() {
    let scratch = Scratch::new();
    let layer = scratch.layer(&tar(&[
        file(".wh.gone", b""),
        dir("a/"),
        file("a/.wh..wh..opq", b""),
        file("a/kept", b"x"),
        // Nothing to hide in an opaque directory, nor below one.
        file("a/.wh.useless", b""),
        file("a/b/.wh.useless", b""),
        // Hidden below, made anew here: in either order the directory is opaque.
        file(".wh.anew", b""),
        dir("anew/"),
        file("anew/x", b"x"),
        dir("anew2/"),
        file("anew2/x", b"x"),
        file(".wh.anew2", b""),
        // A parent that no entry describes, after its whiteout.
        file(".wh.implied", b""),
        file("implied/x", b"x"),
        // A file of this layer is never hidden by this layer.
        file(".wh.file", b""),
        file("file", b"x"),
        file("file2", b"x"),
        file(".wh.file2", b""),
        // AUFS's own.
        file(".wh..wh.aufs", b""),
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2", b"x"),
        // overlayfs's own notation.
        device(b'3', "device", 0, 0),
        device(b'3', "dev/zero", 1, 5),
        file("a/.wh..wh..opq", b""),
    ]));
    let top = scratch.point(&layer);
    let names: Vec<_> = compare::tree(&top).into_keys().map(|name| String::from_utf8(name).unwrap()).collect();
    let expected = [
        "",
        "a",
        "a/b",
        "a/kept",
        "anew",
        "anew/x",
        "anew2",
        "anew2/x",
        "dev",
        "dev/zero",
        "device",
        "file",
        "file2",
        "gone",
        "implied",
        "implied/x",
    ];
    assert_eq!(names, expected);
    for whiteout in ["gone", "device"] {
        assert!(is_whiteout(&top.join(whiteout)), "{whiteout}");
    }
    for opaque in ["a", "anew", "anew2", "implied"] {
        assert!(is_opaque(&top.join(opaque)), "{opaque}");
    }
    for plain in ["", "a/b", "dev"] {
        assert!(!is_opaque(&top.join(plain)), "{plain}");
    }
    assert!(!is_whiteout(&top.join("dev/zero")));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let scratch = Scratch::new();
    let layer = scratch.layer(&tar(&[
        file("f", b"first"),
        link(b'1', "old", "f"),
        file("f", b"second"),
        dir("d").mode(0o700),
        file("d/x", b"x"),
        dir("d").mode(0o711).owner(1, 2),
        file("to-file/x", b"x"),
        file("to-file", b"now a file"),
        file("to-dir", b"x"),
        dir("to-dir"),
        file("to-dir/x", b"x"),
        file("to-link/x", b"x"),
        link(b'2', "to-link", "d"),
        // Through the link that is there now, as in a chroot.
        file("to-link/through", b"through"),
        link(b'2', "abs", "/d"),
        file("abs/absolute", b"a"),
        link(b'2', "up", "../../../d"),
        file("up/clamped", b"c"),
        link(b'2', "ahead", "made/later"),
        file("ahead/x", b"x"),
        // A directory replaces a link; it does not go through it.
        link(b'2', "link-to-dir", "d"),
        dir("link-to-dir"),
        file("link-to-dir/own", b"o"),
    ]));
    let top = scratch.point(&layer);
    let read = |name: &str| fs::read_to_string(top.join(name)).unwrap();
    assert_eq!(read("f"), "second");
    assert_eq!(read("old"), "first");
    assert_eq!(fs::metadata(top.join("old")).unwrap().nlink(), 1);
    let d = fs::metadata(top.join("d")).unwrap();
    assert_eq!((d.mode() & 0o7777, d.uid(), d.gid()), (0o711, 1, 2));
    assert_eq!(read("to-file"), "now a file");
    assert_eq!(read("to-dir/x"), "x");
    let mut names: Vec<_> =
        fs::read_dir(top.join("d")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["absolute", "clamped", "through", "x"]);
    assert_eq!(read("made/later/x"), "x");
    assert!(fs::symlink_metadata(top.join("link-to-dir")).unwrap().is_dir());
    assert_eq!(read("link-to-dir/own"), "o");
}

#[test]
fn a_hard_link_may_name_itself_but_nothing_that_is_not_there() {
    let limits = Limits::default();
    assert_eq!(refusal(&tar(&[file("a", b"x"), link(b'1', "a", "a")]), &limits), None);
    let why = refusal(&tar(&[link(b'1', "a", "usr/bin/perl")]), &limits).unwrap();
    assert!(why.contains("\"a\"") && why.contains("usr/bin/perl") && why.contains("this layer does not have"), "{why}");
    let why = refusal(&tar(&[file(".wh.b", b""), link(b'1', "a", "b")]), &limits).unwrap();
    assert!(why.contains("does not have"), "{why}");
}

#[test]
fn overlayfs_attributes_of_a_tar_are_dropped_and_counted() {
    let scratch = Scratch::new();
    let tar = tar(&[
        pax(&[
            r("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            r("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            r("SCHILY.xattr.trusted.overlay.metacopy", b""),
            r("SCHILY.xattr.com.apple.quarantine", b"x"),
            r("SCHILY.xattr.user.kept", b"k"),
        ]),
        dir("d"),
    ]);
    let (_, stats) = scratch.convert(&mut Cursor::new(&tar));
    assert_eq!(stats.dropped_xattrs, 4);
    let layer = scratch.layer(&tar);
    let d = scratch.point(&layer).join("d");
    assert_eq!(compare::tree(&d)[&b""[..]].xattrs.keys().collect::<Vec<_>>(), [&b"user.kept".to_vec()]);
}

#[test]
fn a_directory_of_100_000_names_is_listed_and_searched() {
    let scratch = Scratch::new();
    let members: Vec<_> = (0..100_000)
        .map(|i| file(&format!("d/{:x}-{}", i * 2_654_435_761u64, "n".repeat(i as usize % 60)), b""))
        .collect();
    let layer = scratch.layer(&tar(&members));
    let top = scratch.point(&layer).join("d");
    assert_eq!(fs::read_dir(&top).unwrap().count(), 100_000);
    for i in (0..100_000u64).step_by(997) {
        let name = format!("{:x}-{}", i * 2_654_435_761, "n".repeat(i as usize % 60));
        assert!(top.join(&name).exists(), "{name}");
        assert!(!top.join(format!("{name}!")).exists());
    }
}
