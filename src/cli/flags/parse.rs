//! The flag parser: arguments and descriptions in, values and operands out. See the parent for the rules.

use std::collections::HashMap;

use super::{Arity, Flag, values::parse_bool};
use crate::quote::quote;

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operands {
    /// Flags and operands in any order.
    Mixed,
    /// The first operand ends the flags: what follows belongs to another program.
    EndFlags,
}

/// What was found on the line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    values: HashMap<&'static str, Vec<String>>,
    known: Vec<&'static str>,
    /// What is not a flag.
    pub(crate) operands: Vec<String>,
    /// Notices for the standard error, without line ends.
    pub(crate) notices: Vec<String>,
    /// `--help` was given.
    pub(crate) help: bool,
}

impl Parsed {
    /// Whether the flag was given.
    pub(crate) fn is_set(&self, long: &str) -> bool {
        !self.list(long).is_empty()
    }

    /// Whether a switch is on; `false` where it was not given.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.switch(long).unwrap_or(false)
    }

    /// A switch as it was given.
    pub(crate) fn switch(&self, long: &str) -> Option<bool> {
        self.last(long).and_then(|value| parse_bool(value).ok())
    }

    /// The value, or the empty string where it was not given.
    pub(crate) fn text(&self, long: &str) -> &str {
        self.last(long).unwrap_or("")
    }

    /// The value, where it was given and is not empty.
    pub(crate) fn filled(&self, long: &str) -> Option<String> {
        self.last(long).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// The value, where it was given.
    pub(crate) fn last(&self, long: &str) -> Option<&str> {
        self.list(long).last().map(String::as_str)
    }

    /// Every value, in order.
    pub(crate) fn list(&self, long: &str) -> &[String] {
        debug_assert!(self.known.contains(&long), "a verb asks for --{long}, which it does not describe");
        self.values.get(long).map_or(&[], Vec::as_slice)
    }

    /// A number; `None` where it was not given. The parser checked it.
    pub(crate) fn int(&self, long: &str) -> Option<i64> {
        self.last(long).and_then(|value| super::values::parse_int(value).ok())
    }

    fn store(&mut self, flag: &Flag, name: &str, value: &str) -> Result<(), String> {
        (flag.check)(value).map_err(|why| {
            format!("invalid argument {} for {} flag: {why}", quote(value), quote(&flag.display_name()))
        })?;
        if let Some(instead) = flag.deprecated {
            self.notices.push(format!("Flag --{name} has been deprecated, {instead}"));
        }
        let kept = self.values.entry(flag.stands_for.unwrap_or(flag.long)).or_default();
        if flag.arity != Arity::Repeated {
            kept.clear();
        }
        kept.push(value.to_owned());
        Ok(())
    }
}

/// Parses `arguments` by the descriptions. The error is pflag's sentence.
///
/// # Errors
/// The first fault on the line: an unknown flag, a missing or a bad value.
pub(crate) fn parse(flags: &[&'static [Flag]], operands: Operands, arguments: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    for flag in flags.iter().copied().flatten() {
        parsed.known.push(flag.long);
    }
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            parsed.operands.extend(rest.cloned());
            break;
        }
        if let Some(long) = argument.strip_prefix("--") {
            parse_long(flags, &mut parsed, argument, long, &mut rest)?;
        } else if argument.len() > 1 && argument.starts_with('-') {
            parse_short(flags, &mut parsed, &argument[1..], &mut rest)?;
        } else {
            parsed.operands.push(argument.clone());
            if operands == Operands::EndFlags {
                parsed.operands.extend(rest.cloned());
                break;
            }
        }
    }
    Ok(parsed)
}

fn parse_long<'a>(
    flags: &[&'static [Flag]],
    parsed: &mut Parsed,
    argument: &str,
    long: &str,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    if long.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: {argument}"));
    }
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    let Some(flag) = flags.iter().copied().flatten().find(|flag| flag.long == name) else {
        if name == "help" {
            return set_help(parsed, value.unwrap_or("true"));
        }
        return Err(format!("unknown flag: --{name}"));
    };
    match (value, flag.arity) {
        (Some(value), _) => parsed.store(flag, name, value),
        (None, Arity::Switch) => parsed.store(flag, name, "true"),
        (None, _) => {
            let value = rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?;
            parsed.store(flag, name, value)
        }
    }
}

fn set_help(parsed: &mut Parsed, value: &str) -> Result<(), String> {
    parsed.help =
        parse_bool(value).map_err(|why| format!("invalid argument {} for \"--help\" flag: {why}", quote(value)))?;
    Ok(())
}

fn parse_short<'a>(
    flags: &[&'static [Flag]],
    parsed: &mut Parsed,
    letters: &str,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let mut left = letters;
    while let Some(letter) = left.chars().next() {
        let after = &left[letter.len_utf8()..];
        let Some(flag) = flags.iter().copied().flatten().find(|flag| flag.short == Some(letter)) else {
            if letter == 'h' {
                parsed.notices.push("Flag shorthand -h has been deprecated, use --help".to_owned());
                parsed.help = true;
                return Ok(());
            }
            return Err(format!("unknown shorthand flag: '{letter}' in -{left}"));
        };
        if let Some(value) = after.strip_prefix('=').filter(|value| !value.is_empty()) {
            return parsed.store(flag, flag.long, value);
        }
        if flag.arity == Arity::Switch {
            parsed.store(flag, flag.long, "true")?;
            left = after;
            continue;
        }
        if !after.is_empty() {
            return parsed.store(flag, flag.long, after);
        }
        let value = rest.next().ok_or_else(|| format!("flag needs an argument: '{letter}' in -{left}"))?;
        return parsed.store(flag, flag.long, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch("tty", "").short('t'),
        Flag::switch("interactive", "").short('i'),
        Flag::list("publish", "").short('p'),
        Flag::text("network", ""),
        Flag::text("net", "").stands_for("network"),
        Flag::int("timeout", ""),
        Flag::int("time", "").stands_for("timeout").deprecated("use --timeout instead"),
    ];

    fn run(operands: Operands, line: &str) -> Result<Parsed, String> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&[FLAGS], operands, &arguments)
    }

    #[test]
    fn letters_combine_and_the_last_takes_the_rest() {
        let parsed = run(Operands::EndFlags, "-itp80:80 -p=81 image -t").unwrap();
        assert!(parsed.on("tty") && parsed.on("interactive"));
        assert_eq!(parsed.list("publish"), ["80:80", "81"]);
        assert_eq!(parsed.operands, ["image", "-t"]);
    }

    #[test]
    fn flags_stand_after_operands_where_the_verb_allows_it() {
        let parsed = run(Operands::Mixed, "a -t b -- -i").unwrap();
        assert!(parsed.on("tty") && !parsed.on("interactive"));
        assert_eq!(parsed.operands, ["a", "b", "-i"]);
    }

    #[test]
    fn other_spellings_reach_the_flag_they_stand_for() {
        let parsed = run(Operands::Mixed, "--net x --time 5").unwrap();
        assert_eq!(parsed.text("network"), "x");
        assert_eq!(parsed.int("timeout"), Some(5));
        assert_eq!(parsed.notices, ["Flag --time has been deprecated, use --timeout instead"]);
    }

    #[test]
    fn a_switch_does_not_eat_the_next_argument() {
        let parsed = run(Operands::Mixed, "-t false --interactive=false").unwrap();
        assert!(parsed.on("tty"));
        assert_eq!(parsed.switch("interactive"), Some(false));
        assert_eq!(parsed.operands, ["false"]);
    }
}
