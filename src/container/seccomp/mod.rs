//! System call filters: from the OCI form to a classic BPF program, and into the kernel.
//!
//! [`compile`] runs before the container is cloned: it reads names, allocates and fails with words. [`install`] is
//! one system call on the finished [`Program`], safe between `clone` and `execve`. The reference for what a filter
//! means is runc with libseccomp, because that is what the profiles in the world were written against; the tests
//! run our programs against those of libseccomp.

mod action;
mod arch;
mod assembler;
mod layout;
mod multiplex;
mod rules;
mod sys;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use self::action::Action;
use self::arch::Arch;
use self::layout::{Newer, Section};
use self::rules::{Calls, Rule};
use crate::plan;

/// Most instructions that the kernel takes in one program (`BPF_MAXINSNS`, `linux/bpf_common.h`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// One instruction of classic BPF (`struct sock_filter`, `linux/filter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, size or operation, and mode.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Flags of `SECCOMP_SET_MODE_FILTER` (seccomp(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// `SECCOMP_FILTER_FLAG_TSYNC`: all threads of the process.
    pub const TSYNC: Self = Self(1);
    /// `SECCOMP_FILTER_FLAG_LOG`: every action but allow is logged.
    pub const LOG: Self = Self(1 << 1);
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no speculative store bypass mitigation.
    pub const SPEC_ALLOW: Self = Self(1 << 2);
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a notification descriptor.
    pub const NEW_LISTENER: Self = Self(1 << 3);
    /// `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`: `ESRCH` instead of a thread id; needed for TSYNC with a listener.
    pub const TSYNC_ESRCH: Self = Self(1 << 4);
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: a notified call is not interrupted by ordinary signals.
    pub const WAIT_KILLABLE_RECV: Self = Self(1 << 5);

    /// As the kernel takes them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: Flags,
}

impl Program {
    /// What the kernel will run; 1 to [`MAX_INSTRUCTIONS`].
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// How the kernel will install it.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Whether [`install`] returns a notification descriptor.
    #[must_use]
    pub fn wants_listener(&self) -> bool {
        self.flags.contains(Flags::NEW_LISTENER)
    }
}

/// Why a filter cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than the kernel takes.
    #[error("the seccomp filter compiles to {length} instructions; the kernel takes {MAX_INSTRUCTIONS} at most")]
    TooLong {
        /// Instructions.
        length: usize,
    },
    /// So many that no program could hold them.
    #[error(
        "the seccomp filter has more than {limit} argument conditions; name fewer system calls in conditional rules"
    )]
    TooManyConditions {
        /// Conditions, counted once for each name of their rule.
        limit: usize,
    },
    /// Not an action of libseccomp.
    #[error("unknown seccomp action {name:?}; actions look like \"SCMP_ACT_ALLOW\"")]
    Action {
        /// As the plan has it.
        name: String,
    },
    /// The data of an action does not fit.
    #[error("seccomp action {action} cannot return {data}; the highest value is {highest}")]
    Data {
        /// `SCMP_ACT_ERRNO`.
        action: String,
        /// As the plan has it.
        data: u32,
        /// The highest that it takes.
        highest: u16,
    },
    /// Not a comparison of libseccomp.
    #[error("unknown seccomp comparison {name:?}; comparisons look like \"SCMP_CMP_EQ\"")]
    Operator {
        /// As the plan has it.
        name: String,
    },
    /// Not an argument of a system call.
    #[error("a seccomp rule compares argument {index}; system calls have arguments 0 to 5")]
    Argument {
        /// As the plan has it.
        index: u32,
    },
    /// Not an architecture of libseccomp.
    #[error("unknown seccomp architecture {name:?}; architectures look like \"SCMP_ARCH_X86_64\"")]
    Architecture {
        /// As the plan has it.
        name: String,
    },
    /// Not a flag of seccomp(2) that a plan may ask for.
    #[error("unknown seccomp flag {name:?}; flags look like \"SECCOMP_FILTER_FLAG_LOG\"")]
    Flag {
        /// As the plan has it.
        name: String,
    },
    /// A rule with a name that is empty.
    #[error("a seccomp rule with action {action} has an empty system call name")]
    EmptyName {
        /// `SCMP_ACT_ALLOW`.
        action: String,
    },
    /// Two rules of one call that cannot both hold.
    #[error("seccomp rules for system call {name} contradict each other: the same arguments have two actions")]
    Contradiction {
        /// `socket`.
        name: String,
    },
    /// Nothing could run until somebody answers.
    #[error("SCMP_ACT_NOTIFY cannot be the default action of a seccomp filter")]
    NotifyDefault,
    /// The descriptor could not be handed on.
    #[error("SCMP_ACT_NOTIFY cannot be the action for write: the listener's descriptor is handed on by a write")]
    NotifyWrite,
    /// The kernel refuses it.
    #[error("seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")]
    NothingToReceive,
}

