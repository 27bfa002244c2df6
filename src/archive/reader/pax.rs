//! PAX extended headers: records of `LENGTH KEY=VALUE\n` that overrule the fields of the header after them.

use super::sparse::Segment;

const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";

/// What we understand of one extended header.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// GNU's records of a sparse file (`GNU.sparse.*`).
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    /// `major.minor`; absent in 0.0 and 0.1 of old writers.
    pub(super) version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    /// `size` (0.x) or `realsize` (1.0).
    pub(super) real_size: Option<u64>,
    /// 0.0 and 0.1.
    pub(super) map: Option<Vec<Segment>>,
    /// 0.0: an offset that still waits for its length.
    pending: Option<u64>,
}

impl Records {
    /// Parses the payload of an `x` header.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        for_each_record(payload, |key, value| records.take(key, value))?;
        if records.sparse.pending.is_some() {
            return Err("PAX GNU.sparse.offset without GNU.sparse.numbytes".to_owned());
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => self.path = text(key, value)?,
            b"linkpath" => self.link = text(key, value)?,
            b"size" => self.size = optional(key, value)?,
            b"uid" => self.uid = optional(key, value)?,
            b"gid" => self.gid = optional(key, value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| wrong(key))?),
            _ => {
                if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
                    self.set_xattr(name.to_vec(), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
                    let name = percent_decode(name).ok_or_else(|| wrong(key))?;
                    // bsdtar writes both forms; the plain one wins, whatever the order.
                    if !self.xattrs.iter().any(|(known, _)| *known == name) {
                        let value = base64_decode(value).ok_or_else(|| wrong(key))?;
                        self.set_xattr(name, value)?;
                    }
                } else if let Some(rest) = key.strip_prefix(b"GNU.sparse.") {
                    self.take_sparse(rest, key, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
        if name.is_empty() || name.contains(&0) {
            return Err("PAX extended attribute without a valid name".to_owned());
        }
        self.xattrs.retain(|(known, _)| *known != name);
        self.xattrs.push((name, value));
        Ok(())
    }

    fn take_sparse(&mut self, rest: &[u8], key: &[u8], value: &[u8]) -> Result<(), String> {
        let sparse = &mut self.sparse;
        match rest {
            b"major" => sparse.version.0 = optional(key, value)?,
            b"minor" => sparse.version.1 = optional(key, value)?,
            b"name" => sparse.name = text(key, value)?,
            b"size" | b"realsize" => sparse.real_size = optional(key, value)?,
            b"map" => sparse.map = Some(map(value).ok_or_else(|| wrong(key))?),
            b"offset" => {
                if sparse.pending.is_some() {
                    return Err("PAX GNU.sparse.offset twice in a row".to_owned());
                }
                sparse.pending = Some(decimal(value).ok_or_else(|| wrong(key))?);
            }
            b"numbytes" => {
                let length = decimal(value).ok_or_else(|| wrong(key))?;
                let offset = sparse.pending.take().ok_or("PAX GNU.sparse.numbytes without an offset")?;
                sparse.map.get_or_insert_default().push(Segment { offset, length });
            }
            b"numblocks" => {}
            _ => {
                return Err(format!("PAX record {} of an unknown sparse format", key.escape_ascii()));
            }
        }
        Ok(())
    }
}

/// Checks a global (`g`) header. Like Docker (Go) we ignore what it says; what would change where entries are or end is refused,
/// because other readers do heed it.
pub(super) fn check_global(payload: &[u8]) -> Result<(), String> {
    for_each_record(payload, |key, _| {
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(format!("global PAX header that sets {} for every entry", key.escape_ascii()));
        }
        Ok(())
    })
}

fn for_each_record(mut rest: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<(), String>) -> Result<(), String> {
    const BROKEN: &str = "PAX record that is not LENGTH KEY=VALUE";
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|&b| b == b' ').ok_or(BROKEN)?;
        let length = decimal(&rest[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(BROKEN)?;
        if length > rest.len() || length < space + 3 || rest[length - 1] != b'\n' {
            return Err(BROKEN.to_owned());
        }
        let record = &rest[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or(BROKEN)?;
        if equals == 0 || record[..equals].contains(&0) {
            return Err(BROKEN.to_owned());
        }
        take(&record[..equals], &record[equals + 1..])?;
        rest = &rest[length..];
    }
    Ok(())
}

fn wrong(key: &[u8]) -> String {
    format!("PAX record {} with a value that cannot be", key.escape_ascii())
}

/// A path; an empty value takes the record back.
fn text(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if value.contains(&0) {
        return Err(format!("PAX record {} with a NUL in it", key.escape_ascii()));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn optional(key: &[u8], value: &[u8]) -> Result<Option<u64>, String> {
    if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or_else(|| wrong(key)) }
}

/// Digits only, up to `i64::MAX`: no file is larger.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().fold(0u64, |value, b| value * 10 + u64::from(b - b'0'));
    (value <= i64::MAX as u64).then_some(value)
}

/// `[-]seconds[.fraction]`, more than nine digits of fraction cut off.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|&b| b == b'.');
    let (whole, fraction) = dot.map_or((value, &b""[..]), |dot| (&value[..dot], &value[dot + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digit = |i: usize| u32::from(fraction.get(i).map_or(0, |b| b - b'0'));
    let nanos = (0..9).fold(0, |value, i| value * 10 + digit(i));
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// `offset,length,offset,length…`
fn map(value: &[u8]) -> Option<Vec<Segment>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Vec<u64> = value.split(|&b| b == b',').map(decimal).collect::<Option<_>>()?;
    let (pairs, odd) = numbers.as_chunks::<2>();
    odd.is_empty().then(|| pairs.iter().map(|&[offset, length]| Segment { offset, length }).collect())
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut nibble = || rest.next().and_then(|&b| char::from(b).to_digit(16));
        let (high, low) = (nibble()?, nibble()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(out)
}

/// RFC 4648, with or without padding; libarchive writes none.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = text.len() - text.iter().rev().take_while(|&&b| b == b'=').count();
    let mut out = Vec::with_capacity(unpadded * 3 / 4);
    for group in text[..unpadded].chunks(4) {
        let mut bits = 0u32;
        for &byte in group {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(digit);
        }
        let bytes = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{Records, base64_decode, check_global, time};

    #[test]
    fn times_keep_their_nanoseconds_on_both_sides_of_1970() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        for wrong in [&b""[..], b"-", b".5", b"1.x", b"--1", b"1e9", b"99999999999999999999"] {
            assert_eq!(time(wrong), None);
        }
    }

    #[test]
    fn a_record_must_be_as_long_as_it_says() {
        assert_eq!(Records::parse(b"11 size=10\n").unwrap().size, Some(10));
        let wrong = [
            &b"12 size=10\n"[..],
            b"10 size=10\n",
            b"size=10\n",
            b"0 \n",
            b"99999999999999999999 a=b\n",
            b"8 =value\n",
            b"5 a=b",
        ];
        for record in wrong {
            assert!(Records::parse(record).is_err(), "{}", record.escape_ascii());
        }
    }

    #[test]
    fn libarchive_spells_attributes_in_base64() {
        assert_eq!(base64_decode(b"aGVsbG8").unwrap(), b"hello");
        assert_eq!(base64_decode(b"aGVsbG8=").unwrap(), b"hello");
        assert_eq!(base64_decode(b"").unwrap(), b"");
        assert_eq!(base64_decode(b"a"), None);
        assert_eq!(base64_decode(b"a!=="), None);
    }

    #[test]
    fn a_global_header_may_comment_but_not_rename() {
        assert!(check_global(b"17 comment=hello\n").is_ok());
        assert!(check_global(b"13 path=/etc\n").is_err());
    }
}
