//! Go's way to write a string between quotes (`strconv.Quote`, `%q`); messages and templates use it.

use std::fmt::Write;

/// `a"b` becomes `"a\"b"`; what does not print is escaped.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            _ => push_escaped(&mut out, letter),
        }
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, letter: char) {
    match letter {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        control if (control as u32) < 0x20 || control as u32 == 0x7f => {
            // A String takes every write.
            let _ = write!(out, "\\x{:02x}", control as u32);
        }
        control if control.is_control() => {
            let _ = write!(out, "\\u{:04x}", control as u32);
        }
        letter => out.push(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_like_go() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
    }
}
