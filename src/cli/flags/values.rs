//! Numbers and switches as Go's `strconv` reads and refuses them (base prefixes, `_` between digits, `1`/`t`/`TRUE`).

use crate::quote::quote;

/// Go's `strconv.ParseBool`.
///
/// # Errors
/// Anything but the twelve spellings.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

/// Go's `strconv.ParseInt(text, 0, 64)`.
///
/// # Errors
/// Not a number, or out of range.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number = digits_of(digits).map_err(|fault| fault.say("ParseInt", text))?;
    let number = i128::from(number);
    i64::try_from(if negative { -number } else { number }).map_err(|_| Fault::Range.say("ParseInt", text))
}

/// Go's `strconv.ParseUint(text, 0, bits)`; the value is at most `max`.
///
/// # Errors
/// Not a number, signed, or greater than `max`.
pub(crate) fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let number = digits_of(text).map_err(|fault| fault.say("ParseUint", text))?;
    if number > max { Err(Fault::Range.say("ParseUint", text)) } else { Ok(number) }
}

/// Go's `strconv.ParseInt(text, 10, 64)`: decimal digits only.
///
/// # Errors
/// Not a number, or out of range.
pub(crate) fn parse_decimal(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::Syntax.say("ParseInt", text));
    }
    text.parse().map_err(|_| Fault::Range.say("ParseInt", text))
}

enum Fault {
    Syntax,
    Range,
}

impl Fault {
    fn say(&self, function: &str, text: &str) -> String {
        let what = match self {
            Fault::Syntax => "invalid syntax",
            Fault::Range => "value out of range",
        };
        format!("strconv.{function}: parsing {}: {what}", quote(text))
    }
}

fn digits_of(text: &str) -> Result<u64, Fault> {
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let after_prefix = base != 10;
    if digits.is_empty()
        || digits.ends_with('_')
        || digits.contains("__")
        || (digits.starts_with('_') && !after_prefix)
        || digits.starts_with(['+', '-'])
    {
        return Err(Fault::Syntax);
    }
    let plain: String = digits.chars().filter(|letter| *letter != '_').collect();
    if !plain.chars().all(|letter| letter.is_digit(base)) {
        return Err(Fault::Syntax);
    }
    u64::from_str_radix(&plain, base).map_err(|_| Fault::Range)
}

/// A [`super::Check`] of a switch.
pub(crate) fn check_bool(text: &str) -> Result<(), String> {
    parse_bool(text).map(drop)
}

/// A [`super::Check`] of a signed number.
pub(crate) fn check_int(text: &str) -> Result<(), String> {
    parse_int(text).map(drop)
}

/// A [`super::Check`] of a number of 16 bits.
pub(crate) fn check_uint16(text: &str) -> Result<(), String> {
    parse_uint(text, u64::from(u16::MAX)).map(drop)
}

/// A [`super::Check`] of an unsigned number.
pub(crate) fn check_uint64(text: &str) -> Result<(), String> {
    parse_uint(text, u64::MAX).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_go_prefixes() {
        for (text, value) in
            [("0x1F", 31), ("017", 15), ("0o17", 15), ("0b11", 3), ("1_000", 1000), ("-5", -5), ("0", 0)]
        {
            assert_eq!(parse_int(text), Ok(value), "{text}");
        }
        for text in ["", "-", "x", "1_", "_1", "1__0", "08", "0x", "+-1", "1.5"] {
            assert!(parse_int(text).unwrap_err().ends_with("invalid syntax"), "{text}");
        }
        assert!(parse_int("9223372036854775808").unwrap_err().ends_with("value out of range"));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert!(parse_uint("65536", 65535).is_err());
    }
}
