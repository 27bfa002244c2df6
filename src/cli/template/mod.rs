//! Go templates (`text/template`) over JSON, with Docker's functions: what `--format` takes.
//!
//! ```text
//! text ── lexer ──▶ tokens ── parser ──▶ nodes ── eval (functions, printf, value) ──▶ text
//! ```
//!
//! Values are JSON; Go's structs and maps are objects, whose keys are visited in order. Messages are those of Go's package,
//! because users know them and scripts match them. Left out: methods (except those a row offers), complex numbers.

mod eval;
mod functions;
mod lexer;
mod node;
mod parser;
mod printf;
mod value;

use std::collections::BTreeMap;

use serde_json::Value;

use self::node::Node;

/// A template, ready to be executed.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
    definitions: BTreeMap<String, Vec<Node>>,
}

/// Why a template is none, or why it failed. The text begins with `template: :LINE`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read.
    #[error("{0}")]
    Parse(String),
    /// It cannot be executed with this value.
    #[error("{0}")]
    Execute(String),
}

/// What stands at the top of a template's data.
#[derive(Clone, Copy)]
pub struct Root<'a> {
    /// The value of `.` and `$`.
    pub value: &'a Value,
    /// The name of its type in messages, where a field that is missing is not a missing key of a map.
    pub type_name: Option<&'a str>,
    /// Methods with one text argument, by name (`.Label "x"`); `None` where there is none of this name.
    pub method: &'a dyn Fn(&str, &str) -> Option<String>,
    /// Names of these methods.
    pub methods: &'a [&'a str],
    /// The line of titles of a table: functions that change how a value looks leave a title as it is, and a title that is
    /// not there is empty.
    pub titles: bool,
}

impl<'a> Root<'a> {
    /// A map, as `inspect` shows it.
    pub fn of_map(value: &'a Value) -> Self {
        Self { value, type_name: None, method: &|_, _| None, methods: &[], titles: false }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError::Parse`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let parsed = parser::parse(text).map_err(TemplateError::Parse)?;
        Ok(Self { text: text.to_owned(), nodes: parsed.nodes, definitions: parsed.definitions })
    }

    /// Writes it for a value.
    ///
    /// # Errors
    /// [`TemplateError::Execute`].
    pub fn execute(&self, root: Root<'_>) -> Result<String, TemplateError> {
        eval::execute(self, root).map_err(TemplateError::Execute)
    }
}
