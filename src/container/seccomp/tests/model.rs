//! Our programs beside the definition of a filter, evaluated rule by rule.
//!
//! In a filter whose conditional rules of one call share an action the order of rules cannot matter but for rules
//! without conditions, so that the definition fits in a few lines that know nothing of trees and jumps.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::action::Action;
use super::super::arch::Arch;
use super::super::layout::Newer;
use super::super::{compile_for, multiplex, table};
use super::bpf::{Data, run, verify};
use super::differential::{Actions, OPERATORS, Probes, conditions, filters, wide};
use crate::plan::{Seccomp, SeccompArg, SeccompRule};

fn holds(arg: &SeccompArg, data: &Data, arch: Arch) -> bool {
    let width = if arch.is_wide() { u64::MAX } else { 0xffff_ffff };
    let actual = data.args[arg.index as usize] & width;
    let value = arg.value & width;
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => actual == value,
        "SCMP_CMP_NE" => actual != value,
        "SCMP_CMP_LT" => actual < value,
        "SCMP_CMP_LE" => actual <= value,
        "SCMP_CMP_GT" => actual > value,
        "SCMP_CMP_GE" => actual >= value,
        "SCMP_CMP_MASKED_EQ" => actual & value == arg.value_two & value,
        other => panic!("operator {other}"),
    }
}

fn always_holds(arg: &SeccompArg, arch: Arch) -> bool {
    let width = if arch.is_wide() { u64::MAX } else { 0xffff_ffff };
    arg.op == "SCMP_CMP_MASKED_EQ" && arg.value & width == 0
}

fn alternatives(rule: &SeccompRule) -> Vec<Vec<SeccompArg>> {
    let twice = rule.args.iter().any(|arg| rule.args.iter().filter(|other| other.index == arg.index).count() > 1);
    match twice {
        true => rule.args.iter().map(|arg| vec![arg.clone()]).collect(),
        false => vec![rule.args.clone()],
    }
}

/// `None` for what the definition leaves to the order of rules.
fn define(filter: &Seccomp, data: &Data) -> Option<Action> {
    let default = Action::parse(&filter.default_action, filter.default_errno).expect("a good default");
    let mut listed = vec![Arch::X86_64];
    listed.extend(filter.architectures.iter().filter_map(|name| Arch::parse(name).expect("a good name")));
    let is_x32 = data.arch == Arch::X86_64.audit() && data.number & table::X32_BIT != 0 && listed.contains(&Arch::X32);
    let arch = listed.into_iter().find(|arch| arch.audit() == data.arch && (*arch == Arch::X32) == is_x32);
    let Some(arch) = arch else {
        return Some(Action::KILL_THREAD);
    };
    if arch == Arch::X86_64 && data.number >= table::X32_BIT && !filter.architectures.iter().any(|a| a.ends_with("X32"))
    {
        return Some(if data.number == u32::MAX { default } else { Action::KILL_THREAD });
    }
    let mut conditional = default;
    for rule in &filter.rules {
        let action = Action::parse(&rule.action, rule.errno).expect("a good action");
        for name in &rule.names {
            if multiplex::find(name).filter(|_| arch == Arch::X86).is_some_and(|outer| outer.number == data.number) {
                return None;
            }
            if action == default || table::find(name).and_then(|call| call.number(arch)) != Some(data.number) {
                continue;
            }
            for alternative in alternatives(rule) {
                if alternative.iter().all(|arg| always_holds(arg, arch)) {
                    return Some(action);
                }
                if alternative.iter().all(|arg| holds(arg, data, arch)) {
                    conditional = action;
                }
            }
        }
    }
    Some(conditional)
}

#[test]
fn random_filters_mean_what_their_rules_say() {
    let filters = filters(5, conditions(0..4, &OPERATORS, wide()), Actions::OfTheCall);
    let config = Config { cases: 30, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&filters, |filter| {
            let program = compile_for(&filter, Arch::X86_64, Newer::Default).expect("has no contradiction");
            verify(program.instructions());
            let probes = Probes::of(&filter);
            for data in probes.data(30) {
                let Some(expected) = define(&filter, &data) else {
                    continue;
                };
                prop_assert_eq!(run(program.instructions(), &data).action, expected.0, "{:x?}", data);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
