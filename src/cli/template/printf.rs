//! Go's `fmt.Sprintf`.

use serde_json::Value;

use super::value::{go_exponent, plain, shortest, type_name};
use crate::{quote::quote, units::significant};

/// Wider or more precise than this is a mistake; Go says so too.
const LIMIT: usize = 1_000_000;

#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer<'a> {
    arguments: &'a [Value],
    next: usize,
    reordered: bool,
    out: String,
}

/// Formats `arguments` by `format`; what does not fit is written as Go writes it (`%!d(string=x)`).
pub(super) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut printer = Printer { arguments, next: 0, reordered: false, out: String::new() };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        printer.out.push_str(&rest[..at]);
        rest = printer.directive(&rest[at + 1..]);
    }
    printer.out.push_str(rest);
    if !printer.reordered && printer.next < arguments.len() {
        let extra = arguments[printer.next..].iter();
        let shown: Vec<String> = extra.map(typed).collect();
        printer.out.push_str(&format!("%!(EXTRA {})", shown.join(", ")));
    }
    printer.out
}

fn typed(value: &Value) -> String {
    if value.is_null() { "<nil>".to_owned() } else { format!("{}={}", type_name(value), plain(value)) }
}

impl Printer<'_> {
    /// Takes what follows a `%`; answers what is left.
    fn directive<'t>(&mut self, text: &'t str) -> &'t str {
        let mut spec = Spec::default();
        let mut rest = text;
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut bad_index = false;
        rest = self.index(rest, &mut bad_index);
        (spec.width, rest) = self.count(rest, &mut spec.minus);
        if let Some(after) = rest.strip_prefix('.') {
            rest = self.index(after, &mut bad_index);
            let mut ignored = false;
            let (precision, after) = self.count(rest, &mut ignored);
            spec.precision = Some(precision.unwrap_or(0));
            rest = after;
        }
        rest = self.index(rest, &mut bad_index);
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return "";
        };
        let after = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.out.push('%');
        } else if bad_index {
            self.out.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = self.arguments.get(self.next) {
            self.next += 1;
            let formatted = format_value(verb, &spec, value);
            self.out.push_str(&formatted);
        } else {
            self.out.push_str(&format!("%!{verb}(MISSING)"));
        }
        after
    }

    /// `[2]`: the next argument is the second.
    fn index<'t>(&mut self, text: &'t str, bad: &mut bool) -> &'t str {
        let Some(inside) = text.strip_prefix('[') else {
            return text;
        };
        let Some((number, rest)) = inside.split_once(']') else {
            *bad = true;
            return inside;
        };
        self.reordered = true;
        match number.parse::<usize>() {
            Ok(number) if (1..=self.arguments.len()).contains(&number) => self.next = number - 1,
            _ => *bad = true,
        }
        rest
    }

    /// A number, or `*` for the next argument; a negative one aligns to the left.
    fn count<'t>(&mut self, text: &'t str, minus: &mut bool) -> (Option<usize>, &'t str) {
        if let Some(rest) = text.strip_prefix('*') {
            let given = self.arguments.get(self.next).and_then(Value::as_i64);
            self.next += 1;
            let Some(given) = given else {
                self.out.push_str("%!(BADWIDTH)");
                return (None, rest);
            };
            *minus |= given < 0;
            let width = usize::try_from(given.unsigned_abs()).ok().filter(|width| *width <= LIMIT);
            return (width, rest);
        }
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        (text[..digits].parse().ok().filter(|width| *width <= LIMIT), &text[digits..])
    }
}

