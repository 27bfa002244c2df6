//! The device: what its configuration says, requests through its queues, locks that are waited for, and drivers that mean
//! harm.

use std::fs;

use tempfile::TempDir;
use virtio_queue::QueueT;

use super::client::{bytes, named, path, share};
use crate::virtio::driver::{Buffer, Driver, Hostile, attack};
use crate::virtio::fs::Fs;
use crate::virtio::fs::abi::{
    CreateIn, EntryOut, FlushIn, ForgetIn, GetxattrIn, InHeader, InitIn, LkIn, MAJOR, MINOR, MkdirIn, MknodIn, OpenIn,
    OpenOut, OutHeader, ROOT_ID, ReadIn, ReleaseIn, Rename2In, SetattrIn, Wire, WriteIn, opcode,
};
use crate::virtio::fs::share::{Access, Limits, Root};
use crate::virtio::{Device, DeviceError};

const FIRST: usize = 0;
const REQUESTS: usize = 1;

fn device(directory: &TempDir, access: Access) -> Fs {
    let mut share = share(Root::Directory(path(directory.path())));
    share.access = access;
    share.limits = Limits { descriptors: 64, nodes: 256 };
    Fs::new(share).unwrap()
}

fn request(code: u32, nodeid: u64, unique: u64, body: &[u8]) -> Vec<u8> {
    let len = (InHeader::SIZE + body.len()) as u32;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    [bytes(&InHeader { len, opcode: code, unique, nodeid, uid, gid, ..InHeader::default() }), body.to_vec()].concat()
}

fn hello() -> Vec<u8> {
    let init = InitIn { major: MAJOR, minor: MINOR, max_readahead: 0, flags: u32::MAX };
    request(opcode::INIT, 0, 1, &[bytes(&init), vec![0xff; 48]].concat())
}

/// The answer to a request that has its buffers cut as the Linux driver cuts them: header, arguments, and the same back.
fn ask(driver: &mut Driver, device: &mut Fs, request: &[u8], room: u32) -> Vec<u8> {
    let (header, arguments) = request.split_at(InHeader::SIZE);
    let mut buffers = vec![Buffer::Bytes(header)];
    if !arguments.is_empty() {
        buffers.push(Buffer::Bytes(arguments));
    }
    buffers.extend([Buffer::Room(OutHeader::SIZE as u32), Buffer::Room(room)]);
    let (mut answer, length) = driver.ask(device, REQUESTS, &buffers).unwrap();
    answer.truncate(length as usize);
    let header = OutHeader::take(&mut answer.as_slice()).unwrap();
    assert_eq!((header.len, header.error), (length, 0));
    answer.split_off(OutHeader::SIZE)
}

fn started(directory: &TempDir) -> (Fs, Driver) {
    let mut device = device(directory, Access::ReadWrite);
    let features = device.features();
    let mut driver = Driver::new(&mut device, features);
    assert_eq!(ask(&mut driver, &mut device, &hello(), 64).len(), 64);
    (device, driver)
}

