//! The verbs of the installation, and completion scripts.

use super::{Count, Verb, format_flag, operand};
use crate::{
    command::{Command, Doctor},
    completion::Shell,
    error::Fault,
    flags::{Flag, parse::Operands},
};

pub(crate) static INFO: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Show the state of the installation",
    flags: &[&[format_flag()]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| Ok(Command::Info(parsed.filled("format"))),
};

pub(crate) static DOCTOR: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Tell what this machine can do for either mode",
    flags: &[&[format_flag(), Flag::text("isolation", "Mode that the exit status is about (\"process\"|\"vm\")")]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        let mode = parsed.filled("isolation").unwrap_or_default();
        match mode.as_str() {
            "" | "process" | "vm" | "hyperv" => {
                let needs_vm = matches!(mode.as_str(), "vm" | "hyperv");
                Ok(Command::Doctor(Doctor { format: parsed.filled("format"), needs_vm }))
            }
            other => Err(Fault::Plain(format!("invalid isolation \"{other}\": must be \"process\" or \"vm\""))),
        }
    },
};

pub(crate) static VERSION: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Show the version information",
    flags: &[&[format_flag()]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| Ok(Command::Version(parsed.filled("format"))),
};

pub(crate) static COMPLETION: Verb = Verb {
    usage: "bash|zsh|fish",
    about: "Print a completion script for a shell",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::Exactly(1),
    read: |parsed, _| {
        let shell = operand(parsed, 0);
        let unknown = || Fault::Plain(format!("unknown shell \"{shell}\": must be one of \"bash\", \"zsh\", \"fish\""));
        Shell::named(&shell).map(Command::Completion).ok_or_else(unknown)
    },
};
