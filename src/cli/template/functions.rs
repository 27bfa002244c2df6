//! The functions of templates: Go's own and Docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    printf::sprintf,
    value::{is_true, plain, sprint, sprintln, type_name},
};

/// What an argument must be.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wants {
    Any,
    Text,
    Texts,
    Whole,
}

/// A function: what it takes, whether the last may be repeated, and what it does.
pub(super) struct Function {
    name: &'static str,
    pub(super) wants: &'static [Wants],
    pub(super) repeats: bool,
    pub(super) call: fn(&[Value]) -> Result<Value, String>,
}

const fn fixed(name: &'static str, wants: &'static [Wants], call: fn(&[Value]) -> Result<Value, String>) -> Function {
    Function { name, wants, repeats: false, call }
}

const fn open(name: &'static str, wants: &'static [Wants], call: fn(&[Value]) -> Result<Value, String>) -> Function {
    Function { name, wants, repeats: true, call }
}

use Wants::{Any, Text, Texts, Whole};

static FUNCTIONS: &[Function] = &[
    // `and` and `or` stop at the first that decides; the evaluator does that.
    open("and", &[Any, Any], |values| Ok(values.last().cloned().unwrap_or_default())),
    open("or", &[Any, Any], |values| Ok(values.last().cloned().unwrap_or_default())),
    open("call", &[Any, Any], |values| Err(format!("non-function of type {}", type_name(&values[0])))),
    open("eq", &[Any, Any], eq),
    fixed("ne", &[Any, Any], |values| Ok(Value::Bool(!same(&values[0], &values[1])?))),
    fixed("lt", &[Any, Any], |values| Ok(Value::Bool(order(values)?.is_lt()))),
    fixed("le", &[Any, Any], |values| Ok(Value::Bool(order(values)?.is_le()))),
    fixed("gt", &[Any, Any], |values| Ok(Value::Bool(order(values)?.is_gt()))),
    fixed("ge", &[Any, Any], |values| Ok(Value::Bool(order(values)?.is_ge()))),
    fixed("not", &[Any], |values| Ok(Value::Bool(!is_true(&values[0])))),
    fixed("len", &[Any], len),
    open("index", &[Any, Any], index),
    open("slice", &[Any, Any], slice),
    open("print", &[Any], |values| Ok(Value::String(sprint(values)))),
    open("printf", &[Text, Any], |values| Ok(Value::String(sprintf(text(&values[0]), &values[1..])))),
    open("println", &[Any], |values| Ok(Value::String(sprintln(values)))),
    open("html", &[Any], |values| Ok(Value::String(html(&joined(values))))),
    open("js", &[Any], |values| Ok(Value::String(js(&joined(values))))),
    open("urlquery", &[Any], |values| Ok(Value::String(url_query(&joined(values))))),
    fixed("json", &[Any], |values| Ok(Value::String(go_json(&values[0]).to_string()))),
    fixed("split", &[Text, Text], split),
    fixed("join", &[Texts, Text], join),
    fixed("title", &[Text], |values| Ok(Value::String(title(text(&values[0]))))),
    fixed("lower", &[Text], |values| Ok(Value::String(text(&values[0]).to_lowercase()))),
    fixed("upper", &[Text], |values| Ok(Value::String(text(&values[0]).to_uppercase()))),
    fixed("pad", &[Text, Whole, Whole], pad),
    fixed("truncate", &[Text, Whole], truncate),
];

/// The function of this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Whether there is one.
pub(super) fn exists(name: &str) -> bool {
    find(name).is_some()
}

impl Function {
    /// How many arguments it needs, where their number is wrong.
    pub(super) fn wrong_count(&self, given: usize) -> Option<String> {
        // What may be repeated may also be left out, except for the functions that need a first value.
        let least = if self.repeats { self.wants.len() - 1 } else { self.wants.len() };
        let fits = if self.repeats { given >= least } else { given == least };
        let bound = if self.repeats { "at least " } else { "" };
        let name = self.name;
        (!fits).then(|| format!("wrong number of args for {name}: want {bound}{least} got {given}"))
    }
}

