//! Docker's default profile (`seccomp/default.json` of github.com/moby/profiles, June 2026) as a table. It differs in
//! one point, the rules for `socket`, which are tighter.
//!
//! Everything that is not listed fails with EPERM. Absent on purpose: io_uring, keyrings, user-mode paging
//! (`userfaultfd`), swap, and sockets of the families AF_ALG (38, CVE-2026-31431 "Copy Fail") and AF_VSOCK (40).
//! `clone3` fails with ENOSYS, because its flags are behind a pointer that a filter cannot follow and a C library
//! that gets ENOSYS falls back to `clone`.

use sbx_container::plan::{SeccompArg, SeccompRule};

use super::profile::{Architecture, Conditions, Profile, Rule};

/// `CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// errno values of Linux, the same on every architecture that we run on.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// For whom a row is.
#[derive(Clone, Copy)]
enum For {
    Everyone,
    /// From this kernel version on.
    Kernel(u32, u32),
    /// Hosts of these architectures, by Docker's names.
    Architectures(&'static [&'static str]),
    /// Containers with this capability.
    Capable(&'static str),
    /// Containers without CAP_SYS_ADMIN.
    Confined,
}

/// A condition on one argument: its index, the operator, and one or two values.
type Condition = (u32, &'static str, u64, u64);

/// For whom, what happens (an errno, or nothing for "allowed"), which calls, and on which condition.
struct Row {
    whom: For,
    errno: Option<u32>,
    names: &'static [&'static str],
    when: Option<Condition>,
}

const fn allow(whom: For, names: &'static [&'static str]) -> Row {
    Row { whom, errno: None, names, when: None }
}

const fn allow_when(whom: For, names: &'static [&'static str], when: Condition) -> Row {
    Row { whom, errno: None, names, when: Some(when) }
}

const EQ: &str = "SCMP_CMP_EQ";
const MASKED_EQ: &str = "SCMP_CMP_MASKED_EQ";

