//! What a filter says about each system call number of an architecture.
//!
//! The meaning of several rules for one call is libseccomp's, because profiles in the world rely on it:
//!
//! - The first rule without conditions decides, and those with conditions do not count beside it.
//! - Rules with conditions are alternatives. Where two of them overlap and their actions differ, the order is that
//!   of libseccomp's tree and not that of the profile: a higher argument index before a lower one, then equality,
//!   then "less", then "greater", then the tighter bound. (Two inequalities with different actions overlap almost
//!   everywhere; there libseccomp orders values above 2^32 by the profile and we do not.)
//! - One condition, or one that begins another, with two actions is a contradiction and an error.

use super::action::{Action, Operator};
use super::arch::Arch;
use super::multiplex::{self, Multiplexed};
use super::table::{self, Call};
use super::{Error, MAX_INSTRUCTIONS};
use crate::plan;

/// More conditions than any program could hold.
const MAX_CONDITIONS: usize = 16 * MAX_INSTRUCTIONS;

/// One comparison, reduced to what the architecture looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) operator: Operator,
    /// All ones but for `MaskedEqual`.
    pub(super) mask: u64,
    /// Compared with; has no bit outside the mask.
    pub(super) datum: u64,
}

impl Condition {
    fn parse(arg: &plan::SeccompArg) -> Result<Self, Error> {
        let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
        let index = index.ok_or(Error::Argument { index: arg.index })?;
        let operator = Operator::parse(&arg.op)?;
        let (mask, datum) = match operator {
            Operator::MaskedEqual => (arg.value, arg.value_two & arg.value),
            _ => (u64::MAX, arg.value),
        };
        Ok(Self { index, operator, mask, datum })
    }

    /// `None` for a condition that always holds.
    fn on(self, arch: Arch) -> Option<Self> {
        let width = if arch.is_wide() { u64::MAX } else { u64::from(u32::MAX) };
        let (mask, datum) = (self.mask & width, self.datum & width);
        (mask != 0).then_some(Self { mask, datum, ..self })
    }

    /// Whether libseccomp tests `self` before `other`, which it met earlier.
    fn precedes(&self, other: &Self) -> bool {
        if self.index != other.index {
            return self.index > other.index;
        }
        if self.class() != other.class() {
            return self.class() > other.class();
        }
        // libseccomp compares high halves first, and low ones only below a high half that it tests once for both.
        let apart = if self.is_masked() && other.is_masked() {
            self.mask >> 32 != other.mask >> 32
        } else {
            self.is_masked() != other.is_masked() && self.mask.max(other.mask) > u64::from(u32::MAX)
        };
        let shift = if apart { 32 } else { 0 };
        let (own, others) = (self.datum >> shift, other.datum >> shift);
        if self.class() == 2 { own < others } else { own > others }
    }

    fn is_masked(&self) -> bool {
        self.operator == Operator::MaskedEqual
    }

    fn class(&self) -> u8 {
        match self.operator {
            Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => 3,
            Operator::Less | Operator::LessOrEqual => 2,
            Operator::Greater | Operator::GreaterOrEqual => 1,
        }
    }
}

/// Alternatives in the order in which they are tested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(pub(super) Vec<Branch>);

/// A condition and what follows where it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) condition: Condition,
    pub(super) then: Then,
}

/// What follows where a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Return(Action),
    /// Further conditions; where none holds, the next alternative of the condition is tested.
    Test(Tree),
}

impl Tree {
    /// Adds a rule; false if it contradicts one that is there.
    fn add(&mut self, conditions: &[Condition], action: Action) -> bool {
        let [first, rest @ ..] = conditions else {
            return self.is_always(action);
        };
        for (position, branch) in self.0.iter_mut().enumerate() {
            if branch.condition == *first {
                return branch.then.add(rest, action);
            }
            if first.precedes(&branch.condition) {
                self.0.insert(position, Branch::new(*first, rest, action));
                return true;
            }
        }
        self.0.push(Branch::new(*first, rest, action));
        true
    }

    fn is_always(&self, action: Action) -> bool {
        self.0.iter().all(|branch| match &branch.then {
            Then::Return(other) => *other == action,
            Then::Test(tree) => tree.is_always(action),
        })
    }
}

impl Branch {
    fn new(condition: Condition, rest: &[Condition], action: Action) -> Self {
        let then = match rest {
            [] => Then::Return(action),
            [next, rest @ ..] => Then::Test(Tree(vec![Self::new(*next, rest, action)])),
        };
        Self { condition, then }
    }
}

impl Then {
    fn add(&mut self, rest: &[Condition], action: Action) -> bool {
        match self {
            // The rule that is there is the wider one.
            Self::Return(own) => !rest.is_empty() || *own == action,
            Self::Test(tree) if rest.is_empty() => {
                let agrees = tree.is_always(action);
                *self = Self::Return(action);
                agrees
            }
            Self::Test(tree) => tree.add(rest, action),
        }
    }
}

/// What happens to one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Return(Action),
    /// By arguments; where no branch holds, the default action.
    Test(Tree),
}

