//! What single rules compile to.

use super::super::action::Action;
use super::super::arch::Arch;
use super::super::layout::Newer;
use super::super::{Error, Flags, Instruction, MAX_INSTRUCTIONS, compile, compile_for};
use super::bpf::{Data, run, verify};
use crate::plan::{Seccomp, SeccompArg, SeccompRule};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const EPERM: u32 = 0x5_0001;
const ENOSYS: u32 = 0x5_0026;
const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;

fn rule(names: &[&str], action: &str, args: &[(u32, &str, u64, u64)]) -> SeccompRule {
    SeccompRule {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: action.to_owned(),
        errno: None,
        args: args
            .iter()
            .map(|(index, op, value, value_two)| SeccompArg {
                index: *index,
                value: *value,
                value_two: *value_two,
                op: (*op).to_owned(),
            })
            .collect(),
    }
}

fn filter(architectures: &[&str], rules: Vec<SeccompRule>) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno: None,
        architectures: architectures.iter().map(|name| (*name).to_owned()).collect(),
        flags: Vec::new(),
        rules,
    }
}

fn program(filter: &Seccomp, newer: Newer) -> Vec<Instruction> {
    let program = compile_for(filter, Arch::X86_64, newer).expect("compiles");
    verify(program.instructions());
    program.instructions
}

fn answer(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    run(program, &Data { number, arch, args }).action
}

fn first(value: u64) -> [u64; 6] {
    [value, 0, 0, 0, 0, 0]
}

#[test]
fn a_filter_without_rules_gives_the_default_and_kills_other_architectures() {
    let program = program(&filter(&[], vec![]), Newer::Unknown);
    assert_eq!(answer(&program, X86_64, 0, [0; 6]), EPERM);
    assert_eq!(answer(&program, X86_64, 4000, [0; 6]), EPERM);
    assert_eq!(answer(&program, I386, 0, [0; 6]), KILL_THREAD);
    assert_eq!(answer(&program, AARCH64, 0, [0; 6]), KILL_THREAD);
}

#[test]
fn numbers_above_the_highest_named_get_enosys() {
    let allow = rule(&["read", "close_range"], "SCMP_ACT_ALLOW", &[]);
    let with = program(&filter(&[], vec![allow.clone()]), Newer::Unknown);
    let without = program(&filter(&[], vec![allow]), Newer::Default);
    for (number, expected, default) in [
        (0, ALLOW, ALLOW),
        (1, EPERM, EPERM),
        (436, ALLOW, ALLOW),
        (437, ENOSYS, EPERM),
        (0x3fff_ffff, ENOSYS, EPERM),
        (0x4000_0000, KILL_THREAD, KILL_THREAD),
        (0x7fff_ffff, KILL_THREAD, KILL_THREAD),
        (0x8000_0000, ENOSYS, KILL_THREAD),
        (0xc000_0000, KILL_THREAD, KILL_THREAD),
        (u32::MAX, EPERM, EPERM),
    ] {
        assert_eq!(answer(&with, X86_64, number, [0; 6]), expected, "{number:#x}");
        assert_eq!(answer(&without, X86_64, number, [0; 6]), default, "{number:#x} without ENOSYS");
    }
}

#[test]
fn x32_has_its_own_numbers_and_its_own_highest() {
    let allow = rule(&["read", "ioctl", "close_range"], "SCMP_ACT_ALLOW", &[]);
    let program = program(&filter(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"], vec![allow]), Newer::Unknown);
    let x32 = 1 << 30;
    for (number, expected) in [
        (16, ALLOW),
        (514, ENOSYS),
        (x32, ALLOW),
        (x32 | 16, EPERM),
        (x32 | 436, ALLOW),
        (x32 | 437, EPERM),
        (x32 | 514, ALLOW),
        (x32 | 515, ENOSYS),
        (0x8000_0000, ENOSYS),
        (0xc000_0000, ENOSYS),
        (u32::MAX, ENOSYS),
    ] {
        assert_eq!(answer(&program, X86_64, number, [0; 6]), expected, "{number:#x}");
    }
}

#[test]
fn a_default_that_lets_calls_through_makes_no_enosys() {
    for (action, expected) in
        [("SCMP_ACT_ALLOW", ALLOW), ("SCMP_ACT_LOG", 0x7ffc_0000), ("SCMP_ACT_TRACE", 0x7ff0_0001)]
    {
        let mut filter = filter(&[], vec![rule(&["read"], "SCMP_ACT_KILL", &[])]);
        filter.default_action = action.to_owned();
        filter.rules.push(rule(&["write"], "SCMP_ACT_KILL", &[]));
        let program = compile(&filter).expect("compiles");
        let native = Arch::NATIVE.audit();
        assert_eq!(answer(program.instructions(), native, 5000, [0; 6]), expected, "{action}");
    }
}

#[test]
fn every_operator_compares_all_64_bits() {
    let pivot = 0x1_0000_0005_u64;
    let probes = [0, 4, 5, 6, pivot - 1, pivot, pivot + 1, 0x2_0000_0000, 0x2_0000_0005, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    for (operator, holds) in operators {
        for index in 0..6 {
            let allow = rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(index, operator, pivot, 0)]);
            let program = program(&filter(&["SCMP_ARCH_X86"], vec![allow]), Newer::Default);
            for probe in probes {
                let mut args = [7; 6];
                args[index as usize] = probe;
                let expected = if holds(probe, pivot) { ALLOW } else { EPERM };
                assert_eq!(answer(&program, X86_64, 16, args), expected, "{probe:#x} {operator} {pivot:#x}");
                // i386 looks at the low half only.
                let expected = if holds(probe & 0xffff_ffff, 5) { ALLOW } else { EPERM };
                assert_eq!(answer(&program, I386, 54, args), expected, "i386 {probe:#x} {operator}");
            }
        }
    }
}

#[test]
fn masked_equality_masks_both_sides_and_a_zero_mask_always_holds() {
    let mask = 0x8000_0000_0000_0006;
    let allow = rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(1, "SCMP_CMP_MASKED_EQ", mask, 0x7)]);
    let program = program(&filter(&[], vec![allow]), Newer::Default);
    for (value, expected) in [(6, ALLOW), (7, ALLOW), (4, EPERM), (0x8000_0000_0000_0006, EPERM), (0xff_0006, ALLOW)] {
        assert_eq!(answer(&program, X86_64, 16, [0, value, 0, 0, 0, 0]), expected, "{value:#x}");
    }
    let always = rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(1, "SCMP_CMP_MASKED_EQ", 0, 9)]);
    let program = super::compiler::program(&filter(&[], vec![always]), Newer::Default);
    assert_eq!(answer(&program, X86_64, 16, [3; 6]), ALLOW);
}

