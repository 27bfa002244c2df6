//! Sparse files whose maps lie.

use super::Case;
use super::Fate::{Confined, Refused};
use crate::archive::{Member, file, member, pax, r, tar, unfinished};

pub(super) fn maps() -> Vec<Case> {
    let v10 = |size: &str, map: &str| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend(b"data");
        tar(&[
            pax(&[r("GNU.sparse.major", "1"), r("GNU.sparse.minor", "0"), r("GNU.sparse.realsize", size)]),
            file("s", &content),
        ])
    };
    let v01 = |size: &str, map: &str| {
        tar(&[pax(&[r("GNU.sparse.map", map), r("GNU.sparse.size", size)]), file("s", b"data")])
    };
    vec![
        ("segment beyond the size", v10("100", "1\n200\n4\n"), Refused(&["beyond the file's size"])),
        ("segments that overlap", v01("100", "0,3,2,1"), Refused(&["overlap"])),
        ("segments that go back", v01("100", "50,2,10,2"), Refused(&["overlap or go back"])),
        (
            "segments that overflow",
            v01("9223372036854775807", "9223372036854775807,9223372036854775807"),
            Refused(&["beyond"]),
        ),
        ("too few stored bytes", v01("100", "0,3"), Refused(&["account for"])),
        ("too many stored bytes", v01("100", "0,5"), Refused(&["account for"])),
        ("odd map", v01("100", "0,4,9"), Refused(&["GNU.sparse.map"])),
        ("map of letters", v10("100", "1\nx\n4\n"), Refused(&["sparse map"])),
        ("map that never ends", v10("100", "99999999999\n"), Refused(&["segments"])),
        ("map without its end", v10("100", "9\n1\n1\n"), Refused(&["sparse map"])),
    ]
}

pub(super) fn notations() -> Vec<Case> {
    let old = member(b'S', "s").gnu().octal(483, 12, 100).content(b"data");
    let slot = |m: Member, o: u64, l: u64| m.octal(386, 12, o).octal(398, 12, l);
    vec![
        ("no real size", tar(&[pax(&[r("GNU.sparse.map", "0,4")]), file("s", b"data")]), Refused(&["real size"])),
        ("offset without length", tar(&[pax(&[r("GNU.sparse.offset", "0")]), file("s", b"")]), Refused(&["numbytes"])),
        (
            "unknown version",
            tar(&[pax(&[r("GNU.sparse.major", "2"), r("GNU.sparse.minor", "0")]), file("s", b"")]),
            Refused(&["unknown version"]),
        ),
        (
            "unknown record",
            tar(&[pax(&[r("GNU.sparse.colour", "red")]), file("s", b"")]),
            Refused(&["unknown sparse format"]),
        ),
        (
            "old and PAX map at once",
            tar(&[pax(&[r("GNU.sparse.map", "0,4"), r("GNU.sparse.size", "9")]), slot(old.clone(), 0, 4)]),
            Refused(&["two sparse maps"]),
        ),
        ("old map beyond the size", tar(&[slot(old.clone(), 98, 4)]), Refused(&["beyond the file's size"])),
        (
            "old map cut off",
            unfinished(&[slot(old.clone(), 0, 4).bytes(482, b"\x01").body(b"").size(0)]),
            Refused(&["truncated", "sparse map"]),
        ),
        ("old map that fits", tar(&[slot(old, 96, 4)]), Confined(&["s"])),
        ("nothing but a hole of 2^62", v_hole(1 << 62), Refused(&["more than EROFS"])),
        ("nothing but a hole of 2^52", v_hole(1 << 52), Confined(&["s"])),
        (
            "few bytes at 2^51",
            tar(&[
                pax(&[
                    r("GNU.sparse.map", format!("{},4", 1u64 << 51)),
                    r("GNU.sparse.size", (1u64 << 52).to_string()),
                ]),
                file("s", b"data"),
            ]),
            Refused(&["image"]),
        ),
    ]
}

fn v_hole(size: u64) -> Vec<u8> {
    tar(&[pax(&[r("GNU.sparse.map", ""), r("GNU.sparse.size", size.to_string())]), file("s", b"")])
}
