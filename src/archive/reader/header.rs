//! One 512-byte header block: where its fields are and how numbers stand in them.

use super::BLOCK;

/// Which family of header this is; they differ in where the name continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block.
pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

impl<'a> Header<'a> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// The sum of all bytes with the sum's own field as spaces; some old writers summed signed bytes.
    pub(super) fn checksum_holds(&self) -> bool {
        let Ok(stated) = octal(&self.0[148..156]) else {
            return false;
        };
        let spaces = 8 * i64::from(b' ');
        let outside = || self.0[..148].iter().chain(&self.0[156..]);
        let unsigned: i64 = outside().map(|&b| i64::from(b)).sum::<i64>() + spaces;
        let signed: i64 = outside().map(|&b| i64::from(b as i8)).sum::<i64>() + spaces;
        i64::try_from(stated).is_ok_and(|s| s == unsigned || s == signed)
    }

    pub(super) fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar\x0000" if &self.0[508..512] == b"tar\0" => Format::Star,
            b"ustar\x0000" => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            _ => Format::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// The name with its prefix, where the format has one.
    pub(super) fn name(&self) -> Vec<u8> {
        let prefix: &[u8] = match self.format() {
            Format::Ustar => c_string(&self.0[345..500]),
            Format::Star => c_string(&self.0[345..476]),
            Format::V7 | Format::Gnu => &[],
        };
        let name = c_string(&self.0[..100]);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> &'a [u8] {
        c_string(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<u64, &'static str> {
        unsigned(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Result<u64, &'static str> {
        unsigned(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<u64, &'static str> {
        unsigned(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        unsigned(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Result<i64, &'static str> {
        number(&self.0[136..148])
    }

    /// Major and minor number; v7 has none.
    pub(super) fn device(&self) -> Result<(u64, u64), &'static str> {
        match self.format() {
            Format::V7 => Err("device without numbers (v7 tar)"),
            _ => Ok((unsigned(&self.0[329..337])?, unsigned(&self.0[337..345])?)),
        }
    }

    /// Old GNU sparse: the file's size with its holes.
    pub(super) fn real_size(&self) -> Result<u64, &'static str> {
        unsigned(&self.0[483..495])
    }

    /// Old GNU sparse: the four segments of the header, and whether a block of more follows.
    pub(super) fn sparse_slots(&self) -> (&'a [u8], bool) {
        (&self.0[386..482], self.0[482] != 0)
    }
}

/// Old GNU sparse: the 21 segments of a continuation block, and whether another one follows.
pub(super) fn continuation_slots(block: &[u8; BLOCK]) -> (&[u8], bool) {
    (&block[..504], block[504] != 0)
}

pub(super) fn c_string(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number that cannot be negative.
pub(super) fn unsigned(field: &[u8]) -> Result<u64, &'static str> {
    u64::try_from(number(field)?).map_err(|_| "negative number")
}

/// Octal text, or GNU's base 256: big-endian two's complement whose top bit is a mark.
fn number(field: &[u8]) -> Result<i64, &'static str> {
    let first = field[0];
    if first & 0x80 == 0 {
        return i64::try_from(octal(field)?).map_err(|_| "number too large");
    }
    let negative = first & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    for (i, &byte) in field.iter().enumerate() {
        let byte = match (i, negative) {
            (0, true) => byte | 0x80,
            (0, false) => byte & 0x7f,
            _ => byte,
        };
        let shifted = value.checked_mul(256).ok_or("number too large")?;
        value = shifted | i64::from(byte);
    }
    Ok(value)
}

fn octal(field: &[u8]) -> Result<u64, &'static str> {
    let start = field.iter().position(|&b| b != b' ' && b != 0).unwrap_or(field.len());
    let digits = c_string(&field[start..]).trim_ascii_end();
    if digits.len() > 21 || !digits.iter().all(|b| (b'0'..=b'7').contains(b)) {
        return Err("number that is neither octal nor base 256");
    }
    Ok(digits.iter().fold(0, |value, b| value * 8 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::{number, octal};

    #[test]
    fn numbers_are_read_in_all_their_spellings() {
        assert_eq!(octal(b"0000644\0"), Ok(0o644));
        assert_eq!(octal(b"   644 \0"), Ok(0o644));
        assert_eq!(octal(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(octal(b"77777777777\0"), Ok(0o77_777_777_777));
        assert!(octal(b"0000648\0").is_err());
        assert!(octal(b"-000644\0").is_err());
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Ok(0x2_0000_0000));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]), Ok(i64::MAX));
        assert!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
