//! System calls that neither the standard library nor `nix` offers: clone3(2), the mount API of Linux 5.2 and
//! later, openat2(2), pidfds and a few prctl(2) operations. The only file of this crate's core with `unsafe`.
//!
//! All of them are async-signal-safe and allocate at most a C string, so that they may be used between clone and exec.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `OPEN_TREE_CLONE`: a detached copy of the mount (open_tree(2)).
pub const OPEN_TREE_CLONE: u32 = 1;
/// `MOUNT_ATTR_*` (mount_setattr(2)).
#[allow(missing_docs, reason = "named as in mount_setattr(2)")]
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const ATIME_MASK: u64 = 0x70;
    pub const RELATIME: u64 = 0x0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x10_0000;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}
/// `RESOLVE_IN_ROOT`: the directory is the root of the lookup (openat2(2)).
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// `RESOLVE_NO_MAGICLINKS` (openat2(2)).
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// Turns a raw return value into a result.
fn check(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn owned(value: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(value)?;
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn c_text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// What [`clone3`] returned, and to whom.
#[derive(Debug)]
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the caller.
    Parent {
        /// Process id in the caller's PID namespace.
        pid: libc::pid_t,
        /// A pidfd of the new process.
        pidfd: OwnedFd,
    },
}

/// A process like fork(2) would make it, in new namespaces and, where given, in a cgroup v2 directory (clone3(2)).
///
/// The caller must have one thread only: the child goes on with a copy of its memory.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(directory) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: args outlives the call; no CLONE_VM and no stack, so the child runs on its own copy of this one.
    // The caller has a single thread, so no lock is held by a thread that the child lacks.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there.
    Ok(Cloned::Parent { pid: pid as libc::pid_t, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Every signal's default action (signal(7)). A program starts with those, whatever its creator ignores: the Rust
/// runtime ignores SIGPIPE, and an ignored signal stays ignored across execve(2).
///
/// By the bare system call, since the C library keeps some signals to itself and refuses to name them.
pub fn default_signals() {
    /// The kernel's `struct sigaction`, its mask of one word included; all zeroes is `SIG_DFL`.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64 {
        // SAFETY: the action is read only, as long as the kernel reads, and installs no handler. What cannot be
        // changed (SIGKILL, SIGSTOP) has its default action.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null::<u64>(), 8usize);
        }
    }
}

/// Opens `path` below `directory` under openat2(2)'s `resolve` rules.
pub fn openat2(directory: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: open_how is plain data for which all zeroes is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    loop {
        // SAFETY: path and how outlive the call.
        let opened = owned(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match opened {
            // A rename or mount elsewhere raced with the scoped lookup; the man page says to try again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// A mount as a descriptor (open_tree(2)). `flags` are `OPEN_TREE_CLONE` and `AT_*`.
pub fn open_tree(directory: Option<BorrowedFd<'_>>, path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let directory = directory.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: path outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags | libc::O_CLOEXEC as u32) })
}

/// Attaches the detached mount `from` on top of what `to` refers to (move_mount(2)).
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are static empty C strings.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), to.as_raw_fd(), c"".as_ptr(), flags)
    })
    .map(drop)
}

/// Changes attributes and propagation of a mount (mount_setattr(2)); `recursive` reaches the mounts below.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: Recursion, change: &AttributeChange) -> io::Result<()> {
    let args = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: change.user_namespace.map_or(0, |fd| fd as u64),
    };
    let mut flags = libc::AT_EMPTY_PATH as u32;
    if recursive == Recursion::Below {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: args outlives the call and the path is a static empty C string.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const args,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Whether an operation reaches the mounts below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recursion {
    /// This mount only.
    Only,
    /// This mount and all below it.
    Below,
}

/// A change of [`mount_setattr`].
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "fields of struct mount_attr, mount_setattr(2)")]
pub struct AttributeChange {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub user_namespace: Option<RawFd>,
}

