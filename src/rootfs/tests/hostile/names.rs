//! Hostile names, links, marks and attributes.

use super::Case;
use super::Fate::{Confined, Refused};
use crate::archive::{device, dir, file, link, long, pax, r, tar};

pub(super) fn names() -> Vec<Case> {
    vec![
        ("dot dot", tar(&[file("../evil", b"x")]), Refused(&["../evil", "leaves the root"])),
        ("dot dot inside", tar(&[file("a/../../evil", b"x")]), Refused(&["leaves the root"])),
        ("absolute dot dot", tar(&[file("/../evil", b"x")]), Refused(&["leaves the root"])),
        ("dot dot that stays", tar(&[file("a/../b", b"x")]), Confined(&["b"])),
        ("dot dot directory", tar(&[dir("..")]), Refused(&["leaves the root"])),
        ("absolute", tar(&[file("/etc/passwd", b"x")]), Confined(&["etc", "etc/passwd"])),
        ("many slashes", tar(&[file("////a//b", b"x")]), Confined(&["a", "a/b"])),
        ("empty name", tar(&[file("", b"x")]), Refused(&["root can only be a directory"])),
        ("root as a file", tar(&[file("./", b"x").bytes(156, b"\0")]), Refused(&["only regular files"])),
        ("root as a link", tar(&[link(b'2', ".", "/etc")]), Refused(&["root can only be a directory"])),
        ("root as a device", tar(&[device(b'3', "/", 1, 3)]), Refused(&["root can only be a directory"])),
        ("name of 256 bytes", tar(&[long(b'L', &[b'n'; 256]), file("x", b"")]), Refused(&["name of 256 bytes"])),
        ("name of 64 KiB", tar(&[pax(&[r("path", [b'n'; 65536])]), file("x", b"")]), Refused(&["path of 65536 bytes"])),
        (
            "path of 64 KiB",
            tar(&[pax(&[r("path", format!("{}n", "n/".repeat(32767)))]), file("x", b"")]),
            Refused(&["path of 65535 bytes"]),
        ),
        ("long name of 2 MiB", tar(&[long(b'L', &vec![b'n'; 2 << 20]), file("x", b"")]), Refused(&["extended header"])),
        ("NUL in a PAX name", tar(&[pax(&[r("path", "a\0b")]), file("x", b"")]), Refused(&["NUL"])),
        ("NUL in a PAX link", tar(&[pax(&[r("linkpath", "a\0b")]), link(b'2', "x", "y")]), Refused(&["NUL"])),
    ]
}

pub(super) fn links() -> Vec<Case> {
    vec![
        (
            "through a link out",
            tar(&[link(b'2', "out", "/etc"), file("out/passwd", b"x")]),
            Confined(&["etc", "etc/passwd", "out"]),
        ),
        ("through a link up", tar(&[link(b'2', "out", "../../../.."), file("out/x", b"x")]), Confined(&["out", "x"])),
        (
            "through a link to itself",
            tar(&[link(b'2', "l", "l"), file("l/x", b"x")]),
            Refused(&["too many symbolic links"]),
        ),
        (
            "through links in a circle",
            tar(&[link(b'2', "a", "b/c"), link(b'2', "b", "a/d"), file("a/x", b"x")]),
            Refused(&["too many symbolic links"]),
        ),
        ("through a file", tar(&[file("f", b""), file("f/x", b"x")]), Refused(&["not a directory"])),
        ("through a device", tar(&[device(b'3', "d", 1, 3), file("d/x", b"x")]), Refused(&["not a directory"])),
        ("hard link out", tar(&[link(b'1', "h", "../../etc/shadow")]), Refused(&["hard link", "leaves the root"])),
        ("hard link to the host", tar(&[link(b'1', "h", "/etc/shadow")]), Refused(&["/etc/shadow", "does not have"])),
        (
            "hard link through a link",
            tar(&[link(b'2', "l", "/"), link(b'1', "h", "l/etc/shadow")]),
            Refused(&["does not have"]),
        ),
        ("hard link to a directory", tar(&[dir("d"), link(b'1', "h", "d")]), Refused(&["directory"])),
        ("hard link to the root", tar(&[link(b'1', "h", "/")]), Refused(&["directory"])),
        ("link without a target", tar(&[link(b'2', "l", "")]), Refused(&["without a target"])),
        (
            "link of 64 KiB",
            tar(&[pax(&[r("linkpath", [b'n'; 65536])]), link(b'2', "l", "x")]),
            Refused(&["longer than 4095"]),
        ),
    ]
}