/// A rule of the plan, understood.
pub(super) struct Rule<'plan> {
    calls: Vec<NamedCall<'plan>>,
    action: Action,
    /// Each a conjunction in the order of argument indices; one empty one for a rule without conditions.
    alternatives: Vec<Vec<Condition>>,
}

/// A name that we know, looked up once for all architectures.
struct NamedCall<'plan> {
    name: &'plan str,
    call: Call,
    multiplexed: Option<Multiplexed>,
}

impl<'plan> Rule<'plan> {
    pub(super) fn parse(rule: &'plan plan::SeccompRule) -> Result<Self, Error> {
        let action = Action::parse(&rule.action, rule.errno)?;
        if rule.names.iter().any(String::is_empty) {
            return Err(Error::EmptyName { action: rule.action.clone() });
        }
        if action == Action::NOTIFY && rule.names.iter().any(|name| name == "write") {
            return Err(Error::NotifyWrite);
        }
        let conditions = rule.args.iter().map(Condition::parse);
        let mut conditions = conditions.collect::<Result<Vec<_>, _>>()?;
        conditions.sort_by_key(|condition| condition.index);
        // libseccomp refuses two conditions on one argument; runc makes every condition a rule of its own then.
        let mut pairs = conditions.windows(2);
        let alternatives = match pairs.any(|pair| pair[0].index == pair[1].index) {
            true => conditions.into_iter().map(|condition| vec![condition]).collect(),
            false => vec![conditions],
        };
        let calls = rule.names.iter().filter_map(|name| NamedCall::find(name)).collect();
        Ok(Self { calls, action, alternatives })
    }

    pub(super) fn action(&self) -> Action {
        self.action
    }
}

impl<'plan> NamedCall<'plan> {
    fn find(name: &'plan str) -> Option<Self> {
        table::find(name).map(|call| Self { name, call, multiplexed: multiplex::find(name) })
    }
}

/// All that a filter says about the calls of one architecture.
pub(super) struct Calls {
    /// By number, ascending.
    pub(super) decisions: Vec<(u32, Decision)>,
    /// The highest number among the names of the filter; calls above it are newer than the filter.
    pub(super) highest: Option<u32>,
}

/// One alternative of a rule for one number.
struct Statement<'plan> {
    number: u32,
    name: &'plan str,
    conditions: Vec<Condition>,
    action: Action,
}

impl Calls {
    pub(super) fn collect(rules: &[Rule<'_>], default: Action, arch: Arch) -> Result<Self, Error> {
        let mut statements = Vec::new();
        let mut highest = None;
        let mut conditions = 0;
        for (rule, named) in rules.iter().flat_map(|rule| rule.calls.iter().map(move |named| (rule, named))) {
            // A condition that is not a copy of another takes two instructions or more. Stop before a hostile
            // profile costs more than it may.
            conditions += rule.alternatives.iter().map(Vec::len).sum::<usize>();
            if conditions > MAX_CONDITIONS {
                return Err(Error::TooManyConditions { limit: MAX_CONDITIONS });
            }
            let number = named.call.number(arch);
            let multiplexed = named.multiplexed.filter(|_| arch == Arch::X86);
            // As runc finds it, which does not see multiplexed calls and takes 0 for "none".
            highest = highest.max(number.filter(|number| multiplexed.is_none() && *number > 0));
            if rule.action == default {
                continue;
            }
            for alternative in &rule.alternatives {
                let statement = |number, conditions: &[Condition]| Statement {
                    number,
                    name: named.name,
                    conditions: conditions.iter().filter_map(|condition| condition.on(arch)).collect(),
                    action: rule.action,
                };
                if let Some(multiplexed) = multiplexed {
                    statements.push(statement(multiplexed.number, &multiplexed.conditions(alternative)));
                }
                if let Some(number) = number {
                    statements.push(statement(number, alternative));
                }
            }
        }
        // Stable: the statements of one number stay in the order of the rules.
        statements.sort_by_key(|statement| statement.number);
        let same = statements.chunk_by(|a, b| a.number == b.number);
        let decisions = same.map(|same| Ok((same[0].number, Decision::of(same)?)));
        Ok(Self { decisions: decisions.collect::<Result<_, Error>>()?, highest })
    }
}

impl Decision {
    fn of(statements: &[Statement<'_>]) -> Result<Self, Error> {
        let mut tree = Tree::default();
        for Statement { name, conditions, action, .. } in statements {
            if conditions.is_empty() {
                return Ok(Self::Return(*action));
            }
            if !tree.add(conditions, *action) {
                return Err(Error::Contradiction { name: (*name).to_owned() });
            }
        }
        Ok(Self::Test(tree))
    }
}

impl Multiplexed {
    /// The number of the inner call is argument 0 of the outer one. What a rule says of argument 0 of the inner
    /// call gives way to it, and the other conditions meet the arguments of the outer call: libseccomp does it so.
    fn conditions(self, conditions: &[Condition]) -> Vec<Condition> {
        let inner = Condition { index: 0, operator: Operator::Equal, mask: u64::MAX, datum: self.inner.into() };
        let others = conditions.iter().filter(|condition| condition.index != 0);
        std::iter::once(inner).chain(others.copied()).collect()
    }
}
