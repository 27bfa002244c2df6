//! The identity of a sandbox or container: 64 hexadecimal digits, as Docker's.
//!
//! The short form is the first twelve digits. They are never all decimal digits, so that a short id can always be
//! told from a number (a host name of digits alone is read as an address by some programs).

use std::fmt;
use std::str::FromStr;

use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};

const DIGITS: usize = 64;
const SHORT_DIGITS: usize = 12;

/// 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// Why a text is not an id, or why none could be made.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// The text has another length or other characters.
    #[error("invalid id {0:?}: an id is 64 lower-case hexadecimal digits")]
    Malformed(String),
    /// The operating system gave no random bytes (getrandom(2)).
    #[error("making an id: no random bytes from the operating system: {0}")]
    Random(String),
}

impl Id {
    /// A new id from the random source of the operating system.
    pub fn random() -> Result<Self, IdError> {
        loop {
            let mut bytes = [0_u8; DIGITS / 2];
            SysRng.try_fill_bytes(&mut bytes).map_err(|error| IdError::Random(error.to_string()))?;
            let id = Self(hex::encode(bytes));
            if !id.short().bytes().all(|byte| byte.is_ascii_digit()) {
                return Ok(id);
            }
        }
    }

    /// The first twelve digits, as tables show them.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_DIGITS]
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let valid = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !valid {
            return Err(IdError::Malformed(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Id {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_well_formed_and_differ() {
        let first = Id::random().unwrap();
        let second = Id::random().unwrap();
        assert_ne!(first, second);
        assert_eq!(first.as_str().parse::<Id>().unwrap(), first);
        assert_eq!(first.short().len(), 12);
        assert!(first.as_str().starts_with(first.short()));
    }

    #[test]
    fn other_lengths_and_characters_are_refused() {
        for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(63), &"a".repeat(65), &"é".repeat(32)] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_travel_as_plain_strings() {
        let id = Id::random().unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<Id>(&json).unwrap(), id);
        assert!(serde_json::from_str::<Id>("\"xyz\"").is_err());
    }
}
