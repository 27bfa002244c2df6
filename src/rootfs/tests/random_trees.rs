//! Random trees and random damage: what was put in is what the kernel shows, and nothing panics.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::{Config, TestRunner};

use crate::archive::{Member, device, file, link, member, pax, r, tar};
use crate::compare;
use crate::scratch::{Scratch, refusal};
use sbx_rootfs::Limits;

#[derive(Clone, Debug)]
enum Kind {
    File(Vec<u8>),
    /// Size and seed of content that is not worth printing.
    Long(usize, u8),
    Directory,
    Link(String),
    Device(u16, u32),
    Fifo,
}

#[derive(Clone, Debug)]
struct Entry {
    path: Vec<String>,
    kind: Kind,
    mode: u16,
    owner: (u32, u32),
    mtime: (u32, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn entry() -> impl Strategy<Value = Entry> {
    // Few names, so that entries meet; some of them awkward in a sorted directory.
    let name = prop_oneof!["[ab]", "[!-.a-c]{1,3}", "[a-z]{200,255}"]
        .prop_filter("no dots", |n: &String| n != "." && n != ".." && !n.contains('/'));
    let kind = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Kind::File),
        3 => (0..20_000usize, any::<u8>()).prop_map(|(size, seed)| Kind::Long(size, seed)),
        4 => proptest::strategy::Just(Kind::Directory),
        1 => "[a-z]{1,300}".prop_map(|target| Kind::Link(format!("/nowhere/{target}"))),
        1 => (1..4096u16, 0..1u32 << 20).prop_map(|(major, minor)| Kind::Device(major, minor)),
        1 => proptest::strategy::Just(Kind::Fifo),
    ];
    let xattrs = prop::collection::btree_map(
        "(user|trusted|security)\\.[a-c]{1,2}",
        prop::collection::vec(any::<u8>(), 0..300),
        0..3,
    );
    let owner = prop_oneof![(0..2u32, 0..2u32), (0..u32::MAX, 0..u32::MAX)];
    let mtime = prop_oneof![proptest::strategy::Just((1_700_000_000, 0)), (any::<u32>(), 0..1_000_000_000u32)];
    (prop::collection::vec(name, 1..4), kind, 0..0o10000u16, owner, mtime, xattrs)
        .prop_map(|(path, kind, mode, owner, mtime, xattrs)| Entry { path, kind, mode, owner, mtime, xattrs })
}

impl Entry {
    fn content(&self) -> Vec<u8> {
        match &self.kind {
            Kind::File(bytes) => bytes.clone(),
            Kind::Long(size, seed) => (0..*size).map(|i| (i / 7) as u8 ^ seed).collect(),
            _ => Vec::new(),
        }
    }

    fn members(&self) -> [Member; 2] {
        let name = self.path.join("/");
        let mut records = vec![
            r("path", &name),
            r("uid", self.owner.0.to_string()),
            r("gid", self.owner.1.to_string()),
            r("mtime", format!("{}.{:09}", self.mtime.0, self.mtime.1)),
        ];
        records.extend(self.xattrs.iter().map(|(name, value)| r(&format!("SCHILY.xattr.{name}"), value)));
        let body = match &self.kind {
            Kind::File(_) | Kind::Long(..) => file("x", &self.content()),
            Kind::Directory => member(b'5', "x"),
            Kind::Link(target) => {
                records.push(r("linkpath", target));
                link(b'2', "x", "")
            }
            Kind::Device(major, minor) => device(b'4', "x", u64::from(*major), u64::from(*minor)),
            Kind::Fifo => member(b'6', "x"),
        };
        [pax(&records), body.mode(u64::from(self.mode))]
    }
}

/// What extraction leaves: a map from path to the entry that made it; `None` is a directory nobody described.
fn model(entries: &[Entry]) -> BTreeMap<String, Option<Entry>> {
    let mut tree: BTreeMap<String, Option<Entry>> = BTreeMap::new();
    for entry in entries {
        let blocked = (1..entry.path.len()).any(|depth| {
            let above = tree.get(&entry.path[..depth].join("/"));
            above.is_some_and(|above| above.as_ref().is_some_and(|above| !matches!(above.kind, Kind::Directory)))
        });
        // The writer refuses these, so they are not generated.
        if blocked {
            continue;
        }
        for depth in 1..entry.path.len() {
            tree.entry(entry.path[..depth].join("/")).or_insert(None);
        }
        let path = entry.path.join("/");
        let is_directory = matches!(entry.kind, Kind::Directory);
        if !is_directory {
            let below = format!("{path}/");
            tree.retain(|name, _| !name.starts_with(&below));
        }
        tree.insert(path, Some(entry.clone()));
    }
    tree
}

