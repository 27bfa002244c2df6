//! Lists: one definition of columns serves the table, the template and JSON.
//!
//! A [`Sheet`] names the columns of a kind of row. `--format` chooses what becomes of them: nothing or `table` is the usual
//! table, `table TEMPLATE` a table of its own, `json` an object a line, anything else a template for each row.

use serde_json::{Map, Value};

use crate::template::{Root, Template, TemplateError};

/// A column of a kind of row.
pub struct Column<R> {
    /// Its name in templates and JSON.
    pub key: &'static str,
    /// Its title in tables.
    pub title: &'static str,
    /// Its text.
    pub text: fn(&R, Style) -> String,
}

/// How texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Shorten ids, commands and names.
    pub truncate: bool,
    /// Sizes and times for people.
    pub human: bool,
    /// The moment that ages are counted from, in seconds since 1970.
    pub now: i64,
}

/// The columns of a kind of row.
pub struct Sheet<R: 'static> {
    /// How messages name a row.
    pub type_name: &'static str,
    /// All columns; JSON has them all.
    pub columns: &'static [Column<R>],
    /// The template of the usual table.
    pub usual: &'static str,
    /// The labels of a row, where it has any: `.Label "name"`.
    pub label: Option<fn(&R, &str) -> Option<String>>,
}

/// Writes rows in the form that `--format` asks for; every line ends.
///
/// # Errors
/// A template that cannot be read or does not fit.
pub fn render<R>(sheet: &Sheet<R>, rows: &[R], format: Option<&str>, style: Style) -> Result<String, TemplateError> {
    let format = format.unwrap_or("table");
    let (is_table, template) = match format.strip_prefix("table") {
        Some("") => (true, sheet.usual),
        Some(rest) => (true, rest.trim_matches(' ')),
        _ => (false, format),
    };
    if template == "json" {
        return Ok(rows.iter().map(|row| format!("{}\n", object(sheet, row, style))).collect());
    }
    let template = Template::parse(&template.replace("\\t", "\t").replace("\\n", "\n"))?;
    let mut text = String::new();
    if is_table {
        let titles = sheet.columns.iter().map(|column| (column.key.to_owned(), Value::from(column.title)));
        let titles = Value::Object(titles.collect());
        let root = Root {
            value: &titles,
            type_name: None,
            method: &|_, name| Some(title_of_label(name)),
            methods: if sheet.label.is_some() { &["Label"] } else { &[] },
            titles: true,
        };
        // A title is only a word: what a template does with a row's value may not work on it. The rows below report every
        // fault; the title then stays empty, as in Docker.
        text.push_str(&template.execute(root).unwrap_or_default());
        text.push('\n');
    }
    for row in rows {
        let value = object(sheet, row, style);
        let root = Root {
            value: &value,
            type_name: Some(sheet.type_name),
            method: &|_, name| sheet.label.and_then(|label| label(row, name)),
            methods: if sheet.label.is_some() { &["Label"] } else { &[] },
            titles: false,
        };
        text.push_str(&template.execute(root)?);
        text.push('\n');
    }
    Ok(if is_table { align(&text, MIN_WIDTH) } else { text })
}

/// Whether a format shows a column, so that what is dear to find out is found out only then.
pub fn shows(format: Option<&str>, key: &str) -> bool {
    let format = format.unwrap_or("");
    format.contains(&format!(".{key}")) || format == "json" || format.contains("json .")
}

fn object<R>(sheet: &Sheet<R>, row: &R, style: Style) -> Value {
    let members = sheet.columns.iter().map(|column| (column.key.to_owned(), Value::String((column.text)(row, style))));
    Value::Object(members.collect::<Map<_, _>>())
}

/// The last part of a label's name, in words.
fn title_of_label(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).replace(['-', '_'], " ")
}

/// Writes objects as `inspect` does: a template for each, or one JSON array of them.
///
/// # Errors
/// A template that cannot be read or does not fit.
pub fn inspect(objects: &[Value], format: Option<&str>) -> Result<String, TemplateError> {
    match format {
        None | Some("") => Ok(format!("{}\n", pretty(&Value::Array(objects.to_vec())))),
        Some("json") => Ok(format!("{}\n", Value::Array(objects.to_vec()))),
        Some(template) => {
            let template = Template::parse(template)?;
            let texts = objects.iter().map(|object| template.execute(Root::of_map(object)).map(|text| text + "\n"));
            texts.collect()
        }
    }
}

/// Writes one object by a template, or as JSON.
///
/// # Errors
/// A template that cannot be read or does not fit.
pub fn one_object(object: &Value, format: &str) -> Result<String, TemplateError> {
    if format == "json" {
        return Ok(format!("{object}\n"));
    }
    Ok(Template::parse(format)?.execute(Root::of_map(object))? + "\n")
}

/// JSON with four blanks a level.
pub fn pretty(value: &impl serde::Serialize) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing to memory does not fail, and every map here has text keys.
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok());
    String::from_utf8_lossy(&out).into_owned()
}

/// A column is at least this wide, in most tables.
pub const MIN_WIDTH: usize = 10;
const GUTTER: usize = 3;

/// Puts cells that end with a tab under one another, as Go's `text/tabwriter` does: a column is as wide as the widest cell
/// in the lines next to each other that have it, and a gutter of three.
pub fn align(text: &str, min_width: usize) -> String {
    let lines: Vec<Vec<&str>> =
        text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    measure(&lines, &mut widths, (0, lines.len()), 0, min_width);
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            out.push_str(cell);
            if index + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

/// Sets the width of one column in each block of lines that have it, then of the columns after it inside the block.
fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    (from, to): (usize, usize),
    column: usize,
    min_width: usize,
) {
    let has = |line: usize| lines[line].len() > column + 1;
    let mut start = from;
    while start < to {
        if !has(start) {
            start += 1;
            continue;
        }
        let end = (start..to).find(|line| !has(*line)).unwrap_or(to);
        let widest = (start..end).map(|line| lines[line][column].chars().count() + GUTTER).max().unwrap_or(0);
        for line in &mut widths[start..end] {
            line[column] = widest.max(min_width);
        }
        measure(lines, widths, (start, end), column + 1, min_width);
        start = end;
    }
}

/// A list of processes, as `top` shows it.
pub fn processes(titles: &[String], rows: &[Vec<String>]) -> String {
    let lines = std::iter::once(titles.join("\t")).chain(rows.iter().map(|row| row.join("\t")));
    align(&lines.map(|line| line + "\n").collect::<String>(), 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_a_gutter_and_a_least_width() {
        assert_eq!(align("A\tB\nlonger than ten\tc\n", 10), "A                 B\nlonger than ten   c\n");
        assert_eq!(align("A\tB\nx\ty\n", 10), "A         B\nx         y\n");
        assert_eq!(align("alone\n", 10), "alone\n");
        assert_eq!(align("a\tb\nalone\nlong long long\tc\n", 10), "a         b\nalone\nlong long long   c\n");
    }

    #[test]
    fn a_format_says_what_it_shows() {
        assert!(shows(Some("{{.Size}}"), "Size") && shows(Some("json"), "Size") && shows(Some("{{json .}}"), "Size"));
        assert!(!shows(Some("table {{.ID}}"), "Size") && !shows(None, "Size"));
    }
}
