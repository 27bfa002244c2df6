//! Sizes in bytes as Docker's options write them: `64m`, `1.5g`, `512k`, `100`, `2GiB`. Suffixes are binary.

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}'")]
pub struct InvalidSize(pub String);

/// Bytes of a size (`units.RAMInBytes` of Docker).
pub fn parse_bytes(text: &str) -> Result<i64, InvalidSize> {
    read(text).ok_or_else(|| InvalidSize(text.to_owned()))
}

fn read(text: &str) -> Option<i64> {
    let end = text.find(|other: char| !other.is_ascii_digit() && other != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let exponent = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" if suffix.is_empty() || suffix == "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let well_formed = ["", "b", "ib"].iter().any(|tail| {
        let stem = suffix.strip_suffix(tail);
        stem.is_some_and(|stem| stem.len() == usize::from(exponent > 0))
    });
    if !well_formed || number.is_empty() {
        return None;
    }
    let unit = 1_i64.checked_shl(10 * exponent)?;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(unit);
    }
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    // A double holds every size that a machine can have; what it cannot hold is refused.
    (value.is_finite() && value < i64::MAX as f64).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("2 GB", 2 << 30),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            ("32.", 32),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "k",
            "1x",
            "-1",
            "+1",
            "1kk",
            "1.2.3m",
            "m1",
            "1 k b",
            "99999999999p",
            "99999999999999999999",
            "1ib",
            "1bb",
            "NaN",
            "inf",
            "1e3",
        ] {
            assert!(parse_bytes(text).is_err(), "{text} gave {:?}", parse_bytes(text));
        }
    }
}
