//! `socketcall` and `ipc` of i386: one call for many, chosen by its first argument.
//!
//! A filter cannot look behind the pointer that holds the arguments of the inner call. So a rule about `socket` with
//! conditions also becomes one about `socketcall(SYS_SOCKET, …)` without those on its first argument, beside the exact
//! one for the direct call that newer kernels have. libseccomp does the same, and it is why Docker's profile cannot
//! keep 32-bit programs from AF_ALG and AF_VSOCK: that is left to LSMs.

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// A call inside another.
#[derive(Clone, Copy)]
pub(super) struct Multiplexed {
    /// The outer call.
    pub(super) number: u32,
    /// Its first argument.
    pub(super) inner: u32,
}

/// Name and number of the inner calls of `socketcall` (`linux/net.h`), sorted by name.
const SOCKET: [(&str, u32); 20] = [
    ("accept", 5),
    ("accept4", 18),
    ("bind", 2),
    ("connect", 3),
    ("getpeername", 7),
    ("getsockname", 6),
    ("getsockopt", 15),
    ("listen", 4),
    ("recv", 10),
    ("recvfrom", 12),
    ("recvmmsg", 19),
    ("recvmsg", 17),
    ("send", 9),
    ("sendmmsg", 20),
    ("sendmsg", 16),
    ("sendto", 11),
    ("setsockopt", 14),
    ("shutdown", 13),
    ("socket", 1),
    ("socketpair", 8),
];

/// Name and number of the inner calls of `ipc` (`linux/ipc.h`), sorted by name.
const SYSTEM_V: [(&str, u32); 12] = [
    ("msgctl", 14),
    ("msgget", 13),
    ("msgrcv", 12),
    ("msgsnd", 11),
    ("semctl", 3),
    ("semget", 2),
    ("semop", 1),
    ("semtimedop", 4),
    ("shmat", 21),
    ("shmctl", 24),
    ("shmdt", 22),
    ("shmget", 23),
];

/// How i386 has a call inside another; `None` for a call that stands alone.
pub(super) fn find(name: &str) -> Option<Multiplexed> {
    let inner = |calls: &[(&str, u32)]| {
        let index = calls.binary_search_by(|call| call.0.cmp(name)).ok()?;
        Some(calls[index].1)
    };
    let socket = inner(&SOCKET).map(|inner| Multiplexed { number: SOCKETCALL, inner });
    socket.or_else(|| inner(&SYSTEM_V).map(|inner| Multiplexed { number: IPC, inner }))
}
