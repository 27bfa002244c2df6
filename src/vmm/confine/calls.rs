//! Which system calls each thread of a machine may make. A thread that makes another is taken over by its guest, and the
//! process ends.
//!
//! The lists hold what the C libraries (GNU, musl) make of what the threads do, allocator and locks included.

use libc::{
    PROT_EXEC, SYS_brk, SYS_capget, SYS_capset, SYS_clock_gettime, SYS_clone, SYS_clone3, SYS_close,
    SYS_copy_file_range, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_wait, SYS_eventfd2, SYS_exit,
    SYS_exit_group, SYS_fallocate, SYS_fchdir, SYS_fchmodat, SYS_fchownat, SYS_fcntl, SYS_fdatasync, SYS_flock,
    SYS_fstat, SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_futex, SYS_getdents64, SYS_getpid, SYS_getrandom, SYS_gettid,
    SYS_gettimeofday, SYS_getxattr, SYS_ioctl, SYS_linkat, SYS_listxattr, SYS_lseek, SYS_madvise, SYS_mkdirat,
    SYS_mknodat, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap, SYS_newfstatat, SYS_openat, SYS_openat2, SYS_poll,
    SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_read,
    SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_removexattr, SYS_renameat2, SYS_restart_syscall,
    SYS_rseq, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_seccomp, SYS_sendmsg,
    SYS_sendto, SYS_set_robust_list, SYS_setfsgid, SYS_setfsuid, SYS_setxattr, SYS_shutdown, SYS_sigaltstack,
    SYS_socketpair, SYS_statx, SYS_symlinkat, SYS_syncfs, SYS_tgkill, SYS_timerfd_create, SYS_timerfd_settime,
    SYS_tkill, SYS_umask, SYS_unlinkat, SYS_unshare, SYS_utimensat, SYS_write, SYS_writev,
};
use virtio_bindings::virtio_ids::{VIRTIO_ID_BLOCK, VIRTIO_ID_FS, VIRTIO_ID_NET, VIRTIO_ID_PMEM, VIRTIO_ID_VSOCK};

use crate::confine::bpf::Call;

const fn any(number: libc::c_long) -> Call {
    Call::any(number)
}

/// An ioctl by its request.
const fn ioctl(request: u32) -> Call {
    Call::only(SYS_ioctl, 1, u32::MAX, request)
}

/// Memory that is not executable.
const fn data_only(number: libc::c_long) -> Call {
    Call::only(number, 2, PROT_EXEC as u32, 0)
}

/// What every thread does: locks, memory, eventfds, signals, the end.
const ALWAYS: &[Call] = &[
    any(SYS_futex),
    any(SYS_read),
    any(SYS_write),
    any(SYS_writev),
    any(SYS_close),
    any(SYS_madvise),
    any(SYS_munmap),
    any(SYS_mremap),
    any(SYS_brk),
    data_only(SYS_mmap),
    data_only(SYS_mprotect),
    any(SYS_rt_sigreturn),
    any(SYS_rt_sigprocmask),
    any(SYS_sigaltstack),
    any(SYS_restart_syscall),
    any(SYS_sched_yield),
    any(SYS_clock_gettime),
    any(SYS_gettimeofday),
    any(SYS_getrandom),
    any(SYS_gettid),
    any(SYS_exit),
    any(SYS_exit_group),
];

/// Requests of KVM: everything on a machine and its processors, which no other file of ours answers to.
const KVM_ANY: Call = Call::only(SYS_ioctl, 1, 0xff00, 0xae00);
const KVM_RUN: u32 = 0xae80;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_GET_SREGS: u32 = 0x8138_ae83;
const KVM_TRANSLATE: u32 = 0xc018_ae85;

/// A vCPU's thread runs its guest, and may have to tell what it did at last.
pub(super) const VCPU: &[&[Call]] =
    &[&[ioctl(KVM_RUN)], ALWAYS, &[ioctl(KVM_GET_REGS), ioctl(KVM_GET_SREGS), ioctl(KVM_TRANSLATE)]];

/// The main thread waits, answers its owner, interrupts vCPUs, and saves the machine to a file that it is given.
pub(super) const MAIN: &[&[Call]] = &[
    ALWAYS,
    &[
        any(SYS_poll),
        any(SYS_ppoll),
        any(SYS_recvmsg),
        any(SYS_sendmsg),
        any(SYS_sendto),
        any(SYS_getpid),
        any(SYS_tgkill),
        any(SYS_tkill),
        any(SYS_ftruncate),
        any(SYS_pread64),
        any(SYS_pwrite64),
        KVM_ANY,
    ],
];

/// What a device's thread waits with.
const DEVICE: &[Call] = &[any(SYS_epoll_wait), any(SYS_epoll_pwait), any(SYS_epoll_ctl), any(SYS_epoll_create1)];

const READ_WRITE: &[Call] = &[
    any(SYS_pread64),
    any(SYS_pwrite64),
    any(SYS_preadv),
    any(SYS_pwritev),
    any(SYS_preadv2),
    any(SYS_pwritev2),
    any(SYS_readv),
    any(SYS_fdatasync),
    any(SYS_fsync),
    any(SYS_fallocate),
    any(SYS_lseek),
    any(SYS_fstat),
];

/// Frames, several pieces at once.
const NET: &[Call] = &[any(SYS_readv)];

/// Streams, which come and go by the device's own socket; none of them is connected or accepted here.
const STREAMS: &[Call] = &[
    Call::only(SYS_socketpair, 0, u32::MAX, libc::AF_UNIX as u32),
    any(SYS_recvfrom),
    any(SYS_recvmsg),
    any(SYS_sendto),
    any(SYS_sendmsg),
    any(SYS_shutdown),
];