/// The entries that the writer accepts one after the other.
fn accepted(entries: Vec<Entry>) -> Vec<Entry> {
    let mut taken: Vec<Entry> = Vec::new();
    for entry in entries {
        let tree = model(&taken);
        let blocked = (1..entry.path.len()).any(|depth| {
            matches!(tree.get(&entry.path[..depth].join("/")), Some(Some(above)) if !matches!(above.kind, Kind::Directory))
        });
        if !blocked {
            taken.push(entry);
        }
    }
    taken
}

#[test]
fn random_trees_are_read_back_by_the_kernel() {
    let scratch = Scratch::new();
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let entries = prop::collection::vec(entry(), 0..60);
    let scratch = std::panic::AssertUnwindSafe(&scratch);
    let result = runner.run(&entries, |entries| {
        let entries = accepted(entries);
        let members: Vec<Member> = entries.iter().flat_map(Entry::members).collect();
        let layer = scratch.layer(&tar(&members));
        let found = compare::tree(&scratch.point(&layer));
        let _ = layer.release().unwrap();
        scratch.store().remove(&scratch.store().list().unwrap()[0]).unwrap();
        let expected = model(&entries);
        let names: Vec<String> = found.keys().skip(1).map(|name| String::from_utf8(name.clone()).unwrap()).collect();
        assert_eq!(names, expected.keys().cloned().collect::<Vec<_>>());
        for (name, entry) in expected {
            check(&name, entry.as_ref(), &found);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn check(name: &str, entry: Option<&Entry>, found: &compare::Tree) {
    let node = &found[name.as_bytes()];
    let Some(entry) = entry else {
        assert_eq!((node.mode, node.owner, node.xattrs.len()), (libc::S_IFDIR | 0o755, (0, 0), 0), "{name}");
        return;
    };
    let (kind, mode) = match &entry.kind {
        Kind::File(_) | Kind::Long(..) => (libc::S_IFREG, entry.mode),
        Kind::Directory => (libc::S_IFDIR, entry.mode),
        Kind::Link(_) => (libc::S_IFLNK, 0o777),
        Kind::Device(..) => (libc::S_IFBLK, entry.mode),
        Kind::Fifo => (libc::S_IFIFO, entry.mode),
    };
    assert_eq!(node.mode, kind | u32::from(mode), "{name}");
    assert_eq!(node.owner, entry.owner, "{name}");
    assert_eq!(node.mtime, (i64::from(entry.mtime.0), i64::from(entry.mtime.1)), "{name}");
    // Linux has user attributes on files and directories only.
    let user = matches!(entry.kind, Kind::File(_) | Kind::Long(..) | Kind::Directory);
    let xattrs = entry.xattrs.iter().filter(|(name, _)| user || !name.starts_with("user."));
    let xattrs: BTreeMap<Vec<u8>, Vec<u8>> = xattrs.map(|(n, v)| (n.clone().into_bytes(), v.clone())).collect();
    assert_eq!(node.xattrs, xattrs, "{name}");
    match &entry.kind {
        Kind::File(_) | Kind::Long(..) => {
            let content = entry.content();
            let mut hash = std::hash::DefaultHasher::new();
            for piece in content.chunks(1 << 16) {
                std::hash::Hasher::write(&mut hash, piece);
            }
            assert_eq!((node.size, node.content), (content.len() as u64, std::hash::Hasher::finish(&hash)), "{name}");
        }
        Kind::Link(target) => assert_eq!(node.target, target.as_bytes(), "{name}"),
        Kind::Device(major, minor) => assert_eq!(node.device, libc::makedev(u32::from(*major), *minor), "{name}"),
        Kind::Directory | Kind::Fifo => {}
    }
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    /// Any bytes changed anywhere: an image or an error, in bounded time and memory.
    #[test]
    fn damaged_tars_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>(), cuts in any::<bool>(), heal in any::<bool>()) {
        let mut bytes = tar(&[
            pax(&[r("SCHILY.xattr.user.a", "b"), r("mtime", "1.5")]),
            file("a/b", &[1; 700]),
            link(b'1', "c", "a/b"),
            pax(&[r("GNU.sparse.major", "1"), r("GNU.sparse.minor", "0"), r("GNU.sparse.realsize", "9000")]),
            file("s", &[&b"1\n5000\n4\n"[..], &[0; 503], b"data"].concat()),
            member(b'S', "o").gnu().octal(386, 12, 50).octal(398, 12, 4).octal(483, 12, 100).content(b"data"),
            file(".wh.x", b""),
            device(b'3', "d", 1, 3),
        ]);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if heal {
            // Most damage is caught by the checksum; let some of it through.
            for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        let limits = Limits { image_bytes: 64 << 20, tar_bytes: 64 << 20, ..Limits::default() };
        let _ = refusal(&bytes, &limits);
    }
}
