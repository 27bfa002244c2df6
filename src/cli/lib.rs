//! Command line: flags to requests, answers to tables.
//!
//! ```text
//! arguments ── parse ──▶ Invocation { globals, notices, command } ── (engine) ──▶ rows ── table / template / json ──▶ text
//! ```
//!
//! `parse` is a function of its arguments and of [`Surroundings`]; it opens the files that flags name and does nothing else.
//! The words of every message are Docker's where Docker has any, because scripts match them; `tests/` holds recordings of
//! what the stock client makes of hundreds of command lines.

#![recursion_limit = "256"]

pub mod command;
pub mod completion;
pub mod detach;
mod error;
pub mod execute;
pub mod filter;
mod flags;
pub mod progress;
mod quote;
pub mod rows;
mod run;
mod surroundings;
pub mod table;
pub mod template;
pub mod terminal;
mod tree;
pub mod units;
mod verbs;

use std::ffi::OsString;

pub use self::{
    command::{Command, Invocation},
    error::UsageError,
    run::{PullPolicy, RunCommand, RunOptions, Streams},
    surroundings::Surroundings,
};

/// Reads the arguments of this process, without the program's name.
///
/// # Errors
/// What to print and the exit status.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    parse_in(arguments, &Surroundings::of_process())
}

/// As [`parse`], in other surroundings.
///
/// # Errors
/// What to print and the exit status.
pub fn parse_in(
    arguments: impl IntoIterator<Item = OsString>,
    around: &Surroundings,
) -> Result<Invocation, UsageError> {
    let words = arguments.into_iter().enumerate().map(|(index, word)| {
        word.into_string().map_err(|word| UsageError {
            message: format!("sbx: argument {} is not valid UTF-8: {}", index + 1, word.display()),
            status: 125,
        })
    });
    tree::walk(&words.collect::<Result<Vec<_>, _>>()?, around)
}