/// Go writes a float without a fraction as a whole number.
fn go_json(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
            whole.map_or_else(|| value.clone(), |float| Value::from(float as i64))
        }
        Value::Array(items) => Value::Array(items.iter().map(go_json).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), go_json(value))).collect())
        }
        other => other.clone(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn whole(value: &Value) -> usize {
    value.as_i64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn joined(values: &[Value]) -> String {
    sprint(values)
}

fn eq(values: &[Value]) -> Result<Value, String> {
    if values.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &values[1..] {
        if same(&values[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn same(one: &Value, other: &Value) -> Result<bool, String> {
    for value in [one, other] {
        if value.is_array() || value.is_object() {
            return Err(format!("non-comparable type {}: {}", plain(value), type_name(value)));
        }
    }
    match (one, other) {
        (Value::Null, _) | (_, Value::Null) => Ok(one.is_null() && other.is_null()),
        // A number of JSON compares with its own spelling, as in Docker's `inspect`.
        (Value::Number(number), Value::String(text)) | (Value::String(text), Value::Number(number)) => {
            Ok(number.to_string() == *text)
        }
        _ if type_name(one) == type_name(other) => Ok(one == other),
        _ => Err(INCOMPATIBLE.to_owned()),
    }
}

fn order(values: &[Value]) -> Result<Ordering, String> {
    let bad = || INCOMPATIBLE.to_owned();
    match (&values[0], &values[1]) {
        (Value::String(one), Value::String(other)) => Ok(one.cmp(other)),
        (Value::Number(one), Value::Number(other)) if one.is_f64() == other.is_f64() => {
            match (one.as_i64(), other.as_i64()) {
                (Some(one), Some(other)) => Ok(one.cmp(&other)),
                _ => one.as_f64().partial_cmp(&other.as_f64()).ok_or_else(bad),
            }
        }
        (Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_), _) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err(bad()),
    }
}

fn len(values: &[Value]) -> Result<Value, String> {
    let length = match &values[0] {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        // A list that is not there has nothing in it.
        Value::Null => 0,
        other => return Err(format!("len of type {}", type_name(other))),
    };
    Ok(Value::from(length))
}

fn index(values: &[Value]) -> Result<Value, String> {
    let mut item = values[0].clone();
    for key in &values[1..] {
        item = match (&item, key) {
            (Value::Null, _) => return Err("index of untyped nil".to_owned()),
            (Value::Array(items), Value::Number(number)) => {
                let place = number.as_u64().and_then(|place| usize::try_from(place).ok());
                let found = place.and_then(|place| items.get(place));
                found.cloned().ok_or_else(|| format!("index out of range: {number}"))?
            }
            (Value::String(text), Value::Number(number)) => {
                let place = number.as_u64().and_then(|place| usize::try_from(place).ok());
                let byte = place.and_then(|place| text.as_bytes().get(place));
                byte.map(|byte| Value::from(*byte)).ok_or_else(|| format!("index out of range: {number}"))?
            }
            (Value::Array(_) | Value::String(_), key) => {
                return Err(format!("cannot index slice/array with type {}", type_name(key)));
            }
            (Value::Object(members), Value::String(name)) => match members.get(name) {
                Some(found) => found.clone(),
                // A map of texts has the empty text for what it has not.
                None if members.values().all(Value::is_string) && !members.is_empty() => Value::String(String::new()),
                None => Value::Null,
            },
            (Value::Object(_), key) => {
                return Err(format!("value has type {}; should be string", type_name(key)));
            }
            (other, _) => return Err(format!("can't index item of type {}", type_name(other))),
        };
    }
    Ok(item)
}

fn slice(values: &[Value]) -> Result<Value, String> {
    let length = match &values[0] {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Null => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", type_name(other))),
    };
    let mut bounds = [0, length];
    if values.len() > 3 {
        return Err(format!("too many slice indexes: {}", values.len() - 1));
    }
    for (bound, given) in bounds.iter_mut().zip(&values[1..]) {
        let Value::Number(number) = given else {
            return Err(format!("cannot index slice/array with type {}", type_name(given)));
        };
        let place = number.as_u64().and_then(|place| usize::try_from(place).ok()).filter(|place| *place <= length);
        *bound = place.ok_or_else(|| format!("index out of range: {number}"))?;
    }
    let [from, to] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match &values[0] {
        Value::Array(items) => Value::Array(items[from..to].to_vec()),
        other => Value::String(String::from_utf8_lossy(&text(other).as_bytes()[from..to]).into_owned()),
    })
}

fn split(values: &[Value]) -> Result<Value, String> {
    let (whole, separator) = (text(&values[0]), text(&values[1]));
    // Go cuts between letters at an empty separator, without empty ends.
    let parts: Vec<Value> = if separator.is_empty() {
        whole.chars().map(|letter| Value::String(letter.to_string())).collect()
    } else {
        whole.split(separator).map(Value::from).collect()
    };
    Ok(Value::Array(parts))
}

fn join(values: &[Value]) -> Result<Value, String> {
    let parts: Vec<String> = values[0].as_array().into_iter().flatten().map(plain).collect();
    Ok(Value::String(parts.join(text(&values[1]))))
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if start {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
        start = !(letter == '_' || letter == '\'' || letter.is_alphanumeric());
    }
    out
}

/// More blanks than this are a mistake.
const PAD_LIMIT: usize = 1_000_000;

fn pad(values: &[Value]) -> Result<Value, String> {
    let (before, after) = (whole(&values[1]), whole(&values[2]));
    if before > PAD_LIMIT || after > PAD_LIMIT {
        return Err(format!("more than {PAD_LIMIT} blanks"));
    }
    let source = text(&values[0]);
    // An empty text stays empty.
    if source.is_empty() {
        return Ok(Value::String(String::new()));
    }
    Ok(Value::String(format!("{}{source}{}", " ".repeat(before), " ".repeat(after))))
}

fn truncate(values: &[Value]) -> Result<Value, String> {
    let source = text(&values[0]);
    let most = whole(&values[1]);
    let cut = source.get(..most).unwrap_or(source);
    Ok(Value::String(if source.len() < most { source.to_owned() } else { cut.to_owned() }))
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter => out.push(letter),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", letter as u32)),
            letter if (letter as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", letter as u32)),
            letter => out.push(letter),
        }
    }
    out
}

fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