fn format_value(verb: char, spec: &Spec, value: &Value) -> String {
    match (verb, value) {
        ('T', value) => return pad(spec, type_name(value).to_owned()),
        ('v', Value::Null) => return pad(spec, "<nil>".to_owned()),
        ('v' | 's' | 'q' | 'd' | 'x' | 'X' | 't', Value::Array(items)) => {
            let parts: Vec<String> = items.iter().map(|item| format_value(verb, spec, item)).collect();
            return format!("[{}]", parts.join(" "));
        }
        ('v' | 's' | 'q' | 'd' | 'x' | 'X' | 't', Value::Object(members)) => {
            let name = |name: &String| format_value(verb, spec, &Value::String(name.clone()));
            let parts = members.iter().map(|(key, item)| format!("{}:{}", name(key), format_value(verb, spec, item)));
            return format!("map[{}]", parts.collect::<Vec<_>>().join(" "));
        }
        _ => {}
    }
    let formatted = match value {
        Value::Bool(on) if matches!(verb, 'v' | 't') => Some(pad(spec, on.to_string())),
        Value::String(text) => format_text(verb, spec, text),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => format_float(verb, spec, float),
            None => number
                .as_i64()
                .map(i128::from)
                .or(number.as_u64().map(i128::from))
                .and_then(|whole| format_int(verb, spec, whole)),
        },
        _ => None,
    };
    formatted.unwrap_or_else(|| format!("%!{verb}({})", typed(value)))
}

/// Blanks up to the width; never zeroes.
fn pad(spec: &Spec, text: String) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    let blanks = " ".repeat(missing);
    if spec.minus { text + &blanks } else { blanks + &text }
}

/// As [`pad`], with zeroes after the sign where the flag asks for them.
fn pad_number(spec: &Spec, text: String) -> String {
    if !spec.zero || spec.minus {
        return pad(spec, text);
    }
    let missing = spec.width.unwrap_or(0).saturating_sub(text.len());
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-', ' '])));
    format!("{sign}{}{digits}", "0".repeat(missing))
}

fn sign(spec: &Spec, negative: bool) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

fn format_text(verb: char, spec: &Spec, text: &str) -> Option<String> {
    let cut: String = match spec.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let hex = |upper: bool| {
        let bytes = cut.bytes().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
        bytes.collect::<Vec<_>>().join(if spec.space { " " } else { "" })
    };
    match verb {
        'v' if spec.sharp => Some(pad(spec, quote(&cut))),
        'v' | 's' => Some(pad(spec, cut)),
        'q' => Some(pad(spec, quote(&cut))),
        'x' => Some(pad(spec, hex(false))),
        'X' => Some(pad(spec, hex(true))),
        _ => None,
    }
}

fn format_int(verb: char, spec: &Spec, whole: i128) -> Option<String> {
    let size = whole.unsigned_abs();
    let prefix = |text: &'static str| if spec.sharp { text } else { "" };
    let (prefix, digits) = match verb {
        'v' | 'd' => ("", size.to_string()),
        'b' => (prefix("0b"), format!("{size:b}")),
        'o' => (prefix("0"), format!("{size:o}")),
        'O' => ("0o", format!("{size:o}")),
        'x' => (prefix("0x"), format!("{size:x}")),
        'X' => (prefix("0X"), format!("{size:X}")),
        'c' | 'q' | 'U' => {
            let letter = u32::try_from(whole).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return Some(pad(
                spec,
                match verb {
                    'c' => letter.to_string(),
                    'U' => format!("U+{:04X}", letter as u32),
                    _ => format!("'{letter}'"),
                },
            ));
        }
        _ => return None,
    };
    let digits = match spec.precision {
        Some(least) => format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len()))),
        None => digits,
    };
    let text = format!("{}{prefix}{digits}", sign(spec, whole < 0));
    // A precision is what counts for the zeroes.
    Some(if spec.precision.is_some() { pad(spec, text) } else { pad_number(spec, text) })
}

fn format_float(verb: char, spec: &Spec, float: f64) -> Option<String> {
    let size = float.abs();
    let digits = match verb {
        'f' | 'F' => format!("{size:.*}", spec.precision.unwrap_or(6)),
        'e' => go_exponent(&format!("{size:.*e}", spec.precision.unwrap_or(6))),
        'E' => go_exponent(&format!("{size:.*e}", spec.precision.unwrap_or(6))).to_uppercase(),
        'v' | 'g' | 'G' => {
            let text = spec.precision.map_or_else(|| shortest(size), |precision| significant(size, precision.max(1)));
            if verb == 'G' { text.to_uppercase() } else { text }
        }
        _ => return None,
    };
    Some(pad_number(spec, format!("{}{digits}", sign(spec, float.is_sign_negative()))))
}
