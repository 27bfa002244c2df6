//! A seccomp filter as classic BPF (Documentation/userspace-api/seccomp_filter.rst): system calls that are allowed, some of
//! them with an argument that must be right, and some that are answered as if the kernel had them not; everything else kills
//! the process.

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

/// `AUDIT_ARCH_X86_64` (include/uapi/linux/audit.h).
const ARCHITECTURE: u32 = 0xc000_003e;
/// Numbers from here on are of the x32 interface, which nothing of ours uses.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
const MASK: u32 = BPF_ALU | BPF_AND | BPF_K;
const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
const AT_LEAST: u32 = BPF_JMP | BPF_JGE | BPF_K;
const RETURN: u32 = BPF_RET | BPF_K;

/// A system call that does not kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: libc::c_long,
    pub(super) condition: Option<Condition>,
    /// What the filter returns.
    verdict: u32,
}

/// The lower half of an argument, masked, must be a value. All that is asked about here has 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u32,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl Call {
    pub(super) const fn any(number: libc::c_long) -> Self {
        Self { number, condition: None, verdict: libc::SECCOMP_RET_ALLOW }
    }

    /// It fails with `ENOSYS`.
    pub(super) const fn absent(number: libc::c_long) -> Self {
        Self { number, condition: None, verdict: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 }
    }

    pub(super) const fn only(number: libc::c_long, argument: u32, mask: u32, value: u32) -> Self {
        Self { number, condition: Some(Condition { argument, mask, value }), verdict: libc::SECCOMP_RET_ALLOW }
    }
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on if so, else skips.
fn or_skip(code: u32, k: u32, skip: usize) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: skip as u8, k }
}

/// The filter. A number may occur several times with different conditions; the order is that of the test.
pub(super) fn assemble(calls: &[Call]) -> Vec<sock_filter> {
    let kill = step(RETURN, libc::SECCOMP_RET_KILL_PROCESS);
    let mut program = vec![
        step(LOAD, ARCHITECTURE_AT),
        sock_filter { code: EQUAL as u16, jt: 1, jf: 0, k: ARCHITECTURE },
        kill,
        step(LOAD, NUMBER_AT),
        or_skip(AT_LEAST, X32, 1),
        kill,
    ];
    let mut done = Vec::new();
    for call in calls {
        if !done.contains(&call.number) {
            done.push(call.number);
            let same: Vec<&Call> = calls.iter().filter(|other| other.number == call.number).collect();
            program.extend(block(call.number, &same));
        }
    }
    program.push(kill);
    program
}

/// What is done for one number. Having asked about arguments, it cannot come back to the number, so it ends here.
fn block(number: libc::c_long, calls: &[&Call]) -> Vec<sock_filter> {
    let allow = step(RETURN, libc::SECCOMP_RET_ALLOW);
    let mut body = Vec::new();
    if let Some(any) = calls.iter().find(|call| call.condition.is_none()) {
        body.push(step(RETURN, any.verdict));
    } else {
        for Condition { argument, mask, value } in calls.iter().filter_map(|call| call.condition) {
            body.push(step(LOAD, ARGUMENTS_AT + 8 * argument));
            body.push(step(MASK, mask));
            body.push(or_skip(EQUAL, value, 1));
            body.push(allow);
        }
        body.push(step(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    }
    let mut block = vec![or_skip(EQUAL, number as u32, body.len())];
    block.extend(body);
    block
}

#[cfg(test)]
mod tests {
    use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS};

    use super::{ARCHITECTURE, Call, assemble};

    /// What the kernel would do: the filter, interpreted.
    fn verdict(calls: &[Call], architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
        let program = assemble(calls);
        let load = |at: u32| match at {
            0 => number as u32,
            4 => architecture,
            _ => (arguments[(at as usize - 16) / 8] >> (8 * (at % 8))) as u32,
        };
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let jump = |so: bool| usize::from(if so { step.jt } else { step.jf });
            match u32::from(step.code) {
                super::LOAD => value = load(step.k),
                super::MASK => value &= step.k,
                super::EQUAL => at += jump(value == step.k),
                super::AT_LEAST => at += jump(value >= step.k),
                super::RETURN => return step.k,
                other => panic!("code {other:#x}"),
            }
        }
    }

    const CALLS: [Call; 5] = [
        Call::any(1),
        Call::only(16, 1, 0xff00, 0xae00),
        Call::only(16, 1, u32::MAX, 7),
        Call::only(9, 2, 4, 0),
        Call::absent(435),
    ];

    fn allowed(number: i64, arguments: [u64; 6]) -> bool {
        match verdict(&CALLS, ARCHITECTURE, number, arguments) {
            SECCOMP_RET_ALLOW => true,
            SECCOMP_RET_KILL_PROCESS => false,
            other => panic!("{other:#x}"),
        }
    }

    #[test]
    fn what_stands_in_the_list_is_allowed_and_nothing_else() {
        assert!(allowed(1, [9; 6]));
        assert!(allowed(16, [0, 0xae80, 0, 0, 0, 0]));
        assert!(allowed(16, [0, 7, 0, 0, 0, 0]));
        assert!(!allowed(16, [0, 8, 0, 0, 0, 0]));
        assert!(allowed(9, [0, 0, 3, 0, 0, 0]));
        assert!(!allowed(9, [0, 0, 7, 0, 0, 0]), "memory may not become executable");
        for number in [0, 2, 59, 0x4000_0001] {
            assert!(!allowed(number, [0; 6]), "{number}");
        }
    }

    #[test]
    fn a_call_that_is_not_to_be_there_fails_as_if_the_kernel_had_it_not() {
        let expected = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(verdict(&CALLS, ARCHITECTURE, 435, [1; 6]), expected);
    }

    #[test]
    fn calls_of_another_architecture_kill() {
        assert_eq!(verdict(&CALLS, 0x4000_0003, 1, [0; 6]), SECCOMP_RET_KILL_PROCESS);
    }
}