pub(super) fn marks() -> Vec<Case> {
    vec![
        ("whiteout of nothing", tar(&[file(".wh.", b"")]), Refused(&["whiteout of nothing"])),
        ("whiteout of dot", tar(&[file("a/.wh..", b"")]), Refused(&["whiteout of nothing"])),
        ("whiteout of dot dot", tar(&[file("a/.wh...", b"")]), Refused(&["whiteout of nothing"])),
        ("directory named as a whiteout", tar(&[file(".wh.a/b", b"")]), Refused(&["reserved for whiteouts"])),
        (
            "whiteout by a link",
            tar(&[link(b'2', "l", ".wh.a"), file("l/x", b"")]),
            Refused(&["reserved for whiteouts"]),
        ),
        ("whiteout of a link's name", tar(&[link(b'2', "l", "/etc"), file(".wh.l", b"")]), Confined(&["l"])),
        (
            "AUFS's hard links",
            tar(&[file(".wh..wh.plnk/1.2", b"x"), link(b'1', "a", ".wh..wh.plnk/1.2")]),
            Refused(&["does not have"]),
        ),
    ]
}

pub(super) fn attributes() -> Vec<Case> {
    vec![
        ("too large a device number", tar(&[device(b'3', "d", 4096, 0)]), Refused(&["4096:0"])),
        ("uid of nobody at all", tar(&[pax(&[r("uid", "4294967295")]), file("f", b"")]), Refused(&["owner"])),
        ("uid beyond 32 bits", tar(&[pax(&[r("gid", "99999999999")]), file("f", b"")]), Refused(&["group"])),
        ("negative uid", tar(&[file("f", b"").bytes(108, &[0xff; 8])]), Refused(&["owner", "negative"])),
        (
            "attribute of 64 KiB",
            tar(&[pax(&[r("SCHILY.xattr.user.a", [1; 65536])]), file("f", b"")]),
            Refused(&["user.a", "65535"]),
        ),
        (
            "attribute with a long name",
            tar(&[pax(&[r(&format!("SCHILY.xattr.user.{}", "n".repeat(300)), "v")]), file("f", b"")]),
            Refused(&["255"]),
        ),
        ("attribute without a name", tar(&[pax(&[r("SCHILY.xattr.", "v")]), file("f", b"")]), Refused(&["valid name"])),
        ("attribute without a rest", tar(&[pax(&[r("SCHILY.xattr.user.", "v")]), file("f", b"")]), Refused(&["empty"])),
        (
            "attribute with a NUL",
            tar(&[pax(&[r("SCHILY.xattr.user.a\0b", "v")]), file("f", b"")]),
            Refused(&["PAX record"]),
        ),
        (
            "broken ACL",
            tar(&[pax(&[r("SCHILY.xattr.system.posix_acl_access", "junk")]), file("f", b"")]),
            Refused(&["ACL"]),
        ),
        (
            "too many attributes",
            tar(&[
                pax(&(0..5).map(|i| r(&format!("SCHILY.xattr.user.{i}"), [1; 60000])).collect::<Vec<_>>()),
                file("f", b""),
            ]),
            Refused(&["bytes of extended attributes"]),
        ),
        (
            "broken base64",
            tar(&[pax(&[r("LIBARCHIVE.xattr.user.a", "!")]), file("f", b"")]),
            Refused(&["LIBARCHIVE.xattr.user.a"]),
        ),
    ]
}
