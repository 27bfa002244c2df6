//! The verbs: for each its flags, its operands, and the function that turns them into a [`Command`].

pub(crate) mod container;
pub(crate) mod copy;
pub(crate) mod image;
pub(crate) mod list;
pub(crate) mod system;
pub(crate) mod volume;

use crate::{
    command::Command,
    error::Fault,
    filter::{Filters, check_condition},
    flags::{
        Flag,
        parse::{Operands, Parsed},
    },
    surroundings::Surroundings,
};

/// How many operands a verb takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

impl Count {
    /// The sentence about a wrong number; `None` where the number fits.
    pub(crate) fn fault(self, path: &str, given: usize) -> Option<String> {
        let plural = |number: usize| if number == 1 { "argument" } else { "arguments" };
        let says = match self {
            Count::None => "accepts no arguments".to_owned(),
            Count::Exactly(number) => format!("requires {number} {}", plural(number)),
            Count::AtLeast(number) => format!("requires at least {number} {}", plural(number)),
            Count::AtMost(number) => format!("requires at most {number} {}", plural(number)),
            Count::Between(least, most) => format!("requires at least {least} and at most {most} {}", plural(most)),
        };
        let fits = match self {
            Count::None => given == 0,
            Count::Exactly(number) => given == number,
            Count::AtLeast(number) => given >= number,
            Count::AtMost(number) => given <= number,
            Count::Between(least, most) => (least..=most).contains(&given),
        };
        (!fits).then(|| format!("'{path}' {says}"))
    }
}

/// A verb.
pub(crate) struct Verb {
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    /// One sentence.
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) operands: Operands,
    pub(crate) count: Count,
    pub(crate) read: fn(&Parsed, &Surroundings) -> Result<Command, Fault>,
}

const FORMAT_HELP: &str = "Write by a Go template, or 'json'";
const LIST_FORMAT_HELP: &str = "Write by a Go template, 'table TEMPLATE', or 'json'";

/// `--format` of the verbs that show one object.
const fn format_flag() -> Flag {
    Flag::text("format", FORMAT_HELP).short('f')
}

/// `--format` of the verbs that show a list.
const fn list_format_flag() -> Flag {
    Flag::text("format", LIST_FORMAT_HELP)
}

/// `--filter`, with a letter.
const fn filter_flag() -> Flag {
    prune_filter_flag().short('f')
}

/// `--filter`, where the letter is taken.
const fn prune_filter_flag() -> Flag {
    Flag::list("filter", "Only those that meet a condition, key=value").checked("filter", check_condition)
}

const fn platform_flag(help: &'static str) -> Flag {
    Flag::text("platform", help)
}

fn filters(parsed: &Parsed) -> Result<Filters, Fault> {
    Ok(Filters::parse(parsed.list("filter"))?)
}

fn platform(parsed: &Parsed) -> Result<String, Fault> {
    crate::run::platform(parsed.text("platform")).map_err(Fault::Plain)
}

/// The operand at this place. The tree has checked their number.
fn operand(parsed: &Parsed, index: usize) -> String {
    parsed.operands.get(index).cloned().unwrap_or_default()
}