/// Compiles a filter for the architecture that this program runs on and those that the filter names.
///
/// Names of calls that an architecture does not have are skipped on it, as runc does. Calls with a number above all
/// that the filter names get ENOSYS where the default action would not let them through, so that a C library newer
/// than the profile falls back to older calls (runc's "ENOSYS stub").
///
/// On i386 a rule about a socket or System V IPC call applies to `socketcall` and `ipc` as well, without its
/// conditions on argument 0, as in libseccomp: a filter cannot see the arguments behind the pointer.
///
/// # Errors
/// Anything in the filter that is not known, contradicts itself or does not fit.
pub fn compile(filter: &plan::Seccomp) -> Result<Program, Error> {
    let default = Action::parse(&filter.default_action, filter.default_errno)?;
    let newer = if default.lets_through() { Newer::Default } else { Newer::Unknown };
    compile_for(filter, Arch::NATIVE, newer)
}

fn compile_for(filter: &plan::Seccomp, native: Arch, newer: Newer) -> Result<Program, Error> {
    let default = Action::parse(&filter.default_action, filter.default_errno)?;
    if default == Action::NOTIFY {
        return Err(Error::NotifyDefault);
    }
    let rules = filter.rules.iter().map(Rule::parse).collect::<Result<Vec<_>, _>>()?;
    let flags = flags(&filter.flags, &rules)?;
    let mut listed = vec![native];
    for name in &filter.architectures {
        listed.extend(Arch::parse(name)?.filter(|arch| !listed.contains(arch)));
    }
    let mut calls = Vec::with_capacity(listed.len());
    for arch in &listed {
        calls.push((*arch, Calls::collect(&rules, default, *arch)?));
    }
    let of = |wanted: Arch| calls.iter().find(|(arch, _)| *arch == wanted).map(|(_, calls)| calls);
    let sections: Vec<_> = calls
        .iter()
        .filter(|(arch, _)| *arch != Arch::X32)
        .map(|(arch, calls)| {
            let x32 = if *arch == Arch::X86_64 { of(Arch::X32) } else { None };
            Section { arch: *arch, calls, x32 }
        })
        .collect();
    let instructions = layout::program(&sections, default, newer).finish()?;
    Ok(Program { instructions, flags })
}

fn flags(names: &[String], rules: &[Rule<'_>]) -> Result<Flags, Error> {
    let mut flags = Flags::default();
    for name in names {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => Flags::TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => Flags::LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Flags::SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Flags::WAIT_KILLABLE_RECV,
            _ => return Err(Error::Flag { name: name.clone() }),
        };
    }
    if rules.iter().any(|rule| rule.action() == Action::NOTIFY) {
        flags |= Flags::NEW_LISTENER;
    } else if flags.contains(Flags::WAIT_KILLABLE_RECV) {
        return Err(Error::NothingToReceive);
    }
    // Without it the kernel cannot tell a descriptor from the id of a thread that it could not synchronise.
    if flags.contains(Flags::TSYNC) && flags.contains(Flags::NEW_LISTENER) {
        flags |= Flags::TSYNC_ESRCH;
    }
    Ok(flags)
}

/// Installs a filter on the calling thread (all threads with `TSYNC`), for good. Needs `no_new_privs` or
/// CAP_SYS_ADMIN. Async-signal-safe: one system call, no allocation.
///
/// Returns the notification descriptor (close-on-exec) if the program wants one.
///
/// # Errors
/// As seccomp(2): `EACCES` without the right to, `ENOMEM` for too long a chain, `EINVAL` where the kernel does not
/// know a flag.
pub fn install(program: &Program) -> Result<Option<OwnedFd>, Errno> {
    sys::set_mode_filter(program)
}
