//! The device program, run by a small interpreter and by the kernel, against the meaning of the rules.

use super::{Parent, run_in};
use crate::cgroup::Version;
use crate::cgroup::device_program::{Instruction, code, compile};
use crate::cgroup::devices::{Kind, MKNOD, READ, Rule, WRITE};
use crate::plan::{DeviceKind, DeviceRule, Resources};

/// The request that the kernel asks the program about (`struct bpf_cgroup_dev_ctx`).
#[derive(Clone, Copy, Debug)]
struct Request {
    access: u8,
    kind: Kind,
    major: u32,
    minor: u32,
}

/// What the rules mean: each kind of access is decided by the last rule for it.
fn meaning(rules: &[Rule], request: Request) -> bool {
    [READ, WRITE, MKNOD].iter().filter(|&&bit| request.access & bit != 0).all(|bit| {
        let matching = |rule: &&Rule| {
            rule.access & bit != 0
                && rule.kind.is_none_or(|kind| kind == request.kind)
                && rule.major.is_none_or(|major| major == request.major)
                && rule.minor.is_none_or(|minor| minor == request.minor)
        };
        rules.iter().rev().find(matching).is_none_or(|rule| rule.allow)
    })
}

/// Runs a program; the subset of instructions that `compile` uses, anything else is a failure.
fn run(program: &[Instruction], request: Request) -> bool {
    let kind = match request.kind {
        Kind::Block => 1,
        Kind::Character => 2,
    };
    let context = [u32::from(request.access) << 16 | kind, request.major, request.minor];
    let mut registers = [0_u64; 11];
    let mut next = 0_usize;
    for _ in 0..10_000 {
        let Instruction { code, registers: operands, offset, immediate } = program[next];
        let (destination, source) = (usize::from(operands & 15), usize::from(operands >> 4));
        let low = registers[destination] as u32;
        let mut taken = false;
        match code {
            code::LOAD => {
                assert_eq!(source, 1, "only the context can be loaded from");
                registers[destination] = u64::from(context[usize::try_from(offset).unwrap() / 4]);
            }
            code::MOVE => registers[destination] = i64::from(immediate) as u64,
            code::COPY => registers[destination] = u64::from(registers[source] as u32),
            code::AND => registers[destination] = u64::from(low & immediate as u32),
            code::SHIFT_RIGHT => registers[destination] = u64::from(low >> immediate),
            code::JUMP_NOT_EQUAL => taken = low != immediate as u32,
            code::JUMP_SET => taken = low & immediate as u32 != 0,
            code::JUMP => taken = true,
            code::EXIT => return registers[0] != 0,
            other => panic!("unknown instruction {other:#x}"),
        }
        next += 1 + if taken { usize::try_from(offset).unwrap() } else { 0 };
    }
    panic!("the program does not end");
}

/// Numbers that repeat from run to run (Marsaglia's xorshift).
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit
    }

    fn rule(&mut self) -> Rule {
        let kind = [None, Some(Kind::Block), Some(Kind::Character)][self.below(3) as usize];
        let mut number = || [None, Some(0), Some(1), Some(u32::MAX)][self.below(4) as usize];
        let (major, minor) = (number(), number());
        Rule { allow: self.below(2) == 0, kind, major, minor, access: 1 + self.below(7) as u8 }
    }
}

fn all_requests() -> Vec<Request> {
    let mut requests = Vec::new();
    for access in 1..=7 {
        for kind in [Kind::Block, Kind::Character] {
            for major in [0, 1, 2, u32::MAX] {
                for minor in [0, 1, 2, u32::MAX] {
                    requests.push(Request { access, kind, major, minor });
                }
            }
        }
    }
    requests
}

#[test]
fn programs_do_what_the_rules_mean() {
    let mut numbers = Numbers(0x5eed);
    let requests = all_requests();
    let mut decisions = [0_u32; 2];
    for _ in 0..2000 {
        let rules: Vec<Rule> = (0..numbers.below(7)).map(|_| numbers.rule()).collect();
        let program = compile(&rules);
        for request in &requests {
            let expected = meaning(&rules, *request);
            decisions[usize::from(expected)] += 1;
            assert_eq!(run(&program, *request), expected, "{rules:?} {request:?}");
        }
    }
    assert!(decisions.iter().all(|&count| count > 10_000), "the rules decide nothing: {decisions:?}");
}

#[test]
fn no_program_has_instructions_that_cannot_be_reached() {
    let everything = Rule { allow: false, kind: None, major: None, minor: None, access: 7 };
    let other = Rule { allow: true, kind: Some(Kind::Block), ..everything };
    assert_eq!(compile(&[other, everything]), compile(&[everything]));
    assert_ne!(compile(&[everything, other]), compile(&[everything]));
}

fn rule(allow: bool, device: Option<(u32, u32)>, access: &str) -> DeviceRule {
    let kind = device.map(|_| DeviceKind::Character);
    let (major, minor) = device.unzip();
    DeviceRule { allow, kind, major, minor, access: access.to_owned() }
}

#[test]
fn the_kernel_enforces_the_program_and_its_replacement() {
    let Some(parent) = Parent::only(Version::V2) else {
        return;
    };
    let devices = vec![rule(false, None, "rwm"), rule(true, Some((1, 3)), "rwm"), rule(true, Some((1, 5)), "r")];
    let mut cgroup = parent.create("devices", Resources { devices, ..Resources::default() });
    let script =
        "for file in null zero full; do (: < /dev/$file) && echo r $file; (: > /dev/$file) && echo w $file; done";
    let output = |cgroup: &crate::cgroup::Cgroup| {
        // The shell's own standard error is /dev/null, which only the first list lets it open.
        let output = run_in(cgroup, script).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(output(&cgroup), "r null\nw null\nr zero\n");

    let devices = vec![rule(false, None, "rwm"), rule(true, Some((1, 7)), "rm")];
    cgroup.update(&Resources { devices, ..Resources::default() }).unwrap();
    assert_eq!(output(&cgroup), "r full\n");
    let attached = crate::cgroup::sys::device_programs(cgroup.directory_v2().unwrap()).unwrap();
    assert_eq!(attached.len(), 1);

    let devices = vec![rule(true, None, "rwm")];
    cgroup.update(&Resources { devices, ..Resources::default() }).unwrap();
    assert_eq!(output(&cgroup), "r null\nw null\nr zero\nw zero\nr full\nw full\n");
}

#[test]
fn the_kernel_takes_long_and_odd_lists() {
    let Some(parent) = Parent::only(Version::V2) else {
        return;
    };
    let mut numbers = Numbers(77);
    for round in 0..20 {
        let devices = (0..round * 5)
            .map(|_| {
                let Rule { allow, kind, major, minor, access } = numbers.rule();
                let kind = kind.map(|kind| match kind {
                    Kind::Block => DeviceKind::Block,
                    Kind::Character => DeviceKind::Character,
                });
                let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
                let access = letters.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect();
                DeviceRule { allow, kind, major, minor, access }
            })
            .collect();
        parent.create(&format!("odd-{round}"), Resources { devices, ..Resources::default() });
    }
}
