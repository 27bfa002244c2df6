//! Whatever bytes come: one bounded answer, nothing held that should not be, and nothing outside touched.

use std::fs;

use nix::errno::Errno;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::Config;
use tempfile::TempDir;

use super::client::{Client, Said, bytes, named};
use crate::virtio::fs::abi::{InHeader, MAJOR, OutHeader, ROOT_ID, ReadIn, Wire, WriteIn, opcode};
use crate::virtio::fs::share::Limits;

fn header(length: u32, code: u32, node: u64) -> InHeader {
    InHeader { len: length, opcode: code, unique: 9, nodeid: node, ..InHeader::default() }
}

#[test]
fn a_request_that_is_none_is_given_back_unanswered() {
    let mut client = Client::new();
    let good = bytes(&header(40, opcode::STATFS, ROOT_ID));
    for length in 0..40 {
        assert_eq!(client.say_raw(good[..length].to_vec(), 4096), Said::Nothing, "{length} bytes");
    }
    for lie in [0, 39, 41, 1 << 20, u32::MAX] {
        assert_eq!(client.say_raw(bytes(&header(lie, opcode::STATFS, ROOT_ID)), 4096), Said::Nothing, "says {lie}");
    }
    let extended = InHeader { total_extlen: 1, ..header(40, opcode::STATFS, ROOT_ID) };
    assert_eq!(client.say_raw(bytes(&extended), 4096), Said::Nothing);
    for room in 0..OutHeader::SIZE {
        assert_eq!(client.say_raw(good.clone(), room), Said::Nothing, "room for {room} bytes");
    }
    // Room for less than the answer.
    let Said::Answered(answer) = ({
        let mut request = good;
        let mut answer = [0; 40];
        let outcome = client.server.serve(
            &mut crate::virtio::Reader::from(&mut request[..]),
            &mut crate::virtio::Writer::from(&mut answer[..]),
        );
        let crate::virtio::fs::server::Outcome::Done(length) = outcome else { panic!("{outcome:?}") };
        let header = OutHeader::take(&mut &answer[..]).unwrap();
        assert_eq!((length, header.len, header.unique), (16, 16, 9));
        Said::Answered(Err::<Vec<u8>, Errno>(Errno::from_raw(-header.error)))
    }) else {
        panic!("no answer")
    };
    assert_eq!(answer, Err(Errno::EINVAL));
}

#[test]
fn nothing_is_served_before_a_version_is_agreed_on() {
    let directory = TempDir::new().unwrap();
    let root = crate::virtio::fs::share::Root::Directory(super::client::path(directory.path()));
    let mut client = Client::unconnected(super::client::share(root), directory);
    assert_eq!(client.getattr(ROOT_ID).err(), Some(Errno::ENOTCONN));
    let hello = |major: u32, minor: u32| [bytes(&[major, minor, 0, 0]), vec![0; 48]].concat();
    assert_eq!(client.bytes(opcode::INIT, 0, &hello(MAJOR, 30)), Err(Errno::EPROTO));
    assert_eq!(client.bytes(opcode::INIT, 0, &hello(6, 99)), Err(Errno::EPROTO));
    // A later major version is told ours and asks again.
    assert_eq!(client.bytes(opcode::INIT, 0, &hello(8, 0)).unwrap()[..4], MAJOR.to_le_bytes());
    assert_eq!(client.getattr(ROOT_ID).err(), Some(Errno::ENOTCONN));
    client.init();
    let node = client.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    client.order(opcode::DESTROY, 0, &[]).unwrap();
    assert_eq!(client.getattr(ROOT_ID).err(), Some(Errno::ENOTCONN));
    client.init();
    assert_eq!(client.getattr(node).err(), Some(Errno::ESTALE));
}

#[test]
fn nodes_and_handles_that_were_never_given_are_none() {
    let mut client = Client::new();
    for node in [0, 2, 7, u64::MAX] {
        assert_eq!(client.getattr(node).err(), Some(Errno::ESTALE));
        assert_eq!(client.lookup(node, "x").err(), Some(Errno::ESTALE));
        assert_eq!(client.opendir(node).err(), Some(Errno::ESTALE));
        client.forget(node, u64::MAX);
    }
    for fh in [0, 1, u64::MAX] {
        let read = ReadIn { fh, size: 100, ..ReadIn::default() };
        for code in [opcode::READ, opcode::READDIR, opcode::READDIRPLUS] {
            assert_eq!(client.bytes(code, ROOT_ID, &bytes(&read)), Err(Errno::EBADF));
        }
        for code in [opcode::RELEASE, opcode::FLUSH, opcode::FSYNC, opcode::LSEEK, opcode::FALLOCATE] {
            assert_eq!(client.bytes(code, ROOT_ID, &bytes(&[fh, 0, 0, 0])), Err(Errno::EBADF));
        }
    }
    for code in [0, 7, 19, 37, 40, 41, 48, 49, 53, 4096, u32::MAX] {
        assert_eq!(client.bytes(code, ROOT_ID, &[0; 64]), Err(Errno::ENOSYS), "opcode {code}");
    }
    assert_eq!(client.bytes(opcode::IOCTL, ROOT_ID, &[0; 32]), Err(Errno::ENOTTY));
}

