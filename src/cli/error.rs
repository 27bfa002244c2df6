//! What goes wrong before anything is done, and how it is said.
//!
//! Docker has three forms, and scripts match them: a fault of the parser (usage and a pointer to help, 125), a wrong number
//! of operands (the same, with the program's name, 1), and a conflict found while putting flags together (125, or a bare
//! line and 1).

/// A command line that cannot be run: what to print on the standard error, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// Without a line end at the end.
    pub message: String,
    /// 125 or 1.
    pub status: u8,
}

impl UsageError {
    /// A fault of the flag parser.
    pub(crate) fn of_flags(why: &str, path: &str, usage: &str) -> Self {
        let usage = spaced(usage);
        Self {
            message: format!("{why}\n\nUsage:  {path}{usage}\n\nRun '{path} --help' for more information"),
            status: 125,
        }
    }

    /// A wrong number of operands, or an unknown command.
    pub(crate) fn of_operands(why: &str, path: &str, usage: &str) -> Self {
        let usage = spaced(usage);
        Self {
            message: format!("sbx: {why}\n\nUsage:  {path}{usage}\n\nRun '{path} --help' for more information"),
            status: 1,
        }
    }

    /// A conflict found after parsing.
    pub(crate) fn of_fault(fault: Fault, path: &str) -> Self {
        match fault {
            Fault::Flags(why) => {
                Self { message: format!("sbx: {why}\n\nRun '{path} --help' for more information"), status: 125 }
            }
            Fault::Plain(message) => Self { message, status: 1 },
        }
    }
}

fn spaced(usage: &str) -> String {
    if usage.is_empty() { String::new() } else { format!(" {usage}") }
}

/// What a verb says of flags that were read but do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `sbx: why`, a pointer to help, 125.
    Flags(String),
    /// The bare line, 1.
    Plain(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Flags(why)
    }
}