#[test]
fn the_configuration_has_the_tag_and_one_queue_for_requests() {
    let directory = TempDir::new().unwrap();
    let device = device(&directory, Access::ReadWrite);
    let mut config = [0xaa; 48];
    device.read_config(0, &mut config);
    assert_eq!(config[..5], *b"test\0");
    assert_eq!(config[36..], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((device.kind(), device.name(), device.queue_sizes()), (26, "fs-test", &[128, 512][..]));
}

#[test]
fn requests_go_through_the_queue_in_any_pieces() {
    let directory = TempDir::new().unwrap();
    let (mut device, mut driver) = started(&directory);
    let create = CreateIn { flags: libc::O_RDWR as u32, mode: 0o644, ..CreateIn::default() };
    let create = request(opcode::CREATE, ROOT_ID, 2, &[bytes(&create), named("f")].concat());
    let answer = ask(&mut driver, &mut device, &create, (EntryOut::SIZE + OpenOut::SIZE) as u32);
    let mut rest = answer.as_slice();
    let (entry, opened) = (EntryOut::take(&mut rest).unwrap(), OpenOut::take(&mut rest).unwrap());
    let data: Vec<u8> = (0..100_000_u32).map(|index| (index / 7) as u8).collect();
    let write = WriteIn { fh: opened.fh, size: data.len() as u32, ..WriteIn::default() };
    let whole = request(opcode::WRITE, entry.nodeid, 3, &[bytes(&write), data.clone()].concat());
    let pieces: Vec<Buffer<'_>> =
        whole.chunks(777).map(Buffer::Bytes).chain((0..24).map(|_| Buffer::Room(1))).collect();
    let (_, length) = driver.ask(&mut device, REQUESTS, &pieces).unwrap();
    assert_eq!((length, fs::read(directory.path().join("f")).unwrap()), (24, data.clone()));
    let read = ReadIn { fh: opened.fh, offset: 1, size: 100_000, ..ReadIn::default() };
    let read = request(opcode::READ, entry.nodeid, 4, &bytes(&read));
    assert_eq!(ask(&mut driver, &mut device, &read, 100_000), data[1..]);
    let forget = request(opcode::FORGET, entry.nodeid, 5, &bytes(&ForgetIn { nlookup: 1 }));
    let (_, length) = driver.ask(&mut device, FIRST, &[Buffer::Bytes(&forget)]).unwrap();
    assert_eq!(length, 0);
}

#[test]
fn who_waits_for_a_lock_is_answered_later_and_others_at_once() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("f"), "").unwrap();
    let (mut device, mut driver) = started(&directory);
    let lookup = request(opcode::LOOKUP, ROOT_ID, 2, &named("f"));
    let entry = EntryOut::take(&mut ask(&mut driver, &mut device, &lookup, 128).as_slice()).unwrap();
    let open = request(opcode::OPEN, entry.nodeid, 3, &bytes(&OpenIn { flags: libc::O_RDWR as u32, open_flags: 0 }));
    let fh = OpenOut::take(&mut ask(&mut driver, &mut device, &open, 16).as_slice()).unwrap().fh;
    let lock = |owner| LkIn { fh, owner, end: 9, kind: libc::F_WRLCK as u32, ..LkIn::default() };
    ask(&mut driver, &mut device, &request(opcode::SETLK, entry.nodeid, 4, &bytes(&lock(1))), 0);
    let waiting = request(opcode::SETLKW, entry.nodeid, 5, &bytes(&lock(2)));
    let waiting = driver.send(REQUESTS, &[Buffer::Bytes(&waiting), Buffer::Room(10), Buffer::Room(6)]);
    driver.kick(&mut device, REQUESTS).unwrap();
    assert_eq!(driver.used(REQUESTS), []);
    let again = device.save().unwrap_err().to_string();
    assert!(matches!(device.save(), Err(DeviceError::State(_))) && again.contains("cannot be saved"), "{again}");
    let flush = request(opcode::FLUSH, entry.nodeid, 6, &bytes(&FlushIn { fh, lock_owner: 1, ..FlushIn::default() }));
    let flush = driver.send(REQUESTS, &[Buffer::Bytes(&flush), Buffer::Room(16)]);
    driver.kick(&mut device, REQUESTS).unwrap();
    assert_eq!(driver.used(REQUESTS), [(flush.head, 16), (waiting.head, 16)]);
    let answer = OutHeader::take(&mut driver.answer(&waiting).as_slice()).unwrap();
    assert_eq!(answer, OutHeader { len: 16, error: 0, unique: 5 });
    // Another process of the host has it, and nothing but time says when it is given up.
    let file = fs::File::open(directory.path().join("f")).unwrap();
    file.lock().unwrap();
    let whole = LkIn { fh, kind: libc::F_WRLCK as u32, flags: 1, ..LkIn::default() };
    let waiting = request(opcode::SETLKW, entry.nodeid, 7, &bytes(&whole));
    let waiting = driver.send(REQUESTS, &[Buffer::Bytes(&waiting), Buffer::Room(16)]);
    driver.kick(&mut device, REQUESTS).unwrap();
    driver.report(&mut device, 1000).unwrap();
    assert_eq!(driver.used(REQUESTS), []);
    drop(file);
    let mut used = Vec::new();
    while used.is_empty() {
        assert!(driver.report(&mut device, 10_000).unwrap() > 0, "the timer must run");
        used = driver.used(REQUESTS);
    }
    assert_eq!(used, [(waiting.head, 16)]);
}

#[test]
fn a_reset_forgets_the_guest() {
    let directory = TempDir::new().unwrap();
    let (mut device, mut driver) = started(&directory);
    let before = driver.io.queues[REQUESTS].next_used();
    device.reset();
    let stat = request(opcode::STATFS, ROOT_ID, 9, &[]);
    let (answer, _) = driver.ask(&mut device, REQUESTS, &[Buffer::Bytes(&stat), Buffer::Room(16)]).unwrap();
    assert_eq!(OutHeader::take(&mut answer.as_slice()).unwrap().error, -libc::ENOTCONN);
    assert_ne!(driver.io.queues[REQUESTS].next_used(), before);
}

