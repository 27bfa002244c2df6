//! Files with holes, and files beyond 32 bits.

use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::FileExt;

use crate::archive::{Member, file, member, pax, r, tar, unfinished};
use crate::compare;
use crate::scratch::{Scratch, run};

/// A sparse file of 10 GiB in each of the four notations.
fn sparse_members() -> Vec<Member> {
    const SIZE: u64 = 10 << 30;
    let (middle, end) = (5 << 30, SIZE - 5);
    let size = SIZE.to_string();
    let map = format!("0,3,{middle},4096,{end},5");
    let data = [&b"abc"[..], &[b'm'; 4096], b"zzzzz"].concat();
    let slot = |member: Member, i: usize, offset: u64, length: u64| {
        member.octal(386 + 24 * i, 12, offset).octal(398 + 24 * i, 12, length)
    };
    let old = slot(slot(slot(member(b'S', "old").gnu(), 0, 0, 3), 1, middle, 4096), 2, end, 5)
        .octal(483, 12, SIZE)
        .content(&data);
    let mut pax00 = vec![r("GNU.sparse.size", &size), r("GNU.sparse.numblocks", "3")];
    for (offset, length) in [(0, 3), (middle, 4096), (end, 5)] {
        pax00.push(r("GNU.sparse.offset", offset.to_string()));
        pax00.push(r("GNU.sparse.numbytes", length.to_string()));
    }
    let mut text_map = format!("3\n0\n3\n{middle}\n4096\n{end}\n5\n").into_bytes();
    text_map.resize(512, 0);
    vec![
        old,
        pax(&pax00),
        file("pax00", &data),
        pax(&[
            r("GNU.sparse.major", b"0"),
            r("GNU.sparse.minor", b"1"),
            r("GNU.sparse.name", b"pax01"),
            r("GNU.sparse.size", &size),
            r("GNU.sparse.map", &map),
        ]),
        file("GNUSparseFile.0/pax01", &data),
        pax(&[
            r("GNU.sparse.major", b"1"),
            r("GNU.sparse.minor", b"0"),
            r("GNU.sparse.name", b"pax10"),
            r("GNU.sparse.realsize", &size),
        ]),
        file("GNUSparseFile.0/pax10", &[text_map, data].concat()),
    ]
}

#[test]
fn sparse_files_keep_their_holes_in_every_notation() {
    let scratch = Scratch::new();
    let tar = tar(&sparse_members());
    let (id, _) = scratch.convert(&mut Cursor::new(&tar));
    assert!(
        scratch.store().size(&id).unwrap() < 2 << 20,
        "four files of 10 GiB take {} bytes",
        scratch.store().size(&id).unwrap()
    );
    let layer = scratch.layer(&tar);
    for name in ["old", "pax00", "pax01", "pax10"] {
        let file = fs::File::open(scratch.point(&layer).join(name)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10 << 30);
        let at = |offset: u64, length: usize| {
            let mut bytes = vec![0xaa; length];
            file.read_exact_at(&mut bytes, offset).unwrap();
            bytes
        };
        assert_eq!(at(0, 5), b"abc\0\0", "{name}");
        assert_eq!(at((5 << 30) - 1, 4098), [&b"\0"[..], &[b'm'; 4096], b"\0"].concat(), "{name}");
        assert_eq!(at((10 << 30) - 7, 7), b"\0\0zzzzz", "{name}");
        for hole in [1 << 20, 3 << 30, 7 << 30, (10 << 30) - 9000] {
            assert_eq!(at(hole, 8000), vec![0; 8000], "{name} at {hole}");
        }
    }
}

#[test]
fn what_gnu_tar_makes_of_sparse_files_is_read_back() {
    let scratch = Scratch::new();
    let source = scratch.mkdir("source");
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    // More segments than the header and one continuation block hold, of odd lengths.
    for i in 0..60u64 {
        sparse.write_all_at(&vec![i as u8 + 1; 1 + (i as usize * 777) % 9000], i * 200_000 + i * 13).unwrap();
    }
    sparse.set_len(20_000_000).unwrap();
    fs::File::create(source.join("hole")).unwrap().set_len(123_456_789).unwrap();
    let expected = compare::tree(&source);
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let tar_path = scratch.path("sparse.tar");
        let arguments =
            [format, &["-S", "-cf", tar_path.to_str().unwrap(), "-C", source.to_str().unwrap(), "."]].concat();
        run("tar", &arguments);
        let layer = scratch.layer(&fs::read(&tar_path).unwrap());
        let mut found = compare::tree(&scratch.point(&layer));
        if format[0] == "--format=gnu" {
            // Whole seconds only.
            for (name, node) in &mut found {
                node.mtime.1 = expected[name].mtime.1;
            }
        }
        compare::assert_same(&found, &expected);
    }
}

/// Makes 4.1 GiB of tar and as much image; explicit for that.
#[test]
#[ignore = "writes 4.1 GiB; run with --ignored"]
fn a_file_beyond_4_gib_is_whole() {
    struct Pattern(u64);
    impl Read for Pattern {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            for byte in &mut *into {
                *byte = (self.0 / 4096) as u8;
                self.0 += 1;
            }
            Ok(into.len())
        }
    }
    const SIZE: u64 = (4 << 30) + 100_000_001;
    let scratch = Scratch::new();
    let head = unfinished(&[pax(&[r("size", SIZE.to_string())]), member(b'0', "big")]);
    let padding = SIZE.wrapping_neg() % 512 + 1024;
    let mut input = Cursor::new(head).chain(Pattern(0).take(SIZE)).chain(std::io::repeat(0).take(padding));
    let (id, stats) = scratch.convert(&mut input);
    assert_eq!(stats.data_bytes, SIZE);
    let layer = scratch.mounts().acquire(&id, &scratch.store().path(&id)).unwrap();
    let big = fs::File::open(scratch.point(&layer).join("big")).unwrap();
    assert_eq!(big.metadata().unwrap().len(), SIZE);
    for offset in [0, 4096, (4 << 30) - 1, 4 << 30, (4 << 30) + 50_000_000, SIZE - 1] {
        let mut byte = [0];
        big.read_exact_at(&mut byte, offset).unwrap();
        assert_eq!(byte[0], (offset / 4096) as u8, "at {offset}");
    }
}
