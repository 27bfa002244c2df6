//! What a flag is. One static description serves the parser, the help text and the completion scripts.
//!
//! The rules are those of pflag, the parser of the Go programs whose flags users have in their hands: a value is checked
//! where it stands, the first fault on the line is the one that is reported, a flag that has no use for a value takes
//! one only after `=`, and short flags combine (`-itd`, `-p80:80`). clap cannot say these things, so this is our own.

pub(crate) mod help;
pub(crate) mod parse;
pub(crate) mod values;

/// Checks one value; the message follows `invalid argument "x" for "--flag" flag: `.
pub(crate) type Check = fn(&str) -> Result<(), String>;

/// Whether and how a flag takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// `--rm`, `--rm=false`.
    Switch,
    /// The last one given holds.
    Single,
    /// Each one given is kept.
    Repeated,
}

/// One flag of a verb.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Name without dashes.
    pub(crate) long: &'static str,
    /// The letter, where there is one.
    pub(crate) short: Option<char>,
    /// How it takes a value.
    pub(crate) arity: Arity,
    /// What help calls the value: `string`, `list`, `bytes`.
    pub(crate) value_name: &'static str,
    /// One sentence of help.
    pub(crate) help: &'static str,
    /// The default that help shows; empty shows none.
    pub(crate) default: &'static str,
    /// Not in help or completion.
    pub(crate) hidden: bool,
    /// Its values go to the flag of this name.
    pub(crate) stands_for: Option<&'static str>,
    /// What to use in its place; a notice says so.
    pub(crate) deprecated: Option<&'static str>,
    /// Checks a value when it is met.
    pub(crate) check: Check,
}

fn any_value(_: &str) -> Result<(), String> {
    Ok(())
}

impl Flag {
    const fn new(long: &'static str, arity: Arity, value_name: &'static str, help: &'static str) -> Self {
        Self {
            long,
            short: None,
            arity,
            value_name,
            help,
            default: "",
            hidden: false,
            stands_for: None,
            deprecated: None,
            check: any_value,
        }
    }

    /// A flag that is on or off.
    pub(crate) const fn switch(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Arity::Switch, "", help).checked("", values::check_bool)
    }

    /// A flag with any text as its value.
    pub(crate) const fn text(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Arity::Single, "string", help)
    }

    /// A flag with a signed number.
    pub(crate) const fn int(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Arity::Single, "int", help).checked("int", values::check_int)
    }

    /// A flag that may be given several times.
    pub(crate) const fn list(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Arity::Repeated, "list", help)
    }

    /// Gives it a letter.
    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// Names its value and says how to check one.
    pub(crate) const fn checked(mut self, value_name: &'static str, check: Check) -> Self {
        self.value_name = value_name;
        self.check = check;
        self
    }

    /// Shows a default in help.
    pub(crate) const fn default(mut self, shown: &'static str) -> Self {
        self.default = shown;
        self
    }

    /// Leaves it out of help and completion.
    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Another spelling of the flag `target`.
    pub(crate) const fn stands_for(mut self, target: &'static str) -> Self {
        self.stands_for = Some(target);
        self.hidden = true;
        self
    }

    /// Still works, with a notice.
    pub(crate) const fn deprecated(mut self, instead: &'static str) -> Self {
        self.deprecated = Some(instead);
        self.hidden = true;
        self
    }

    /// As errors name it: `-m, --memory`.
    pub(crate) fn display_name(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}
