//! Locks exclude each other in the guest, and the guest and the host.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;

use super::client::{Client, Said, bytes};
use crate::virtio::fs::abi::{FlushIn, InterruptIn, LK_FLOCK, LkIn, LkOut, ROOT_ID, opcode};
use crate::virtio::fs::host::{self, Range};

const LONG: Duration = Duration::from_secs(20);
const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const NONE: i32 = libc::F_UNLCK;

fn posix(fh: u64, owner: u64, kind: i32, (start, end): (u64, u64)) -> LkIn {
    LkIn { fh, owner, start, end, kind: kind as u32, pid: 100 + owner as u32, ..LkIn::default() }
}

fn whole(fh: u64, kind: i32) -> LkIn {
    LkIn { fh, end: i64::MAX as u64, kind: kind as u32, flags: LK_FLOCK, ..LkIn::default() }
}

fn opened() -> (Client, u64, u64) {
    let mut client = Client::new();
    let (entry, fh) = client.create(ROOT_ID, "f", libc::O_RDWR, 0o644).unwrap();
    (client, entry.nodeid, fh)
}

fn waits(said: Said) -> crate::virtio::fs::server::Ticket {
    match said {
        Said::Waits(ticket) => ticket,
        said => panic!("does not wait: {said:?}"),
    }
}

#[test]
fn owners_exclude_each_other_where_their_ranges_meet() {
    let (mut client, node, fh) = opened();
    let set = |client: &mut Client, lock| client.order(opcode::SETLK, node, &bytes(&lock));
    set(&mut client, posix(fh, 1, WRITE, (0, 9))).unwrap();
    assert_eq!(set(&mut client, posix(fh, 2, WRITE, (5, 20))), Err(Errno::EAGAIN));
    assert_eq!(set(&mut client, posix(fh, 2, READ, (9, 9))), Err(Errno::EAGAIN));
    set(&mut client, posix(fh, 2, WRITE, (10, 20))).unwrap();
    // An owner is never in its own way, and may change its mind about a part.
    set(&mut client, posix(fh, 1, READ, (0, 4))).unwrap();
    set(&mut client, posix(fh, 2, READ, (0, 4))).unwrap();
    set(&mut client, posix(fh, 2, NONE, (0, i64::MAX as u64))).unwrap();
    set(&mut client, posix(fh, 3, WRITE, (10, i64::MAX as u64))).unwrap();
    let mut get = |lock| client.ask::<LkOut>(opcode::GETLK, node, &bytes(&lock)).unwrap();
    assert_eq!(get(posix(fh, 2, WRITE, (6, 100))), LkOut { start: 5, end: 9, kind: WRITE as u32, pid: 101 });
    assert_eq!(
        get(posix(fh, 2, READ, (50, 50))),
        LkOut { start: 10, end: i64::MAX as u64, kind: WRITE as u32, pid: 103 }
    );
    assert_eq!(get(posix(fh, 2, READ, (0, 4))).kind, NONE as u32);
    assert_eq!(get(posix(fh, 3, WRITE, (20, 30))).kind, NONE as u32);
    for bad in [posix(fh, 1, 7, (0, 1)), posix(fh, 1, WRITE, (5, 4)), posix(fh, 1, WRITE, (0, u64::MAX))] {
        assert_eq!(client.order(opcode::SETLK, node, &bytes(&bad)), Err(Errno::EINVAL));
    }
    assert_eq!(client.order(opcode::SETLK, node, &bytes(&posix(fh + 1, 1, READ, (0, 1)))), Err(Errno::EBADF));
}

#[test]
fn closing_any_descriptor_of_a_file_gives_its_owners_locks_up() {
    let (mut client, node, fh) = opened();
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, WRITE, (0, 9)))).unwrap();
    let flush = |lock_owner| FlushIn { fh, lock_owner, ..FlushIn::default() };
    client.order(opcode::FLUSH, node, &bytes(&flush(2))).unwrap();
    assert_eq!(client.order(opcode::SETLK, node, &bytes(&posix(fh, 2, WRITE, (0, 9)))), Err(Errno::EAGAIN));
    client.order(opcode::FLUSH, node, &bytes(&flush(1))).unwrap();
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 2, WRITE, (0, 9)))).unwrap();
    // A lock of an open description ends with it, though no flush names its owner.
    let other = client.open(node, libc::O_RDWR).unwrap().fh;
    client.order(opcode::SETLK, node, &bytes(&posix(other, 7, WRITE, (50, 50)))).unwrap();
    client.release(node, other).unwrap();
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 2, WRITE, (50, 50)))).unwrap();
}