#[test]
fn lengths_that_lie_are_refused() {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", libc::O_RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    for size in [1, 4, 6, 1 << 20, u32::MAX] {
        let write = WriteIn { fh, size, ..WriteIn::default() };
        assert_eq!(client.write_with(node, &write, if size < 5 { b"" } else { b"data!" }), Err(Errno::EINVAL));
    }
    assert_eq!(fs::metadata(client.host("f")).unwrap().len(), 0);
    assert_eq!(client.read(node, fh, u64::MAX, 10), Err(Errno::EOVERFLOW));
    assert_eq!(client.write(node, fh, u64::MAX, b"x"), Err(Errno::EOVERFLOW));
    assert_eq!(client.read(node, fh, 0, u32::MAX), Ok(Vec::new()));
    assert_eq!(client.bytes(opcode::SETXATTR, node, &[0; 80_000]), Err(Errno::E2BIG));
    assert_eq!(client.bytes(opcode::LOOKUP, ROOT_ID, &vec![b'a'; 100_000]), Err(Errno::E2BIG));
    // So many that are not there.
    let batch = [bytes(&[u32::MAX, 0]), vec![0; 64]].concat();
    assert_eq!(client.say(opcode::BATCH_FORGET, 0, &batch), Said::Nothing);
}

/// A request that may well be right in most of what it says.
fn request() -> impl Strategy<Value = (u32, u64, Vec<u8>)> {
    let number = prop_oneof![4 => 0..20_u64, 1 => any::<u64>(), 1 => Just(i64::MAX as u64)];
    let name = prop_oneof![
        6 => "[a-c]",
        1 => Just("..".to_owned()),
        1 => Just("a/b".to_owned()),
        1 => "[a-z./]{0,40}",
    ];
    let words = proptest::collection::vec(number.clone(), 0..8);
    let names = proptest::collection::vec(name, 0..3);
    let code = prop_oneof![8 => 1..56_u32, 1 => any::<u32>()];
    (code, number, words, names, proptest::collection::vec(any::<u8>(), 0..16)).prop_map(
        |(code, node, words, names, rest)| {
            let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let names: Vec<u8> = names.iter().flat_map(|name| named(name)).collect();
            (code, node, [words, names, rest].concat())
        },
    )
}

proptest! {
    #![proptest_config(Config { cases: 64, ..Config::default() })]

    #[test]
    fn any_sequence_of_requests_stays_inside_and_within_its_limits(
        requests in proptest::collection::vec(request(), 1..300),
    ) {
        let top = TempDir::new().unwrap();
        fs::write(top.path().join("witness"), "untouched").unwrap();
        fs::create_dir(top.path().join("shared")).unwrap();
        let mut client = Client::with(|_, share| {
            share.root = crate::virtio::fs::share::Root::Directory(super::client::path(&top.path().join("shared")));
            share.limits = Limits { descriptors: 24, nodes: 64 };
        });
        for (code, node, body) in requests {
            if let Said::Answered(Ok(answer)) = client.say(code, node, &body) {
                prop_assert!(answer.len() <= (1 << 20) + 4096);
            }
            client.server.settle(std::time::Instant::now());
        }
        client.order(opcode::DESTROY, 0, &[]).ok();
        prop_assert_eq!(fs::read(top.path().join("witness")).unwrap(), b"untouched");
        prop_assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
    }

    #[test]
    fn any_bytes_are_answered_or_given_back(mut request in proptest::collection::vec(any::<u8>(), 0..200), room in 0..300_usize) {
        let mut client = Client::new();
        let mut answer = vec![0; room];
        let outcome = client.server.serve(
            &mut crate::virtio::Reader::from(&mut request[..]),
            &mut crate::virtio::Writer::from(&mut answer[..]),
        );
        let crate::virtio::fs::server::Outcome::Done(length) = outcome else { panic!("{outcome:?}") };
        prop_assert!(length <= room);
    }
}
