//! Becoming a supervisor: the descriptors that pass from whoever starts it, and the program's own file, sealed.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use sbx_container::sys::{AttributeChange, OPEN_TREE_CLONE, Recursion, attr, mount_setattr, open_tree};

/// Where a supervisor finds its descriptors.
const LISTENER: RawFd = 3;
const LOCK: RawFd = 4;
const PROGRAM: RawFd = 5;

/// What a supervisor inherits.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) listener: UnixListener,
    /// Locked for as long as the supervisor lives.
    pub(crate) lock: File,
    /// The program's own file on a read-only mount.
    pub(crate) program: OwnedFd,
}

/// Takes the inherited descriptors, once.
pub(crate) fn inherited() -> io::Result<Inherited> {
    for fd in [LISTENER, LOCK, PROGRAM] {
        // SAFETY: the descriptor is only asked about; if it is not open the call fails.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    // SAFETY: `spawn_supervisor` has put them there for this process, and this runs once, at its beginning, before
    // anything else could have opened a descriptor with these numbers.
    unsafe {
        Ok(Inherited {
            listener: UnixListener::from_raw_fd(LISTENER),
            lock: File::from_raw_fd(LOCK),
            program: OwnedFd::from_raw_fd(PROGRAM),
        })
    }
}

/// The file of this program on a detached read-only mount. A process that gets at the file through a supervisor or a
/// container's first moments cannot open it for writing (CVE-2019-5736).
pub(crate) fn sealed_program() -> io::Result<OwnedFd> {
    let own = File::open("/proc/self/exe")?;
    let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH as u32;
    let clone = open_tree(Some(own.as_fd()), Path::new(""), flags)?;
    let change = AttributeChange { set: attr::RDONLY, ..AttributeChange::default() };
    mount_setattr(clone.as_fd(), Recursion::Only, &change)?;
    Ok(clone)
}

/// Starts `sbx supervise` with `args`, detached from this process's terminal and streams.
///
/// `library` is where the guest's kernel and agent are: the supervisor cannot find them by its own file, which has no
/// directory.
pub(crate) fn spawn_supervisor(
    args: &[&std::ffi::OsStr],
    library: Option<&Path>,
    listener: &UnixListener,
    lock: &File,
) -> io::Result<()> {
    let program = sealed_program()?;
    let passed = [listener.as_raw_fd(), lock.as_raw_fd(), program.as_raw_fd()];
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0("sbx").args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    if let Some(library) = library {
        command.env(sbx_vm_mode::artifacts::VARIABLE, library);
    }
    // SAFETY: only async-signal-safe calls on descriptors that stay open until then.
    unsafe {
        command.pre_exec(move || place(passed));
    }
    // The supervisor is not waited for: it outlives this process, or is reaped at its end.
    command.spawn().map(drop)
}

/// Puts the descriptors where the supervisor expects them, in a session of its own.
fn place(passed: [RawFd; 3]) -> io::Result<()> {
    // SAFETY: plain integers only. The numbers are first moved out of the way, so that none overwrites another.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut moved = [0; 3];
        for (from, to) in passed.iter().zip(&mut moved) {
            *to = libc::fcntl(*from, libc::F_DUPFD, 10);
            if *to < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (from, to) in moved.iter().zip([LISTENER, LOCK, PROGRAM]) {
            if libc::dup2(*from, to) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // Everything else ends with the exec that follows.
        const CLOSE_RANGE_CLOEXEC: u32 = 4;
        if libc::syscall(libc::SYS_close_range, PROGRAM as u32 + 1, u32::MAX, CLOSE_RANGE_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes the program's own code and constants out of this process's memory: the kernel brings back what is used again,
/// from its page cache. What starting needed is a lot, what waiting needs is little.
pub(crate) fn release_program() {
    unsafe extern "C" fn release(info: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the C library passes a valid description with `dlpi_phnum` headers.
        let (base, headers) = unsafe {
            ((*info).dlpi_addr, std::slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum)))
        };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        {
            // SAFETY: it asks for a number.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
            let from = (base + header.p_vaddr) / page * page;
            let length = (base + header.p_vaddr + header.p_memsz) - from;
            // SAFETY: a segment that is never written has no other content than its file. What goes wrong changes nothing.
            unsafe { libc::madvise(from as *mut libc::c_void, length as usize, libc::MADV_DONTNEED) };
        }
        // The first description is the program's; others have been loaded by the kernel (vdso).
        1
    }
    // SAFETY: the callback keeps nothing of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(release), std::ptr::null_mut()) };
}