#[test]
fn the_host_sees_the_guests_locks_and_the_guest_the_hosts() {
    let (mut client, node, fh) = opened();
    let file = File::options().read(true).write(true).open(client.host("f")).unwrap();
    let range = |kind| Range { kind, start: 0, end: 9 };
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, WRITE, (0, 9)))).unwrap();
    assert_eq!(host::set_lock(file.as_fd(), range(READ)), Err(Errno::EAGAIN));
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, NONE, (0, 9)))).unwrap();
    host::set_lock(file.as_fd(), range(WRITE)).unwrap();
    assert_eq!(client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, READ, (9, 9)))), Err(Errno::EAGAIN));
    let seen: LkOut = client.ask(opcode::GETLK, node, &bytes(&posix(fh, 1, READ, (0, 100)))).unwrap();
    assert_eq!(seen, LkOut { start: 0, end: 9, kind: WRITE as u32, pid: 0 });
    let ticket = waits(client.lock(opcode::SETLKW, node, &posix(fh, 1, WRITE, (0, 9))));
    assert_eq!(client.settled(ticket, Duration::from_millis(20)), None);
    drop(file);
    assert_eq!(client.settled(ticket, LONG), Some(Ok(())));
    let file = File::open(client.host("f")).unwrap();
    client.order(opcode::SETLK, node, &bytes(&whole(fh, WRITE))).unwrap();
    assert_eq!(host::flock(file.as_fd(), libc::LOCK_SH | libc::LOCK_NB), Err(Errno::EAGAIN));
    client.release(node, fh).unwrap();
    host::flock(file.as_fd(), libc::LOCK_EX | libc::LOCK_NB).unwrap();
}

#[test]
fn a_handle_has_one_lock_of_flock_whoever_asks() {
    let (mut client, node, fh) = opened();
    let other = client.open(node, libc::O_RDONLY).unwrap().fh;
    client.order(opcode::SETLK, node, &bytes(&whole(fh, READ))).unwrap();
    client.order(opcode::SETLK, node, &bytes(&whole(other, READ))).unwrap();
    assert_eq!(client.order(opcode::SETLK, node, &bytes(&whole(fh, WRITE))), Err(Errno::EAGAIN));
    client.order(opcode::SETLK, node, &bytes(&whole(other, NONE))).unwrap();
    client.order(opcode::SETLK, node, &bytes(&whole(fh, WRITE))).unwrap();
    // Not in the way of POSIX locks.
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 9, WRITE, (0, 9)))).unwrap();
    let root = client.opendir(ROOT_ID).unwrap();
    client.order(opcode::SETLK, ROOT_ID, &bytes(&whole(root, WRITE))).unwrap();
}

#[test]
fn who_waits_holds_nobody_up_and_is_served_when_its_turn_comes() {
    let (mut client, node, fh) = opened();
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, WRITE, (0, 9)))).unwrap();
    let second = waits(client.lock(opcode::SETLKW, node, &posix(fh, 2, WRITE, (0, 4))));
    let third = waits(client.lock(opcode::SETLKW, node, &posix(fh, 3, WRITE, (0, 9))));
    assert_eq!(client.write(node, fh, 0, b"meanwhile"), Ok(9));
    assert!(client.settled(second, Duration::from_millis(5)).is_none());
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, NONE, (0, 9)))).unwrap();
    assert_eq!(client.server.next_settling(std::time::Instant::now()), Some(Duration::ZERO));
    assert_eq!(client.settled(second, LONG), Some(Ok(())));
    let flush = FlushIn { fh, lock_owner: 2, ..FlushIn::default() };
    client.order(opcode::FLUSH, node, &bytes(&flush)).unwrap();
    assert_eq!(client.settled(third, LONG), Some(Ok(())));
    assert_eq!(client.server.next_settling(std::time::Instant::now()), None);
    assert_eq!(client.lock(opcode::SETLKW, node, &posix(fh, 3, WRITE, (0, 9))), Said::Answered(Ok(Vec::new())));
}

#[test]
fn who_is_interrupted_or_closed_waits_no_more() {
    let (mut client, node, fh) = opened();
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, WRITE, (0, 9)))).unwrap();
    let ticket = waits(client.lock(opcode::SETLKW, node, &posix(fh, 2, WRITE, (0, 4))));
    assert_eq!(client.say(opcode::INTERRUPT, node, &bytes(&InterruptIn { unique: 99 })), Said::Nothing);
    assert!(client.settled(ticket, Duration::from_millis(5)).is_none());
    // INIT, CREATE, SETLK, and the fourth is the one that waits.
    assert_eq!(client.say(opcode::INTERRUPT, node, &bytes(&InterruptIn { unique: 4 })), Said::Nothing);
    assert_eq!(client.settled(ticket, LONG), Some(Err(Errno::EINTR)));
    let other = client.open(node, libc::O_RDWR).unwrap().fh;
    client.order(opcode::SETLK, node, &bytes(&whole(fh, WRITE))).unwrap();
    let ticket = waits(client.lock(opcode::SETLKW, node, &whole(other, WRITE)));
    client.release(node, other).unwrap();
    assert_eq!(client.settled(ticket, LONG), Some(Err(Errno::EINTR)));
    fs::remove_file(client.host("f")).unwrap();
}

#[test]
fn only_so_many_can_wait() {
    let (mut client, node, fh) = opened();
    client.order(opcode::SETLK, node, &bytes(&posix(fh, 1, WRITE, (0, 9)))).unwrap();
    let said: Vec<Said> = (0..200).map(|_| client.lock(opcode::SETLKW, node, &posix(fh, 2, WRITE, (0, 4)))).collect();
    assert_eq!(said.iter().filter(|said| matches!(said, Said::Waits(_))).count(), 128);
    assert_eq!(said.last(), Some(&Said::Answered(Err(Errno::ENOLCK))));
}
