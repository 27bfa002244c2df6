//! The unsafe edges of the kernel tests.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::super::{Program, install};

/// Has `command` install a filter between `fork` and `execve`.
pub(super) fn confine(command: &mut Command, program: Program) -> &mut Command {
    let confine = move || {
        nix::sys::prctl::set_no_new_privs()?;
        // The listener, if any, is closed on exec.
        install(&program)?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only and does not allocate, as `install` promises.
    unsafe { command.pre_exec(confine) }
}

/// A system call by number, `Err` with its errno. Only for calls whose arguments are numbers.
pub(super) fn call(number: i64, args: [u64; 3]) -> Result<i64, nix::errno::Errno> {
    // SAFETY: the callers pass no pointers but null.
    nix::errno::Errno::result(unsafe { libc::syscall(number, args[0], args[1], args[2]) })
}

/// `getpid` through the gate of i386.
#[cfg(target_arch = "x86_64")]
pub(super) fn getpid_i386() -> i64 {
    let result: i64;
    // SAFETY: int 0x80 with eax = 20 takes no arguments and touches no memory; r8 to r11 are zeroed by old kernels.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}
