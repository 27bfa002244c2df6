//! The parts of a template, and how messages show them.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

use crate::quote::quote;

/// One thing to write or to do.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    Range(Branch),
    With(Branch),
    Break,
    Continue,
    /// Name, argument, where it stands.
    Template(String, Option<Pipe>, usize),
}

/// A condition and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each with the last one's value as its last argument.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// Variables that take the value.
    pub(super) variables: Vec<String>,
    /// `=`, not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Call>,
}

/// A function or a value, with arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) parts: Vec<Operand>,
    pub(super) at: usize,
}

/// A value in a command.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) kind: OperandKind,
    /// What messages point to, in bytes.
    pub(super) at: usize,
}

#[derive(Clone, Debug)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A`
    Variable(String, Vec<String>),
    Function(String),
    /// The value and its spelling.
    Constant(Value, String),
    /// `(…).A`
    Parenthesised(Box<Pipe>, Vec<String>),
}

fn dotted(formatter: &mut Formatter<'_>, fields: &[String]) -> fmt::Result {
    fields.iter().try_for_each(|field| write!(formatter, ".{field}"))
}

fn separated<T: Display>(formatter: &mut Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        write!(formatter, "{}{item}", if index > 0 { separator } else { "" })?;
    }
    Ok(())
}

impl Display for Operand {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            OperandKind::Dot => formatter.write_str("."),
            OperandKind::Nil => formatter.write_str("nil"),
            OperandKind::Field(fields) => dotted(formatter, fields),
            OperandKind::Variable(name, fields) => {
                formatter.write_str(name)?;
                dotted(formatter, fields)
            }
            OperandKind::Function(name) => formatter.write_str(name),
            OperandKind::Constant(_, spelling) => formatter.write_str(spelling),
            OperandKind::Parenthesised(pipe, fields) => {
                write!(formatter, "({pipe})")?;
                dotted(formatter, fields)
            }
        }
    }
}

impl Display for Call {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        separated(formatter, &self.parts, " ")
    }
}

impl Display for Pipe {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            separated(formatter, &self.variables, ", ")?;
            formatter.write_str(if self.assigns { " = " } else { " := " })?;
        }
        separated(formatter, &self.commands, " | ")
    }
}

/// `{{template "name" argument}}`.
pub(super) fn template_words(name: &str, argument: Option<&Pipe>) -> String {
    match argument {
        Some(pipe) => format!("{{{{template {} {pipe}}}}}", quote(name)),
        None => format!("{{{{template {}}}}}", quote(name)),
    }
}
