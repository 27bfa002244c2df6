//! From decisions about numbers to instructions.
//!
//! ```text
//!   arch? ─┬─ native ──► number? binary search over ranges that share an action ─┬─► return
//!          ├─ others ──► the same                                               └─► arguments? ─► return
//!          └─ none ────► kill
//! ```
//!
//! Neighbouring numbers mostly share an action, so that Docker's 370 allowed calls are some 100 ranges and cost
//! seven or eight comparisons, whichever call it is.

use super::action::{Action, Operator};
use super::arch::Arch;
use super::assembler::{Assembler, Label, Test};
use super::rules::{Branch, Calls, Condition, Decision, Then, Tree};
use super::table::X32_BIT;

/// Offsets in `struct seccomp_data` (`linux/seccomp.h`).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What libseccomp does with an architecture that the filter does not list.
const BAD_ARCH: Action = Action::KILL_THREAD;

/// What happens to calls above the highest number that the filter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newer {
    /// They get ENOSYS, so that programs fall back to an older call. runc does it for every default action that
    /// does not let calls through, and Docker relies on it.
    Unknown,
    /// They get the default action.
    Default,
}

/// The calls of one `AUDIT_ARCH_*`.
pub(super) struct Section<'calls> {
    pub(super) arch: Arch,
    pub(super) calls: &'calls Calls,
    /// Those of x32, where the filter lists it; of x86_64 only.
    pub(super) x32: Option<&'calls Calls>,
}

/// Makes a program of sections, the likeliest first.
pub(super) fn program(sections: &[Section<'_>], default: Action, newer: Newer) -> Assembler {
    let mut assembler = Assembler::default();
    let mut entries = Vec::new();
    for section in sections.iter().rev() {
        let ranges = section.ranges(default, newer);
        let mut next = Search { assembler: &mut assembler, default }.number(&ranges);
        next = assembler.load(NUMBER, next);
        entries.push((section.arch.audit(), next));
    }
    let mut next = assembler.answer(BAD_ARCH);
    for (audit, entry) in entries {
        next = assembler.branch(Test::Equal, audit, entry, next);
    }
    assembler.load(ARCH, next);
    assembler
}

/// What happens from one number on.
type Range<'calls> = (u32, Target<'calls>);

/// What happens to a range of numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target<'calls> {
    Return(Action),
    Test(&'calls Tree),
}

impl<'calls> From<&'calls Decision> for Target<'calls> {
    fn from(decision: &'calls Decision) -> Self {
        match decision {
            Decision::Return(action) => Self::Return(*action),
            Decision::Test(tree) => Self::Test(tree),
        }
    }
}

impl<'calls> Section<'calls> {
    /// The whole line of numbers, cut where the target changes; the first range starts at 0.
    fn ranges(&self, default: Action, newer: Newer) -> Vec<Range<'calls>> {
        let background = self.background(default, newer);
        // Numbers of x32 are above all those of x86_64.
        let x32 = self.x32.into_iter().flat_map(|calls| &calls.decisions);
        let mut decisions = self.calls.decisions.iter().chain(x32).peekable();
        let mut line: Vec<Range<'calls>> = Vec::with_capacity(512);
        let mut cut = |start, target| {
            line.pop_if(|last| last.0 == start);
            if line.last().is_none_or(|last| last.1 != target) {
                line.push((start, target));
            }
        };
        for (position, (start, action)) in background.iter().enumerate() {
            cut(*start, Target::Return(*action));
            let end = background.get(position + 1).map(|next| next.0);
            let inside = |(number, _): &&(u32, Decision)| end.is_none_or(|end| *number < end);
            while let Some((number, decision)) = decisions.next_if(inside) {
                cut(*number, decision.into());
                cut(number + 1, Target::Return(*action));
            }
        }
        line
    }

    /// What happens to numbers that the filter has no decision about, from each number on.
    fn background(&self, default: Action, newer: Newer) -> Vec<(u32, Action)> {
        let highest = |calls: Option<&Calls>| calls?.highest.filter(|_| newer == Newer::Unknown);
        if self.arch != Arch::X86_64 {
            let unknown = highest(Some(self.calls)).map(|highest| (highest + 1, Action::ENOSYS));
            return std::iter::once((0, default)).chain(unknown).collect();
        }
        // Bit 30 makes an x32 call and chooses the highest number. Without x32, libseccomp kills for any number from
        // bit 30 on, and so for bit 31 as well.
        let mut line = Vec::with_capacity(9);
        for base in [0, X32_BIT, 1 << 31, 1 << 31 | X32_BIT] {
            let calls = if base & X32_BIT == 0 { Some(self.calls) } else { self.x32 };
            let action = if base == 0 || self.x32.is_some() { default } else { BAD_ARCH };
            line.push((base, action));
            if let Some(highest) = highest(calls) {
                line.pop_if(|last| last.0 > highest);
                line.push((base.max(highest + 1), Action::ENOSYS));
            }
        }
        // A tracer skips a call by making it -1; libseccomp does not kill for it.
        if self.x32.is_none() {
            line.push((u32::MAX, default));
        }
        line
    }
}

