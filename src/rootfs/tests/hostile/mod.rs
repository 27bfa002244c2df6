//! Tars that mean harm: each is refused by one clear error, or confined to the image. None may panic or grow without bound.

mod names;
mod sparse;
mod structure;

use std::io::{Cursor, Read};

use sbx_rootfs::{LayerError, Limits, write_layer};

use crate::archive::{file, member, pax, r, tar, unfinished};
use crate::compare;
use crate::scratch::{Scratch, refusal};

/// What must happen to a tar.
enum Fate {
    /// Refused, with these words in the error.
    Refused(&'static [&'static str]),
    /// Converted, with exactly these names in the image.
    Confined(&'static [&'static str]),
}
use Fate::{Confined, Refused};

/// What it is, the tar, and what must happen.
type Case = (&'static str, Vec<u8>, Fate);

#[test]
fn hostile_tars_are_refused_or_confined() {
    let cases: Vec<_> = [
        names::names(),
        names::links(),
        names::marks(),
        names::attributes(),
        structure::structure(),
        structure::sizes(),
        structure::extended_headers(),
        sparse::maps(),
        sparse::notations(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(cases.len() >= 100, "{}", cases.len());
    let scratch = Scratch::new();
    for (what, tar, fate) in cases {
        match (refusal(&tar, &Limits::default()), fate) {
            (None, Refused(words)) => panic!("{what}: accepted, expected an error with {words:?}"),
            (Some(why), Confined(_)) => panic!("{what}: refused: {why}"),
            (Some(why), Refused(words)) => {
                assert!(words.iter().all(|word| why.contains(word)), "{what}: {why:?} should say {words:?}");
                assert!(why.len() < 700 && !why.contains('\n'), "{what}: {why:?} is not one clear line");
            }
            (None, Confined(names)) => {
                let layer = scratch.layer(&tar);
                let found: Vec<_> =
                    compare::tree(&scratch.point(&layer)).into_keys().map(|n| String::from_utf8(n).unwrap()).collect();
                assert_eq!(found[1..], *names, "{what}");
            }
        }
    }
}

#[test]
fn every_limit_is_kept() {
    let limit = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let files: Vec<_> = (0..20).map(|i| file(&format!("file-{i}"), &[i; 5000])).collect();
    let sparse = pax(&[r("GNU.sparse.map", "0,1,10000,1,20000,1"), r("GNU.sparse.size", "30000")]);
    let cases: Vec<(&str, Vec<u8>, Limits)> = vec![
        ("entries", tar(&files), limit(|l| l.entries = 19)),
        ("entries", tar(&[file("d/".repeat(30).trim_end_matches('/'), b"")]), limit(|l| l.entries = 19)),
        ("bytes of tar", tar(&files), limit(|l| l.tar_bytes = 50_000)),
        ("bytes in the image", tar(&files), limit(|l| l.image_bytes = 50_000)),
        ("bytes of names", tar(&files), limit(|l| l.name_bytes = 100)),
        (
            "bytes in one extended header",
            tar(&[pax(&[r("path", "abc")]), file("x", b"")]),
            limit(|l| l.header_bytes = 10),
        ),
        (
            "bytes of extended attributes",
            tar(&[pax(&[r("SCHILY.xattr.user.a", [1; 1000])]), file("x", b"")]),
            limit(|l| l.xattr_bytes = 1000),
        ),
        ("segments of sparse files", tar(&[sparse, file("s", b"abc")]), limit(|l| l.sparse_segments = 2)),
    ];
    for (of, tar, limits) in &cases {
        let why = refusal(tar, limits).unwrap_or_else(|| panic!("{of}: no limit"));
        assert!(why.contains("exceeds the limit") && why.contains(of), "{of}: {why}");
        assert_eq!(refusal(tar, &Limits::default()), None);
    }
    let why = refusal(&tar(&[file("abc/def", b"")]), &limit(|l| l.path_bytes = 6)).unwrap();
    assert!(why.contains("path of 7 bytes"), "{why}");
    // Out of room for packed files is no error: they take blocks.
    assert_eq!(refusal(&tar(&[file("a", b"x"), file("b", b"y")]), &limit(|l| l.packed_bytes = 1)), None);
}

#[test]
fn bombs_end_at_a_limit_without_much_memory() {
    // A stream of zeroes without an end, and an entry that claims and delivers a pebibyte.
    let limits = Limits { tar_bytes: 100 << 20, image_bytes: 10 << 20, ..Limits::default() };
    let image = tempfile::tempfile().unwrap();
    let error = write_layer(&mut std::io::repeat(0), &image, &limits).unwrap_err();
    assert!(matches!(error, LayerError::Limit { of: "bytes of tar", .. }), "{error}");
    let head = unfinished(&[pax(&[r("size", (1u64 << 50).to_string())]), member(b'0', "bomb")]);
    let error = write_layer(&mut Cursor::new(head).chain(std::io::repeat(1)), &image, &limits).unwrap_err();
    assert!(matches!(error, LayerError::Limit { of: "bytes in the image", .. }), "{error}");
    // Headers that make tables: each of the files is a hole with a table of 4 KiB behind its inode.
    let holes: Vec<u8> = (0..5000)
        .flat_map(|i| {
            unfinished(&[
                pax(&[r("GNU.sparse.map", ""), r("GNU.sparse.size", "1099511627776")]),
                file(&format!("{i}"), b""),
            ])
        })
        .collect();
    let error = write_layer(&mut Cursor::new(holes), &image, &limits).unwrap_err();
    assert!(matches!(error, LayerError::Limit { of: "bytes in the image", .. }), "{error}");
}

#[test]
fn a_stream_that_fails_is_not_the_layers_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("connection reset"))
        }
    }
    let head = unfinished(&[file("a", &[0; 10_000])]);
    let image = tempfile::tempfile().unwrap();
    let error = write_layer(&mut Cursor::new(&head[..3000]).chain(Broken), &image, &Limits::default()).unwrap_err();
    assert!(matches!(error, LayerError::Read(_)) && error.to_string().contains("connection reset"), "{error}");
    // And an image that cannot be written is the disk's.
    let read_only = std::fs::File::open("/dev/null").unwrap();
    let error = write_layer(&mut Cursor::new(tar(&[file("a", b"")])), &read_only, &Limits::default()).unwrap_err();
    assert!(matches!(error, LayerError::Write(_)), "{error}");
}
