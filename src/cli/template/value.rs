//! JSON values as Go sees them: constants, truth, types, and how `fmt` prints them.

use serde_json::{Number, Value};

/// A Go number constant: `12`, `0x1F`, `1_000`, `.5`, `1e3`.
pub(super) fn parse_number(text: &str) -> Option<Value> {
    if let Ok(whole) = crate::flags::values::parse_int(text) {
        return Some(Value::from(whole));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE_".contains(&byte));
    let known = plain && text.bytes().any(|byte| byte.is_ascii_digit()) && !text.contains("__");
    if !known {
        return None;
    }
    let number: f64 = text.replace('_', "").parse().ok()?;
    Number::from_f64(number).map(Value::Number)
}

/// The text between the quotes of a Go string or character.
pub(super) fn unescape(inside: &str) -> Option<String> {
    let mut out = String::with_capacity(inside.len());
    let mut letters = inside.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        let plain = match letters.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            other @ ('\\' | '\'' | '"') => other,
            'x' => from_digits(&mut letters, 2, 16, None)?,
            'u' => from_digits(&mut letters, 4, 16, None)?,
            'U' => from_digits(&mut letters, 8, 16, None)?,
            digit @ '0'..='7' => from_digits(&mut letters, 2, 8, Some(digit))?,
            _ => return None,
        };
        out.push(plain);
    }
    Some(out)
}

fn from_digits(letters: &mut std::str::Chars<'_>, count: usize, base: u32, first: Option<char>) -> Option<char> {
    let text: String = first.into_iter().chain(letters.by_ref().take(count)).collect();
    if text.len() != count + usize::from(first.is_some()) {
        return None;
    }
    u32::from_str_radix(&text, base).ok().and_then(char::from_u32)
}

/// Whether `if` takes it: not null, false, zero or empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// The name of its Go type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%v`.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => shortest(float),
            None => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let pairs = members.iter().map(|(name, value)| format!("{name}:{}", plain(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
    }
}

/// What an action writes.
pub(super) fn written(value: &Value) -> String {
    if value.is_null() { "<no value>".to_owned() } else { plain(value) }
}

/// `%v` of a float: the shortest digits that read back, with an exponent from 1e21 on and below 1e-4.
pub(super) fn shortest(float: f64) -> String {
    let exponent = if float == 0.0 { 0.0 } else { float.abs().log10().floor() };
    if (-4.0..21.0).contains(&exponent) {
        return format!("{float}");
    }
    go_exponent(&format!("{float:e}"))
}

/// Rust's `1e3` as Go's `1e+03`.
pub(super) fn go_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text.to_owned();
    };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `fmt.Sprint`: blanks between operands of which neither is text.
pub(super) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let texts = value.is_string()
            || index.checked_sub(1).and_then(|before| values.get(before)).is_none_or(Value::is_string);
        if !texts {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

/// `fmt.Sprintln`.
pub(super) fn sprintln(values: &[Value]) -> String {
    format!("{}\n", values.iter().map(plain).collect::<Vec<_>>().join(" "))
}