/// Lays out decisions that end in the default action.
struct Search<'program> {
    assembler: &'program mut Assembler,
    default: Action,
}

impl Search<'_> {
    /// Binary search with the number in the accumulator.
    fn number(&mut self, ranges: &[Range<'_>]) -> Label {
        let [(_, target)] = ranges else {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let from = high[0].0;
            let high = self.number(high);
            let low = self.number(low);
            return self.assembler.branch(Test::GreaterOrEqual, from, high, low);
        };
        match target {
            Target::Return(action) => self.assembler.answer(*action),
            Target::Test(tree) => {
                let otherwise = self.assembler.answer(self.default);
                self.tree(tree, otherwise)
            }
        }
    }

    fn tree(&mut self, tree: &Tree, otherwise: Label) -> Label {
        tree.0.iter().rev().fold(otherwise, |next, branch| self.alternative(branch, next))
    }

    fn alternative(&mut self, branch: &Branch, otherwise: Label) -> Label {
        let then = match &branch.then {
            Then::Return(action) => self.assembler.answer(*action),
            Then::Test(tree) => self.tree(tree, otherwise),
        };
        self.condition(&branch.condition, then, otherwise)
    }

    /// A comparison of 64 bits by comparisons of 32; of the low half alone where that is all there is.
    fn condition(&mut self, condition: &Condition, then: Label, otherwise: Label) -> Label {
        let (test, then, otherwise) = match condition.operator {
            Operator::Equal | Operator::MaskedEqual => (Test::Equal, then, otherwise),
            Operator::NotEqual => (Test::Equal, otherwise, then),
            Operator::Greater => (Test::Greater, then, otherwise),
            Operator::LessOrEqual => (Test::Greater, otherwise, then),
            Operator::GreaterOrEqual => (Test::GreaterOrEqual, then, otherwise),
            Operator::Less => (Test::GreaterOrEqual, otherwise, then),
        };
        let mut next = then;
        let low = Half::of(condition, 0);
        if low.mask != 0 {
            next = self.half(&low, test, then, otherwise);
        }
        let high = Half::of(condition, 32);
        if high.mask == 0 {
            return next;
        }
        if test == Test::Equal {
            return self.half(&high, Test::Equal, next, otherwise);
        }
        let same = self.assembler.branch(Test::Equal, high.datum, next, otherwise);
        self.half(&high, Test::Greater, then, same)
    }

    fn half(&mut self, half: &Half, test: Test, then: Label, otherwise: Label) -> Label {
        let mut next = self.assembler.branch(test, half.datum, then, otherwise);
        if half.mask != u32::MAX {
            next = self.assembler.mask(half.mask, next);
        }
        self.assembler.load(half.offset, next)
    }
}

/// Half of an argument; both architectures are little-endian, so the low one comes first.
struct Half {
    offset: u32,
    mask: u32,
    datum: u32,
}

impl Half {
    fn of(condition: &Condition, shift: u32) -> Self {
        Self {
            offset: ARGUMENTS + 8 * u32::from(condition.index) + shift / 8,
            mask: (condition.mask >> shift) as u32,
            datum: (condition.datum >> shift) as u32,
        }
    }
}