/// Requests of nearly every kind; `FALLOCATE` is left out, as a length that was made up fills the disk.
fn known() -> Vec<Vec<u8>> {
    let (fh, rw) = (1, libc::O_RDWR as u32);
    let lock = LkIn { fh, owner: 1, end: 9, kind: libc::F_WRLCK as u32, ..LkIn::default() };
    let write = WriteIn { fh, size: 8, ..WriteIn::default() };
    let bodies = [
        (opcode::LOOKUP, ROOT_ID, named("a")),
        (opcode::LOOKUP, ROOT_ID, named("d")),
        (opcode::GETATTR, 2, vec![0; 16]),
        (opcode::SETATTR, 2, bytes(&SetattrIn { valid: 8 | 32, size: 100, ..SetattrIn::default() })),
        (opcode::STATX, 2, vec![0; 24]),
        (opcode::STATFS, ROOT_ID, Vec::new()),
        (opcode::MKDIR, ROOT_ID, [bytes(&MkdirIn { mode: 0o755, umask: 0 }), named("d")].concat()),
        (opcode::MKNOD, ROOT_ID, [bytes(&MknodIn { mode: 0o10_0644, ..MknodIn::default() }), named("b")].concat()),
        (opcode::SYMLINK, ROOT_ID, [named("l"), named("/")].concat()),
        (opcode::READLINK, 3, Vec::new()),
        (opcode::LINK, ROOT_ID, [bytes(&2_u64), named("c")].concat()),
        (opcode::UNLINK, ROOT_ID, named("b")),
        (opcode::RMDIR, ROOT_ID, named("d")),
        (
            opcode::RENAME2,
            ROOT_ID,
            [bytes(&Rename2In { newdir: ROOT_ID, ..Rename2In::default() }), named("a"), named("b")].concat(),
        ),
        (
            opcode::CREATE,
            ROOT_ID,
            [bytes(&CreateIn { flags: rw, mode: 0o644, ..CreateIn::default() }), named("a")].concat(),
        ),
        (
            opcode::TMPFILE,
            ROOT_ID,
            [bytes(&CreateIn { flags: rw, mode: 0o644, ..CreateIn::default() }), named("#")].concat(),
        ),
        (opcode::OPEN, 2, bytes(&OpenIn { flags: rw, open_flags: 0 })),
        (opcode::WRITE, 2, [bytes(&write), vec![7; 8]].concat()),
        (opcode::READ, 2, bytes(&ReadIn { fh, size: 4096, ..ReadIn::default() })),
        (opcode::LSEEK, 2, bytes(&[fh, 0, 3])),
        (opcode::COPY_FILE_RANGE, 2, bytes(&[fh, 0, 2, fh, 50, 4, 0])),
        (opcode::FLUSH, 2, bytes(&[fh, 0, 1])),
        (opcode::FSYNC, 2, bytes(&[fh, 1])),
        (opcode::RELEASE, 2, bytes(&ReleaseIn { fh, ..ReleaseIn::default() })),
        (opcode::OPENDIR, ROOT_ID, vec![0; 8]),
        (opcode::READDIR, ROOT_ID, bytes(&ReadIn { fh: 2, size: 512, ..ReadIn::default() })),
        (opcode::READDIRPLUS, ROOT_ID, bytes(&ReadIn { fh: 2, size: 4096, ..ReadIn::default() })),
        (opcode::SETXATTR, 2, [bytes(&[1_u32, 0, 0, 0]), named("user.a"), vec![0]].concat()),
        (opcode::GETXATTR, 2, [bytes(&GetxattrIn { size: 64, ..GetxattrIn::default() }), named("user.a")].concat()),
        (opcode::LISTXATTR, 2, bytes(&GetxattrIn { size: 64, ..GetxattrIn::default() })),
        (opcode::REMOVEXATTR, 2, named("user.a")),
        (opcode::SETLK, 2, bytes(&lock)),
        (opcode::SETLKW, 2, bytes(&LkIn { owner: 2, ..lock })),
        (opcode::GETLK, 2, bytes(&LkIn { owner: 3, ..lock })),
        (opcode::SETLKW, 2, bytes(&LkIn { flags: 1, ..lock })),
        (opcode::INTERRUPT, 0, bytes(&5_u64)),
        (opcode::BATCH_FORGET, 0, bytes(&[1, 2, 1_u64])),
    ];
    let requests = bodies.into_iter().map(|(code, node, body)| request(code, node, 5, &body));
    // Saying hello forgets all that was: now and then, so that most of the time there is something.
    requests.chain([hello()]).collect()
}

#[test]
fn a_hostile_driver_does_no_harm() {
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let top = TempDir::new().unwrap();
        let directory = TempDir::new_in(top.path()).unwrap();
        fs::write(top.path().join("witness"), "untouched").unwrap();
        fs::write(directory.path().join("a"), "content").unwrap();
        let known = known();
        let forget = request(opcode::FORGET, 2, 5, &bytes(&1_u64));
        let mut requests: Vec<(usize, &[u8])> = known.iter().map(|request| (REQUESTS, &request[..])).collect();
        requests.push((FIRST, &forget));
        attack(&Hostile { requests: &requests, ..Hostile::default() }, || Box::new(device(&directory, access)));
        assert_eq!(fs::read(top.path().join("witness")).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
        if access == Access::ReadOnly {
            assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"content");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }
}
