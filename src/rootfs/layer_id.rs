//! The name of a layer: the SHA-256 of its uncompressed tar (OCI's DiffID), without the `sha256:`.
//!
//! It becomes a file name, so it is a type: once parsed it can hold nothing but 64 hexadecimal digits.

use std::fmt;

use crate::error::RootfsError;

const PREFIX: &str = "sha256:";

/// A layer's DiffID as 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

impl LayerId {
    /// Takes `sha256:HEX` or `HEX`.
    pub fn parse(text: &str) -> Result<Self, RootfsError> {
        let hex = text.strip_prefix(PREFIX).unwrap_or(text);
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != 64 || !digits {
            return Err(RootfsError::LayerId { text: text.chars().take(100).collect() });
        }
        Ok(Self(hex.to_owned()))
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::LayerId;

    #[test]
    fn only_sixty_four_lower_case_digits_are_a_name() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(LayerId::parse(&hex).unwrap().hex(), hex);
        assert_eq!(LayerId::parse(&format!("sha256:{hex}")).unwrap().to_string(), format!("sha256:{hex}"));
        let wrong =
            [String::new(), hex.to_uppercase(), hex[1..].to_owned(), format!("{hex}0"), format!("sha512:{hex}")];
        for text in wrong {
            assert!(LayerId::parse(&text).is_err(), "{text}");
        }
        assert!(LayerId::parse(&format!("../{}", &hex[3..])).is_err());
    }
}