/// A new instance of a file system as a detached mount (fsopen(2), fsconfig(2), fsmount(2)).
/// An option is `key` or `key=value`.
pub fn new_filesystem(fstype: &str, source: &str, options: &[String], attributes: u64) -> io::Result<OwnedFd> {
    let fstype = c_text(fstype)?;
    // SAFETY: fstype outlives the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
    if !source.is_empty() {
        configure(&context, FSCONFIG_SET_STRING, Some(c"source"), Some(&c_text(source)?))?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => {
                configure(&context, FSCONFIG_SET_STRING, Some(&c_text(key)?), Some(&c_text(value)?))?;
            }
            None => configure(&context, FSCONFIG_SET_FLAG, Some(&c_text(option)?), None)?,
        }
    }
    configure(&context, FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: plain integers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as u32) })
}

fn configure(context: &OwnedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are null where the command takes none, or C strings that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) }).map(drop)
}

/// Makes the working directory's mount the root and takes the old root away: pivot_root(2)'s `pivot_root(".", ".")`.
pub fn pivot_to_current_directory() -> io::Result<()> {
    // SAFETY: static C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: static C string. The old root is stacked on the new one; this removes it.
    check(libc::c_long::from(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })).map(drop)
}

/// A pidfd of a process (pidfd_open(2)).
pub fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: plain integers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal by pidfd (pidfd_send_signal(2)).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks for the default one.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })
    .map(drop)
}

/// Joins the namespaces of `flags` (setns(2)); `target` is an nsfs file or a pidfd.
pub fn setns(target: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: plain integers only.
    check(libc::c_long::from(unsafe { libc::setns(target.as_raw_fd(), flags) })).map(drop)
}

/// Closes every descriptor from `first` to `last`; for a copy of a process that never touches their owners again.
pub(crate) fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the caller is a forked copy; the values that own the descriptors are never used or dropped in it.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as u32, last as u32, 0) }).map(drop)
}

/// Marks every descriptor from `first` on to be closed by exec (close_range(2)).
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: plain integers only; the descriptors stay open until exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// A prctl(2) operation with one argument.
pub fn prctl(operation: i32, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: callers pass operations that take an integer, never a pointer.
    check(libc::c_long::from(unsafe { libc::prctl(operation, argument, 0, 0, 0) })).map(|value| value as libc::c_int)
}

/// A new, anonymous session keyring (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING). A kernel without keyrings is fine.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    });
    match joined {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Path of the working directory as the kernel sees it, `(unreachable)…` when it lies outside the root (getcwd(2)).
pub fn current_directory() -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize + 16];
    // SAFETY: the buffer is as long as we say.
    let length = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.truncate((length as usize).saturating_sub(1));
    Ok(buffer)
}

/// Replaces the program (execve(2)); returns only with an error.
pub fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: both arrays end with null and the strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the program by the open file `program` (execveat(2) with AT_EMPTY_PATH); returns only with an error.
pub fn fexecve(program: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: both arrays end with null and the strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Ends the process without running anything more of it (_exit(2)).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(status) }
}

/// Makes the terminal the controlling one of this session (ioctl_tty(2), TIOCSCTTY).
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// Sets the size of a terminal (ioctl_tty(2), TIOCSWINSZ).
pub fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: size outlives the call.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })).map(drop)
}

/// Unlocks a new pseudo-terminal and opens its other end (ioctl_tty(2), TIOCSPTLCK and TIOCGPTPEER).
pub fn open_terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: unlock outlives the call.
    check(libc::c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags.
    owned(libc::c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }))
}

/// Sets a resource limit by number (prlimit(2)).
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit outlives the call; 0 is this process.
    check(libc::c_long::from(unsafe { libc::prlimit64(0, resource as _, &raw const limit, std::ptr::null_mut()) }))
        .map(drop)
}

/// The descriptor that came with a message, if any.
pub(crate) fn received_fd(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Option<OwnedFd> {
    let mut found = None;
    for part in message.cmsgs().ok()? {
        if let nix::sys::socket::ControlMessageOwned::ScmRights(fds) = part {
            for fd in fds {
                // SAFETY: the kernel has just installed this descriptor for us; each is wrapped once.
                found = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    found
}

/// fork(2) for a process that has one thread.
pub(crate) fn fork() -> nix::Result<nix::unistd::ForkResult> {
    // SAFETY: the reaper has a single thread, so the child may do anything.
    unsafe { nix::unistd::fork() }
}

/// Sets the NIS domain name of this UTS namespace (setdomainname(2)).
pub(crate) fn setdomainname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and length describe a live string.
    check(libc::c_long::from(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })).map(drop)
}