/// In Docker's order. Rows for architectures that we do not run on are left out.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    allow(For::Everyone, &ALWAYS),
    // Before 4.8 a tracer could change the call after the filter had seen it.
    allow(For::Kernel(4, 8), &["process_vm_readv", "process_vm_writev", "ptrace"]),
    // Families 0 to 63 but for AF_ALG (38) and AF_VSOCK (40); Linux has 46. A family is an int, so the kernel looks at
    // the low half of the argument, and so do these. Docker's three rules (below 38, 39, above 40) compare all 64
    // bits: they let 0x1_0000_0028 through, and it is a vsock.
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_ffe0, 0)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_fffc, 32)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_fffe, 36)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_ffff, 39)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_ffff, 41)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_fffe, 42)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_fffc, 44)),
    allow_when(For::Everyone, &["socket"], (0, MASKED_EQ, 0xffff_fff0, 48)),
    // PER_LINUX, PER_LINUX32, both with UNAME26, and the question for the present value.
    allow_when(For::Everyone, &["personality"], (0, EQ, 0x0000_0000, 0)),
    allow_when(For::Everyone, &["personality"], (0, EQ, 0x0000_0008, 0)),
    allow_when(For::Everyone, &["personality"], (0, EQ, 0x0002_0000, 0)),
    allow_when(For::Everyone, &["personality"], (0, EQ, 0x0002_0008, 0)),
    allow_when(For::Everyone, &["personality"], (0, EQ, 0xffff_ffff, 0)),
    allow(For::Architectures(&["arm", "arm64"]), &[
        "arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls",
    ]),
    allow(For::Architectures(&["amd64", "x32"]), &["arch_prctl"]),
    allow(For::Architectures(&["amd64", "x32", "x86"]), &["modify_ldt"]),
    allow(For::Capable("CAP_DAC_READ_SEARCH"), &["open_by_handle_at"]),
    allow(For::Capable("CAP_SYS_ADMIN"), &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
        "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
        "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog",
        "umount", "umount2", "unshare",
    ]),
    allow_when(For::Confined, &["clone"], (0, MASKED_EQ, CLONE_NAMESPACES, 0)),
    Row { whom: For::Confined, errno: Some(ENOSYS), names: &["clone3"], when: None },
    allow(For::Capable("CAP_SYS_BOOT"), &["reboot"]),
    allow(For::Capable("CAP_SYS_CHROOT"), &["chroot"]),
    allow(For::Capable("CAP_SYS_MODULE"), &["delete_module", "init_module", "finit_module"]),
    allow(For::Capable("CAP_SYS_PACCT"), &["acct"]),
    allow(For::Capable("CAP_SYS_PTRACE"), &[
        "kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    ]),
    allow(For::Capable("CAP_SYS_RAWIO"), &["iopl", "ioperm"]),
    allow(For::Capable("CAP_SYS_TIME"), &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    allow(For::Capable("CAP_SYS_TTY_CONFIG"), &["vhangup"]),
    allow(For::Capable("CAP_SYS_NICE"), &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    allow(For::Capable("CAP_SYSLOG"), &["syslog"]),
    allow(For::Capable("CAP_BPF"), &["bpf"]),
    allow(For::Capable("CAP_PERFMON"), &["perf_event_open"]),
];

/// Calls that every container may make.
#[rustfmt::skip]
const ALWAYS: [&str; 361] = [
    "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget", "capset", "chdir",
    "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range",
    "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2",
    "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64",
    "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr",
    "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex",
    "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "get_robust_list",
    "getrusage", "getsid", "getsockname", "getsockopt", "get_thread_area", "gettid", "gettimeofday", "getuid",
    "getuid32", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "io_cancel", "ioctl", "io_destroy", "io_getevents", "io_pgetevents",
    "io_pgetevents_time64", "ioprio_get", "ioprio_set", "io_setup", "io_submit", "ipc", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr",
    "link", "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "_llseek",
    "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier",
    "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2",
    "mlockall", "mmap", "mmap2", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl",
    "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep",
    "newfstatat", "_newselect", "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe",
    "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64",
    "preadv", "preadv2", "prlimit64", "process_mrelease", "pselect6", "pselect6_time64", "pwrite64", "pwritev",
    "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat",
    "renameat2", "restart_syscall", "riscv_hwprobe", "rmdir", "rseq", "rt_sigaction", "rt_sigpending",
    "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
    "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "setfsgid",
    "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer",
    "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32",
    "setreuid", "setreuid32", "setrlimit", "set_robust_list", "setsid", "setsockopt", "set_thread_area",
    "set_tid_address", "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall", "socketpair",
    "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat", "sync",
    "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times",
    "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uretprobe",
    "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid",
    "write", "writev",
];

/// The profile for hosts of one architecture.
pub(super) fn profile(architecture: Architecture) -> Profile {
    let architectures: &[&str] = match architecture {
        Architecture::Amd64 => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        Architecture::Arm64 => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    };
    Profile {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno: Some(EPERM),
        architectures: owned(architectures),
        flags: vec![super::DEFAULT_FLAG.to_owned()],
        rules: ROWS.iter().map(Row::rule).collect(),
    }
}

impl Row {
    fn rule(&self) -> Rule {
        let mut includes = Conditions::default();
        let mut excludes = Conditions::default();
        match self.whom {
            For::Everyone => {}
            For::Kernel(major, minor) => includes.min_kernel = Some((major, minor)),
            For::Architectures(names) => includes.architectures = owned(names),
            For::Capable(name) => includes.capabilities = owned(&[name]),
            For::Confined => excludes.capabilities = owned(&["CAP_SYS_ADMIN"]),
        }
        let action = if self.errno.is_some() { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" };
        let arg =
            self.when.map(|(index, op, value, value_two)| SeccompArg { index, value, value_two, op: op.to_owned() });
        let rule = SeccompRule {
            names: owned(self.names),
            action: action.to_owned(),
            errno: self.errno,
            args: arg.into_iter().collect(),
        };
        Rule { rule, includes, excludes }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
