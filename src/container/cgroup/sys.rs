//! bpf(2) for device programs: the one system call of cgroups that no library wraps.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::device_program::Instruction;

/// Commands, program and attach types, flags (`linux/bpf.h`).
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const FLAG_ALLOW_MULTI: u32 = 1 << 1;
const FLAG_REPLACE: u32 = 1 << 2;

/// A cgroup takes no more programs of one type than this (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// The members of `union bpf_attr` for `BPF_PROG_LOAD`, up to the last one used.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The same for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced_program: u32,
}

/// The same for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

/// The same for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(super) fn load_device_program(program: &[Instruction]) -> nix::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..7].copy_from_slice(b"devices");
    let mut attributes = LoadAttributes {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        name,
        ..LoadAttributes::default()
    };
    // SAFETY: `instructions` points to `instruction_count` instructions and `license` to a C string; both outlive the
    // call, and the kernel only reads them.
    let fd = unsafe { bpf(PROG_LOAD, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec, as all of bpf(2)) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a program on a cgroup directory, beside those of others, in the place of `replaced`.
pub(super) fn attach_device_program(
    directory: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> nix::Result<()> {
    let mut attributes = AttachAttributes {
        target: number(directory),
        program: number(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: FLAG_ALLOW_MULTI | replaced.map_or(0, |_| FLAG_REPLACE),
        replaced_program: replaced.map_or(0, number),
    };
    // SAFETY: the attributes hold descriptors and flags, no addresses.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Takes a program off a cgroup directory.
pub(super) fn detach_device_program(directory: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    let mut attributes = AttachAttributes {
        target: number(directory),
        program: number(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        ..AttachAttributes::default()
    };
    // SAFETY: the attributes hold descriptors and flags, no addresses.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// The programs on a cgroup directory itself, not on those above.
pub(super) fn device_programs(directory: BorrowedFd<'_>) -> nix::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attributes = QueryAttributes {
        target: number(directory),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: MAX_PROGRAMS as u32,
        ..QueryAttributes::default()
    };
    // SAFETY: `program_ids` points to `program_count` numbers that outlive the call; nothing else borrows them.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.program_count).unwrap_or(MAX_PROGRAMS).min(MAX_PROGRAMS);
    let mut programs = Vec::with_capacity(count);
    for id in &ids[..count] {
        let mut attributes = IdAttributes { id: *id, ..IdAttributes::default() };
        // SAFETY: the attributes hold a number, no addresses.
        let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) }?;
        // SAFETY: the kernel has just made this descriptor and nobody else knows it.
        programs.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(programs)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Calls bpf(2). The kernel takes the members after the given ones as zero.
///
/// # Safety
/// Every address in the attributes must be valid for what the command does with it, for the time of the call.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> nix::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: `attributes` is valid for reads and writes of `size` bytes; what it points to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    Errno::result(result).map(|fd| fd as RawFd)
}
