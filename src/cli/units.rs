//! Sizes, durations and times: how users write them and how tables show them.
//!
//! Flags read binary sizes (`64m` is 64 MiB), tables write decimal ones (`5MB`), `stats` writes binary ones (`5MiB`):
//! that is what Docker does, and scripts parse it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::quote::quote;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// A size in binary units: `100`, `64m`, `1.5GiB`, `64 kb`. The result is in bytes.
///
/// # Errors
/// No digits, a negative number, an unknown unit, or more than an `i64` holds.
pub fn parse_size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, unit) = (text[..=last].strip_suffix(' ').unwrap_or(&text[..=last]), &text[last + 1..]);
    let size = parse_float(number)?;
    if size.is_sign_negative() && size != 0.0 {
        return Err(invalid());
    }
    let unit = unit.to_ascii_lowercase();
    let bad_unit = || format!("invalid suffix: '{unit}'");
    let power = match unit.as_bytes() {
        [] | [b'b'] => 0,
        [letter] | [letter, b'b'] | [letter, b'i', b'b'] => {
            b"kmgtp".iter().position(|known| known == letter).ok_or_else(bad_unit)? + 1
        }
        _ => return Err(bad_unit()),
    };
    let bytes = size * 1024f64.powi(i32::try_from(power).unwrap_or(i32::MAX));
    // 2^63 as a float; everything below converts exactly or rounds towards zero.
    if bytes >= 9_223_372_036_854_775_808.0 { Err(invalid()) } else { Ok(bytes as i64) }
}

fn parse_float(text: &str) -> Result<f64, String> {
    let invalid = || format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(text));
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if !plain {
        return Err(invalid());
    }
    text.parse::<f64>().map_err(|_| invalid())
}

/// As [`parse_size`], and `-1` for unlimited.
///
/// # Errors
/// As [`parse_size`].
pub fn parse_size_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse_size(text) }
}

/// A Go duration (`1h30m`, `1.5s`, `-5ms`) in nanoseconds.
///
/// # Errors
/// No unit, an unknown unit, no number, or more than 292 years.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
            return Err(invalid());
        }
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let scale: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text)));
            }
        };
        total += whole.parse::<i128>().unwrap_or(0) * scale + fraction_of(fraction, scale);
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn fraction_of(digits: &str, scale: i128) -> i128 {
    let mut part = scale;
    let mut sum = 0;
    for digit in digits.bytes().take(18) {
        part /= 10;
        sum += part * i128::from(digit - b'0');
    }
    sum
}

/// Billionths of a processor from a rational number: `1.5`, `3/2`, `1e-1`.
///
/// # Errors
/// Not a number, finer than a billionth, or more than an `i64` holds.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let not_rational = || format!("failed to parse {text} as a rational number");
    let too_precise = || "value is too precise".to_owned();
    let (numerator, denominator) = match text.split_once('/') {
        Some((over, under)) => {
            let under: i128 = under.parse().ok().filter(|n| *n > 0).ok_or_else(not_rational)?;
            (Decimal { digits: over.parse().map_err(|_| not_rational())?, exponent: 0 }, under)
        }
        None => (Decimal::parse(text).ok_or_else(not_rational)?, 1),
    };
    let scaled = numerator.exponent + 9;
    let (over, under) = if scaled >= 0 {
        let factor = 10i128.checked_pow(scaled.unsigned_abs());
        (factor.and_then(|factor| numerator.digits.checked_mul(factor)), Some(denominator))
    } else {
        let factor = 10i128.checked_pow(scaled.unsigned_abs());
        (Some(numerator.digits), factor.and_then(|factor| denominator.checked_mul(factor)))
    };
    let too_large = || format!("value {text} is too large");
    let (over, under) = (over.ok_or_else(too_large)?, under.ok_or_else(too_precise)?);
    if over % under != 0 {
        return Err(too_precise());
    }
    i64::try_from(over / under).map_err(|_| too_large())
}

struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, body) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if body.contains("__") || body.starts_with('_') || body.ends_with('_') {
            return None;
        }
        let plain: String = body.chars().filter(|letter| *letter != '_').collect();
        let (digits, exponent) = if let Some(hex) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
            (i128::from(u64::from_str_radix(hex, 16).ok()?), 0)
        } else {
            let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
                Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 60)?),
                None => (plain.as_str(), 0),
            };
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
            let joined = format!("{whole}{fraction}");
            if joined.is_empty() || joined.len() > 37 || !joined.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (joined.parse().ok()?, exponent - i32::try_from(fraction.len()).ok()?)
        };
        Some(Self { digits: if negative { -digits } else { digits }, exponent })
    }
}

/// A number with at most `precision` significant digits, as C's `%.Ng`.
pub fn significant(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{:.*e}", precision.saturating_sub(1), value);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if exponent < -4 || exponent >= i32::try_from(precision).unwrap_or(i32::MAX) {
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(i32::try_from(precision).unwrap_or(0) - 1 - exponent).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn scaled(size: f64, base: f64, precision: usize, units: &[&str]) -> String {
    let mut size = size;
    let mut unit = 0;
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, precision), units[unit])
}

/// A size in decimal units with four significant digits: `1.234MB`.
pub fn human_size(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, 4, &DECIMAL)
}

/// A size in decimal units with three significant digits, as tables show it: `1.23MB`.
pub fn table_size(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, 3, &DECIMAL)
}

/// A size in binary units with four significant digits, as `stats` shows it: `1.177MiB`.
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, 4, &BINARY)
}

/// How long in words: `Less than a second`, `About a minute`, `2 hours`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Hours are rounded, everything else is cut: so do the tables that people know.
    let hours = (duration.as_secs_f64() / 3600.0).round() as u64;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", (duration.as_secs_f64() / 3600.0) as u64 / 24 / 365),
    }
}

/// Seconds and nanoseconds since 1970 as tables show a creation time: `2025-06-05 04:48:17 +0000 UTC`.
pub fn table_time(seconds: i64) -> String {
    let date = Civil::from_seconds(seconds);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} +0000 UTC",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

/// RFC 3339 in UTC, without a fraction: `2025-06-05T04:48:17Z`.
pub fn rfc3339(seconds: i64) -> String {
    let date = Civil::from_seconds(seconds);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Days to date in the proleptic Gregorian calendar, counted from 1 March so that the leap day is the last.
    fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

fn seconds_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era - 719_468) * 86_400
}

/// A moment: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Moment {
    /// The present.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
    }

    /// RFC 3339 with any fraction and zone: `2013-01-02T13:23:37.5Z`, `…+02:00`.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(['T', 't', ' '])?;
        moment_of(date, time)
    }

    /// The time from here to `later`; zero where it is not later.
    pub fn until(self, later: Self) -> Duration {
        let nanoseconds = (i128::from(later.seconds) - i128::from(self.seconds)) * 1_000_000_000
            + i128::from(later.nanoseconds)
            - i128::from(self.nanoseconds);
        u64::try_from(nanoseconds.clamp(0, i128::from(u64::MAX))).map_or(Duration::ZERO, Duration::from_nanos)
    }

    fn minus(self, nanoseconds: i64) -> Self {
        let total = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds) - i128::from(nanoseconds);
        Self {
            seconds: i64::try_from(total.div_euclid(1_000_000_000)).unwrap_or(0),
            nanoseconds: u32::try_from(total.rem_euclid(1_000_000_000)).unwrap_or(0),
        }
    }
}

/// What `--since` and `--until` take: a duration before `now`, seconds since 1970 with a fraction, or a date in RFC 3339
/// that may end after any of its parts (`2013-01-02`, `2013-01-02T13:23`). A date without a zone is in UTC.
///
/// # Errors
/// None of these.
pub fn parse_moment(text: &str, now: Moment) -> Result<Moment, String> {
    let bad = || format!("failed to parse value as time or duration: {}", quote(text));
    if let Ok(ago) = parse_duration(text) {
        return Ok(now.minus(ago));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>() {
        return Ok(Moment { seconds, nanoseconds: nanoseconds_of(fraction).ok_or_else(bad)? });
    }
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    moment_of(date, time).ok_or_else(bad)
}

fn nanoseconds_of(fraction: &str) -> Option<u32> {
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<9}").parse().ok()
}