#[test]
fn conditions_of_a_rule_must_all_hold_and_rules_are_alternatives() {
    let rules = vec![
        rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 1, 0), (1, "SCMP_CMP_EQ", 2, 0)]),
        rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(2, "SCMP_CMP_EQ", 3, 0)]),
    ];
    let program = program(&filter(&[], rules), Newer::Default);
    for (args, expected) in [
        ([1, 2, 0, 0, 0, 0], ALLOW),
        ([1, 0, 0, 0, 0, 0], EPERM),
        ([0, 2, 0, 0, 0, 0], EPERM),
        ([0, 0, 3, 0, 0, 0], ALLOW),
        ([1, 0, 3, 0, 0, 0], ALLOW),
    ] {
        assert_eq!(answer(&program, X86_64, 16, args), expected, "{args:?}");
    }
}

#[test]
fn two_conditions_on_one_argument_become_alternatives_as_in_runc() {
    let both = [(0, "SCMP_CMP_EQ", 1, 0), (0, "SCMP_CMP_EQ", 2, 0), (1, "SCMP_CMP_EQ", 9, 0)];
    let program = program(&filter(&[], vec![rule(&["ioctl"], "SCMP_ACT_ALLOW", &both)]), Newer::Default);
    for (args, expected) in [
        ([1, 0, 0, 0, 0, 0], ALLOW),
        ([2, 0, 0, 0, 0, 0], ALLOW),
        ([0, 9, 0, 0, 0, 0], ALLOW),
        ([3, 8, 0, 0, 0, 0], EPERM),
    ] {
        assert_eq!(answer(&program, X86_64, 16, args), expected, "{args:?}");
    }
}

#[test]
fn the_first_rule_without_conditions_decides_whatever_stands_beside_it() {
    let conditional = rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 1, 0)]);
    let kill = rule(&["ioctl"], "SCMP_ACT_KILL_PROCESS", &[]);
    let log = rule(&["ioctl"], "SCMP_ACT_LOG", &[]);
    let program = program(&filter(&[], vec![conditional.clone(), kill, log, conditional]), Newer::Default);
    assert_eq!(answer(&program, X86_64, 16, first(1)), 0x8000_0000);
    assert_eq!(answer(&program, X86_64, 16, first(2)), 0x8000_0000);
}

