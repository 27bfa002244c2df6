//! Tars whose structure is broken or ambiguous.

use super::Case;
use super::Fate::{Confined, Refused};
use crate::archive::{Member, device, dir, file, link, long, member, pax, pax_records, r, tar, unfinished};

pub(super) fn structure() -> Vec<Case> {
    let three = [file("a", b"1"), file("b", &[2; 1000]), file("c", b"3")];
    let whole = tar(&three);
    let mut no_second_zero = unfinished(&three);
    no_second_zero.extend([0; 512]);
    let mut zero_inside = unfinished(&three[..1]);
    zero_inside.extend([0; 512]);
    zero_inside.extend(unfinished(&three[1..]));
    let mut after_the_end = whole.clone();
    after_the_end.extend(unfinished(&[file("hidden", b"x")]));
    vec![
        ("nothing at all", Vec::new(), Confined(&[])),
        ("no entries", tar(&[]), Confined(&[])),
        ("no end mark", unfinished(&three), Confined(&["a", "b", "c"])),
        ("half an end mark", no_second_zero, Confined(&["a", "b", "c"])),
        ("empty block between entries", zero_inside, Refused(&["empty block"])),
        ("entries after the end", after_the_end, Confined(&["a", "b", "c"])),
        ("cut in a header", whole[..100].to_vec(), Refused(&["truncated", "header"])),
        ("cut in content", whole[..2000].to_vec(), Refused(&["truncated", "content"])),
        ("cut in padding", whole[..520].to_vec(), Refused(&["truncated"])),
        ("noise", (0..5000u32).map(|i| (i * i % 251) as u8).collect(), Refused(&["checksum"])),
        ("wrong checksum", tar(&[file("a", b"").checksum(b"000000\0 ")]), Refused(&["checksum"])),
        ("checksum that is no number", tar(&[file("a", b"").checksum(b"zzzzzz\0 ")]), Refused(&["checksum"])),
    ]
}

pub(super) fn sizes() -> Vec<Case> {
    let header_only = |m: Member| tar(&[m.size(512).body(&file("smuggled", b"x").encode()[..512])]);
    vec![
        ("unknown type", tar(&[member(b'Q', "a")]), Refused(&["unknown entry type 'Q'"])),
        ("multi-volume", tar(&[member(b'M', "a")]), Refused(&["unknown entry type 'M'"])),
        ("negative size", tar(&[file("a", b"").bytes(124, &[0xff; 12])]), Refused(&["size", "negative"])),
        (
            "size of 2^70",
            tar(&[file("a", b"").bytes(124, &[0x80, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0])]),
            Refused(&["size", "too large"]),
        ),
        (
            "size of 2^62",
            tar(&[file("a", b"").bytes(124, &[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])]),
            Refused(&["limit", "image"]),
        ),
        ("size that is no number", tar(&[file("a", b"").bytes(124, b"12x45678901\0")]), Refused(&["size", "octal"])),
        ("mode that is no number", tar(&[file("a", b"").bytes(100, b"rwxr-xr\0")]), Refused(&["mode"])),
        (
            "PAX size of 2^63",
            tar(&[pax(&[r("size", "9223372036854775808")]), file("a", b"")]),
            Refused(&["PAX record size"]),
        ),
        ("negative PAX size", tar(&[pax(&[r("size", "-1")]), file("a", b"")]), Refused(&["PAX record size"])),
        ("PAX size beyond the end", tar(&[pax(&[r("size", "100000")]), file("a", b"x")]), Refused(&["truncated"])),
        // TARmageddon: whoever skips by the ustar size sees the inner tar's entries.
        ("PAX size over a smaller ustar size", smuggle(), Confined(&["outer", "tail"])),
        ("directory with content", header_only(dir("d")), Refused(&["only regular files"])),
        ("link with content", header_only(link(b'2', "l", "t")), Refused(&["only regular files"])),
        ("hard link with content", header_only(link(b'1', "l", "t")), Refused(&["only regular files"])),
        ("device with content", header_only(device(b'3', "d", 1, 3)), Refused(&["only regular files"])),
        (
            "directory with PAX size",
            tar(&[pax(&[r("size", "512")]), dir("d"), file("x", b"")]),
            Refused(&["only regular files"]),
        ),
        ("file with a trailing slash", tar(&[file("a/", b"")]), Refused(&["ends in a slash"])),
    ]
}

pub(super) fn extended_headers() -> Vec<Case> {
    vec![
        (
            "two PAX headers",
            tar(&[pax(&[r("path", "a")]), pax(&[r("path", "b")]), file("c", b"")]),
            Refused(&["two PAX headers"]),
        ),
        (
            "two long names",
            tar(&[long(b'L', b"a"), long(b'L', b"b"), file("c", b"")]),
            Refused(&["two long name headers"]),
        ),
        (
            "names that disagree",
            tar(&[long(b'L', b"a"), pax(&[r("path", "b")]), file("c", b"")]),
            Refused(&["differently"]),
        ),
        ("PAX header at the end", tar(&[pax(&[r("path", "a")])]), Refused(&["without an entry"])),
        ("long name at the end", unfinished(&[long(b'L', b"a")]), Refused(&["without an entry"])),
        (
            "global path",
            tar(&[member(b'g', "g").content(&pax_records(&[r("path", "/etc/shadow")])), file("a", b"")]),
            Refused(&["global", "path"]),
        ),
        (
            "global comment",
            tar(&[member(b'g', "g").content(&pax_records(&[r("comment", "hi")])), file("a", b"")]),
            Confined(&["a"]),
        ),
        (
            "global header in between",
            tar(&[pax(&[r("path", "b")]), member(b'g', "g").content(b""), file("a", b"")]),
            Refused(&["global header between"]),
        ),
        (
            "PAX record without a length",
            tar(&[member(b'x', "p").content(b"path=a\n"), file("a", b"")]),
            Refused(&["LENGTH"]),
        ),
        (
            "PAX record beyond its header",
            tar(&[member(b'x', "p").content(b"99 path=a\n"), file("a", b"")]),
            Refused(&["LENGTH"]),
        ),
        (
            "PAX record of length 0",
            tar(&[member(b'x', "p").content(b"0 path=a\n"), file("a", b"")]),
            Refused(&["LENGTH"]),
        ),
        (
            "PAX header of 2 MiB",
            tar(&[member(b'x', "p").content(&vec![b'1'; 2 << 20]), file("a", b"")]),
            Refused(&["extended header"]),
        ),
        (
            "PAX header of 2^62",
            tar(&[member(b'x', "p").bytes(124, &[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])]),
            Refused(&["extended header"]),
        ),
        ("PAX time that is none", tar(&[pax(&[r("mtime", "now")]), file("a", b"")]), Refused(&["mtime"])),
    ]
}

/// A file whose PAX size spans a whole inner tar, and whose ustar size is 0.
fn smuggle() -> Vec<u8> {
    let inner = unfinished(&[file("smuggled", b"x")]);
    let outer = file("outer", b"").body(&inner);
    tar(&[pax(&[r("size", inner.len().to_string())]), outer, file("tail", b"")])
}