const TIMERS: &[Call] = &[any(SYS_timerfd_settime)];

const FILE_SYSTEM: &[Call] = &[
    any(SYS_openat2),
    any(SYS_openat),
    any(SYS_statx),
    any(SYS_newfstatat),
    any(SYS_fstatfs),
    any(SYS_syncfs),
    any(SYS_readlinkat),
    any(SYS_getdents64),
    any(SYS_mkdirat),
    any(SYS_mknodat),
    any(SYS_linkat),
    any(SYS_symlinkat),
    any(SYS_unlinkat),
    any(SYS_renameat2),
    any(SYS_fchmodat),
    any(SYS_fchownat),
    any(SYS_utimensat),
    any(SYS_ftruncate),
    any(SYS_copy_file_range),
    any(SYS_getxattr),
    any(SYS_setxattr),
    any(SYS_listxattr),
    any(SYS_removexattr),
    any(SYS_flock),
    any(SYS_fcntl),
    // Working directory, umask and file system ids of this thread alone.
    Call::only(SYS_unshare, 0, u32::MAX, libc::CLONE_FS as u32),
    any(SYS_fchdir),
    any(SYS_umask),
    any(SYS_setfsuid),
    any(SYS_setfsgid),
    any(SYS_capget),
    any(SYS_capset),
    Call::only(SYS_prctl, 0, u32::MAX, libc::PR_GET_SECUREBITS as u32),
    Call::only(SYS_prctl, 0, u32::MAX, libc::PR_SET_SECUREBITS as u32),
];

/// The calls of a device's thread, by the device's kind (virtio specification, section 5).
pub(super) fn device(kind: u32) -> Vec<&'static [Call]> {
    let mut lists = vec![DEVICE, ALWAYS];
    match kind {
        VIRTIO_ID_NET => lists.push(NET),
        VIRTIO_ID_BLOCK => lists.extend([READ_WRITE, TIMERS]),
        VIRTIO_ID_PMEM => lists.push(READ_WRITE),
        VIRTIO_ID_VSOCK => lists.push(STREAMS),
        VIRTIO_ID_FS => lists.extend([READ_WRITE, TIMERS, FILE_SYSTEM]),
        _ => {}
    }
    lists
}

/// The flags with which both C libraries make a thread: `CLONE_VM`, `CLONE_FS`, `CLONE_FILES`, `CLONE_SIGHAND`,
/// `CLONE_THREAD`, `CLONE_SYSVSEM`, `CLONE_SETTLS`, `CLONE_PARENT_SETTID` and `CLONE_CHILD_CLEARTID`.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;

/// What it takes to make devices and their threads, which confine themselves further.
const MAKING: &[Call] = &[
    any(SYS_eventfd2),
    any(SYS_timerfd_create),
    // musl says CLONE_DETACHED too, which Linux ignores.
    Call::only(SYS_clone, 0, !(libc::CLONE_DETACHED as u32), THREAD),
    // A filter cannot see its flags: the GNU library then takes the other.
    Call::absent(SYS_clone3),
    any(SYS_set_robust_list),
    any(SYS_rseq),
    any(SYS_sched_getaffinity),
    Call::only(SYS_prctl, 0, u32::MAX, libc::PR_SET_NAME as u32),
    Call::only(SYS_seccomp, 0, u32::MAX, libc::SECCOMP_SET_MODE_FILTER),
    any(SYS_capset),
];

/// The thread that makes devices while the guest runs. Its own filter stays with each device's thread, beside that one's, so
/// it has all that any of them has.
pub(super) const MAKER: &[&[Call]] = &[ALWAYS, DEVICE, NET, READ_WRITE, STREAMS, TIMERS, FILE_SYSTEM, MAKING];

#[cfg(test)]
mod tests {
    use libc::{SYS_clone, SYS_connect, SYS_execve, SYS_fork, SYS_openat, SYS_ptrace, SYS_socket, SYS_vfork};

    use super::{Call, MAIN, MAKER, VCPU, VIRTIO_ID_FS, device};

    fn has(lists: &[&[Call]], number: libc::c_long) -> bool {
        lists.concat().iter().any(|call| call.number == number)
    }

    #[test]
    fn files_are_opened_only_by_the_one_who_shares_them() {
        for kind in (0..64).filter(|kind| *kind != VIRTIO_ID_FS) {
            assert!(!has(&device(kind), SYS_openat), "kind {kind}");
        }
        assert!(has(&device(VIRTIO_ID_FS), SYS_openat));
        assert!(!has(VCPU, SYS_openat) && !has(MAIN, SYS_openat));
    }

    #[test]
    fn nobody_starts_programs() {
        let mut all: Vec<Vec<&[Call]>> = (0..64).map(device).collect();
        all.extend([VCPU.to_vec(), MAIN.to_vec(), MAKER.to_vec()]);
        for lists in all {
            assert!(!has(&lists, SYS_execve) && !has(&lists, SYS_ptrace));
            assert!(!has(&lists, SYS_fork) && !has(&lists, SYS_vfork));
            assert!(!has(&lists, SYS_socket) && !has(&lists, SYS_connect));
        }
    }
    #[test]
    fn only_who_makes_devices_makes_threads() {
        assert!((0..64).all(|kind| !has(&device(kind), SYS_clone)));
        assert!(!has(VCPU, SYS_clone) && !has(MAIN, SYS_clone) && has(MAKER, SYS_clone));
    }

    #[test]
    fn who_makes_devices_may_do_what_each_of_them_does() {
        let makers = MAKER.concat();
        for call in (0..64).flat_map(|kind| device(kind).concat()) {
            assert!(makers.contains(&call), "{call:?}");
        }
    }
}
