//! Becoming a supervisor: leaving the starter behind, the descriptors that come from it, and the program's own file, sealed.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use sbx_container::sys::{AttributeChange, OPEN_TREE_CLONE, Recursion, attr, mount_setattr, open_tree};

/// Leaves the starter's session and directory, and closes every descriptor from 3 on but `kept`. Standard input becomes
/// `/dev/null`. To be called before anything else has been opened.
pub(crate) fn detach(kept: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    let kept = kept.as_raw_fd() as u32;
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        // SAFETY: nothing in this process owns one of these descriptors yet: they came with its execution.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(())
}

/// The `N` descriptors that come next; `None` at the end of the stream.
pub(crate) fn receive<const N: usize>(channel: BorrowedFd<'_>) -> io::Result<Option<[OwnedFd; N]>> {
    let mut received = Vec::with_capacity(N);
    if receive_with(channel, &mut [0], &mut received)? == 0 {
        return Ok(None);
    }
    let odd = |_| io::Error::new(io::ErrorKind::InvalidData, "not the descriptors of a sandbox");
    received.try_into().map(Some).map_err(odd)
}

/// Reads from a stream into `buffer`, and descriptors that come with the bytes into `files`; 0 at the end.
pub(crate) fn receive_with(stream: BorrowedFd<'_>, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!([RawFd; 8]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just installed these descriptors for us; each is wrapped once.
            files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(message.bytes)
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