#[test]
fn a_contradiction_is_an_error_that_names_the_call() {
    let allow = rule(&["socket"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 1, 0)]);
    let kill = rule(&["socket"], "SCMP_ACT_KILL", &[(0, "SCMP_CMP_EQ", 1, 0)]);
    let longer = rule(&["socket"], "SCMP_ACT_KILL", &[(0, "SCMP_CMP_EQ", 1, 0), (1, "SCMP_CMP_EQ", 1, 0)]);
    for rules in [vec![allow.clone(), kill], vec![longer.clone(), allow.clone()]] {
        let error = compile_for(&filter(&[], rules), Arch::X86_64, Newer::Default).expect_err("contradicts");
        assert!(matches!(&error, Error::Contradiction { name } if name == "socket"), "{error}");
    }
    // The wider rule that comes first hides the longer one, as in libseccomp.
    let program = program(&filter(&[], vec![allow, longer]), Newer::Default);
    assert_eq!(answer(&program, X86_64, 41, [1, 1, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn sockets_of_i386_go_through_socketcall_too() {
    let allow = rule(&["socket", "shmat"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 1, 0)]);
    let program = program(&filter(&["SCMP_ARCH_X86"], vec![allow]), Newer::Default);
    for (number, argument, expected) in [
        (359, 1, ALLOW),
        (359, 2, EPERM),
        (102, 1, ALLOW),
        (102, 2, EPERM),
        (397, 1, ALLOW),
        (117, 21, ALLOW),
        (117, 22, EPERM),
    ] {
        assert_eq!(answer(&program, I386, number, first(argument)), expected, "{number}({argument})");
    }
}

#[test]
fn flags_and_the_listener_are_passed_on() {
    let mut wanted = filter(&[], vec![rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY", &[])]);
    wanted.flags =
        ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"].map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}")).to_vec();
    let program = compile(&wanted).expect("compiles");
    assert!(program.wants_listener());
    assert_eq!(program.flags().bits(), 0b11_1111);
    wanted.rules.clear();
    assert!(matches!(compile(&wanted), Err(Error::NothingToReceive)));
    wanted.flags = vec!["SECCOMP_FILTER_FLAG_LOG".to_owned()];
    assert_eq!(compile(&wanted).expect("compiles").flags(), Flags::LOG);
}

#[test]
fn what_is_not_known_is_an_error_that_names_it() {
    let good = filter(&[], vec![rule(&["read"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 0, 0)])]);
    compile(&good).expect("compiles");
    type Spoil = fn(&mut Seccomp);
    let cases: [(&str, Spoil); 13] = [
        ("SCMP_ACT_DENY", |filter| filter.default_action = "SCMP_ACT_DENY".to_owned()),
        ("SCMP_ACT_ERRNO cannot return 4095", |filter| filter.default_errno = Some(4095)),
        ("default action", |filter| filter.default_action = "SCMP_ACT_NOTIFY".to_owned()),
        ("SCMP_ARCH_VAX", |filter| filter.architectures.push("SCMP_ARCH_VAX".to_owned())),
        ("FLAG_NEW_LISTENER", |filter| filter.flags.push("SECCOMP_FILTER_FLAG_NEW_LISTENER".to_owned())),
        ("\"ALLOW\"", |filter| filter.rules[0].action = "ALLOW".to_owned()),
        ("SCMP_ACT_TRACE cannot return 65536", |filter| {
            filter.rules[0].action = "SCMP_ACT_TRACE".to_owned();
            filter.rules[0].errno = Some(65536);
        }),
        ("empty", |filter| filter.rules[0].names.push(String::new())),
        ("SCMP_CMP_IN", |filter| filter.rules[0].args[0].op = "SCMP_CMP_IN".to_owned()),
        ("argument 6", |filter| filter.rules[0].args[0].index = 6),
        ("write", |filter| filter.rules.push(rule(&["write"], "SCMP_ACT_NOTIFY", &[]))),
        ("the kernel takes 4096", |filter| {
            filter.rules = (0..1500).map(|n| rule(&["read"], "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", n, 0)])).collect();
        }),
        ("argument conditions", |filter| {
            let names = vec!["read"; 16 * MAX_INSTRUCTIONS + 1];
            filter.rules = vec![rule(&names, "SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_EQ", 1, 0)])];
        }),
    ];
    for (expected, spoil) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = compile(&bad).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} should name {expected}");
    }
}

#[test]
fn names_that_nobody_knows_and_foreign_architectures_are_skipped() {
    let allow = rule(&["read", "no_such_call", "s390_pci_mmio_read"], "SCMP_ACT_ALLOW", &[]);
    let program = program(&filter(&["SCMP_ARCH_S390X"], vec![allow]), Newer::Default);
    assert_eq!(answer(&program, X86_64, 0, [0; 6]), ALLOW);
    assert_eq!(answer(&program, X86_64, 1, [0; 6]), EPERM);
}

#[test]
fn long_programs_jump_right() {
    // 600 alternatives of four instructions: every return is out of reach for most of them.
    let rules = (0..600).map(|n| rule(&["ioctl"], "SCMP_ACT_ALLOW", &[(1, "SCMP_CMP_EQ", 2 * n, 0)])).collect();
    let program = program(&filter(&[], rules), Newer::Default);
    for n in 0..1300 {
        let expected = if n % 2 == 0 && n < 1200 { ALLOW } else { EPERM };
        assert_eq!(answer(&program, X86_64, 16, [0, n, 0, 0, 0, 0]), expected, "{n}");
    }
}

#[test]
fn the_data_of_actions_is_returned() {
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", Some(38), ENOSYS),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_TRACE", Some(0xffff), 0x7ff0_ffff),
        ("SCMP_ACT_ALLOW", Some(5), ALLOW),
        ("SCMP_ACT_TRAP", None, 0x3_0000),
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
    ] {
        assert_eq!(Action::parse(action, errno).expect("is known").0, expected, "{action}");
    }
}
