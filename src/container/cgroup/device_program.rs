//! Device access on cgroup v2: the rules as an eBPF program that the kernel runs for every open and mknod of a device
//! (cgroup-v2.rst, "Device controller"; `bpf_cgroup_dev_ctx` in `linux/bpf.h`).
//!
//! The program walks the rules from the last to the first, as the last that matches decides, and it decides for each
//! kind of access by itself: what a rule allows is struck off the request, which is granted when nothing is left, and
//! what a rule denies of the rest denies it all. Without a rule that decides, access is granted, like on v1.
//!
//! ```text
//!   r2 = access wanted   r3 = kind   r4 = major   r5 = minor        (loaded from the context in r1)
//!   rule:  if r3 != kind goto next;  if r4 != major goto next;  if r5 != minor goto next     (each only if given)
//!          allow:  r2 &= ~access;  if r2 != 0 goto next;  return 1
//!          deny:   if !(r2 & access) goto next;  return 0
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use super::devices::{ALL_ACCESS, Kind, Rule, SETTING};
use super::error::{Error, Result};
use super::limits::Phase;
use super::sys;

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Source register in the high half, destination in the low half: the order of the bit field on little-endian
    /// machines, which all supported ones are.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// Operation codes (`Documentation/bpf/standardization/instruction-set.rst`), 32-bit forms.
pub(super) mod code {
    /// destination = *(u32 *)(source + offset)
    pub(in crate::cgroup) const LOAD: u8 = 0x61;
    /// destination = immediate, 64 bits
    pub(in crate::cgroup) const MOVE: u8 = 0xb7;
    /// destination = source, low 32 bits
    pub(in crate::cgroup) const COPY: u8 = 0xbc;
    /// destination &= immediate, 32 bits
    pub(in crate::cgroup) const AND: u8 = 0x54;
    /// destination >>= immediate, 32 bits
    pub(in crate::cgroup) const SHIFT_RIGHT: u8 = 0x74;
    /// if destination != immediate jump, 32 bits
    pub(in crate::cgroup) const JUMP_NOT_EQUAL: u8 = 0x56;
    /// if destination & immediate jump, 32 bits
    pub(in crate::cgroup) const JUMP_SET: u8 = 0x46;
    /// jump
    pub(in crate::cgroup) const JUMP: u8 = 0x05;
    /// return r0
    pub(in crate::cgroup) const EXIT: u8 = 0x95;
}

/// Kinds as in `linux/bpf.h` (`BPF_DEVCG_DEV_*`).
fn number_of(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1,
        Kind::Character => 2,
    }
}

const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset: 0, immediate }
}

/// A jump over the `offset` instructions that follow it.
fn jump(code: u8, destination: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { code, registers: destination, offset, immediate }
}

fn returning(value: i32) -> [Instruction; 2] {
    [instruction(code::MOVE, 0, value), instruction(code::EXIT, 0, 0)]
}

fn load(destination: u8, offset: i16) -> Instruction {
    Instruction { code: code::LOAD, registers: (1 << 4) | destination, offset, immediate: 0 }
}

/// The program of a list of rules.
pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load(ACCESS, 0),
        Instruction { code: code::COPY, registers: (ACCESS << 4) | KIND, offset: 0, immediate: 0 },
        instruction(code::AND, KIND, 0xffff),
        instruction(code::SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        if (rule.kind, rule.major, rule.minor, rule.access) == (None, None, None, ALL_ACCESS) {
            // It decides everything: what follows would be unreachable, which the verifier refuses.
            return program;
        }
    }
    program.extend(returning(1));
    program
}

/// The instructions of one rule.
fn block(rule: &Rule) -> Vec<Instruction> {
    let mut body = Vec::new();
    let everything = rule.access == ALL_ACCESS;
    if rule.allow {
        if !everything {
            body.push(instruction(code::AND, ACCESS, i32::from(ALL_ACCESS & !rule.access)));
            body.push(jump(code::JUMP_NOT_EQUAL, ACCESS, 0, 2));
        }
        body.extend(returning(1));
    } else {
        if !everything {
            body.push(jump(code::JUMP_SET, ACCESS, i32::from(rule.access), 1));
            body.push(jump(code::JUMP, 0, 0, 2));
        }
        body.extend(returning(0));
    }
    let matches: Vec<(u8, i32)> = [
        (KIND, rule.kind.map(number_of)),
        (MAJOR, rule.major.map(u32::cast_signed)),
        (MINOR, rule.minor.map(u32::cast_signed)),
    ]
    .into_iter()
    .filter_map(|(register, value)| Some((register, value?)))
    .collect();
    let mut block = Vec::with_capacity(matches.len() + body.len());
    for (index, (register, value)) in matches.iter().enumerate() {
        // At most two further matches and four instructions lie between here and the next rule.
        let over = matches.len() - index - 1 + body.len();
        block.push(jump(code::JUMP_NOT_EQUAL, *register, *value, over as i16));
    }
    block.extend(body);
    block
}

/// Loads the program of the rules and puts it on a cgroup; on one in use, in the place of what was there.
pub(super) fn attach(directory: BorrowedFd<'_>, rules: &[Rule], phase: Phase) -> Result<()> {
    let failed = |step: &'static str| {
        move |error: nix::errno::Errno| match error {
            nix::errno::Errno::ENOSYS => Error::unsupported(SETTING, "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)"),
            nix::errno::Errno::EPERM => {
                Error::unsupported(SETTING, format!("not permitted to {step}: it needs CAP_BPF or CAP_SYS_ADMIN"))
            }
            nix::errno::Errno::EINVAL => {
                Error::unsupported(SETTING, format!("cannot {step}: {error} (is CONFIG_CGROUP_BPF in this kernel?)"))
            }
            error => Error::unsupported(SETTING, format!("cannot {step}: {error}")),
        }
    };
    let program = sys::load_device_program(&compile(rules)).map_err(failed("load the device program"))?;
    let put = failed("attach the device program");
    if phase == Phase::Fresh {
        return sys::attach_device_program(directory, program.as_fd(), None).map_err(put);
    }
    let old = sys::device_programs(directory).map_err(failed("find the device program in force"))?;
    match old.as_slice() {
        // One step: no moment with both (fewer rights) or neither (more rights).
        [one] => sys::attach_device_program(directory, program.as_fd(), Some(one.as_fd())).map_err(put),
        several => {
            sys::attach_device_program(directory, program.as_fd(), None).map_err(put)?;
            let detach = |old: &std::os::fd::OwnedFd| sys::detach_device_program(directory, old.as_fd());
            several.iter().try_for_each(detach).map_err(failed("detach the former device program"))
        }
    }
}