fn moment_of(date: &str, time: &str) -> Option<Moment> {
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4, 0..=9999)?;
    let month = number(parts.next()?, 2, 1..=12)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = number(parts.next()?, 2, 1..=days)?;
    if parts.next().is_some() {
        return None;
    }
    let (clock, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (&time[..at], zone_seconds(&time[at..])?),
        None => (time, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let hour = number(parts.next()?, 2, 0..=23)?;
    let minute = parts.next().map_or(Some(0), |part| number(part, 2, 0..=59))?;
    let second = parts.next().map_or(Some(0), |part| number(part, 2, 0..=59))?;
    if parts.next().is_some() {
        return None;
    }
    Some(Moment {
        seconds: seconds_of_civil(year, month, day) + hour * 3600 + minute * 60 + second - zone,
        nanoseconds: nanoseconds_of(fraction.get(..fraction.len().min(9))?)?,
    })
}

fn zone_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return (zone.len() == 1).then_some(0),
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    Some(sign * (number(hours, 2, 0..=23)? * 3600 + number(minutes, 2, 0..=59)? * 60))
}

fn number(text: &str, width: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    if text.len() != width || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|value| range.contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_flags_are_binary() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1g", 1 << 30), ("1.5GiB", 3 << 29), ("64 kb", 65536), ("7", 7), ("1b", 1)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "-1", "1q", "1kbb", "1bb", "1e99", "9e18p", "inf", "nan", "1mé"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_go_durations() {
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_duration("-1.5s"), Ok(-1_500_000_000));
        assert_eq!(parse_duration(".5ms"), Ok(500_000));
        for text in ["", "1", "1x", "s", "1.2.3s", "99999999999999999999h", "10000000h", "-"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_in_tables_are_decimal() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.23MB"), (5_000_000, "5MB"), (123_456_789, "123MB")]
        {
            assert_eq!(table_size(bytes), text);
        }
        assert_eq!(human_size(1_234_567), "1.235MB");
        assert_eq!(binary_size(1_234_567), "1.177MiB");
        assert_eq!(binary_size(1023), "1023B");
        assert_eq!(table_size(999_999), "1e+03kB");
    }

    #[test]
    fn durations_in_words() {
        let hour = 3600;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (hour, "About an hour"),
            (hour * 3 / 2, "2 hours"),
            (47 * hour, "47 hours"),
            (48 * hour, "2 days"),
            (14 * 24 * hour, "2 weeks"),
            (60 * 24 * hour, "2 months"),
            (730 * 24 * hour, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn moments() {
        let now = Moment { seconds: 1_000_000, nanoseconds: 500 };
        assert_eq!(parse_moment("10s", now), Ok(Moment { seconds: 999_990, nanoseconds: 500 }));
        assert_eq!(parse_moment("12.5", now), Ok(Moment { seconds: 12, nanoseconds: 500_000_000 }));
        assert_eq!(parse_moment("2013-01-02T13:23:37Z", now).unwrap().seconds, 1_357_133_017);
        assert_eq!(parse_moment("2013-01-02T13:23:37.25+02:00", now).unwrap().seconds, 1_357_133_017 - 7200);
        assert_eq!(parse_moment("2000-02-29", now).unwrap().seconds, 951_782_400);
        for text in ["", "yesterday", "2013-13-01", "2013-02-29", "2013-1-1", "2013-01-01T25:00"] {
            assert!(parse_moment(text, now).is_err(), "{text}");
        }
        assert_eq!(table_time(951_782_400), "2000-02-29 00:00:00 +0000 UTC");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
    }
}
