//! The key sequence that leaves an attached container running (`ctrl-p,ctrl-q`), found in what the user types.
//!
//! ```text
//!   state = number of keys of the sequence that were typed
//!   next key fits          → state + 1; at the end: detached, nothing of the sequence is passed on
//!   next key does not fit  → what was held back is passed on, then the key; state 0 (or 1 if it is the first key)
//! ```

/// A sequence of keys, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// ctrl-p, ctrl-q.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl DetachKeys {
    /// Reads `a`, `ctrl-a`, `ctrl-@`, `ctrl-[`, … with commas between.
    ///
    /// # Errors
    /// A key that is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys = text.split(',').map(|key| parse_key(key).ok_or_else(|| unknown(key)));
        keys.collect::<Result<Vec<u8>, String>>().map(Self)
    }
}

fn unknown(key: &str) -> String {
    format!("invalid detach keys: Unknown character: '{key}'")
}

fn parse_key(key: &str) -> Option<u8> {
    match key.as_bytes() {
        [letter] => Some(*letter),
        [b'c', b't', b'r', b'l', b'-', letter] => match letter.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        },
        b"DEL" => Some(127),
        _ => None,
    }
}

/// What to do with typed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// To the container.
    pub forward: Vec<u8>,
    /// The sequence is complete; nothing after it counts.
    pub detach: bool,
}

/// Finds a sequence in a stream of bytes.
#[derive(Clone, Debug)]
pub struct DetachMatcher {
    keys: DetachKeys,
    matched: usize,
}

impl DetachMatcher {
    /// Nothing was typed.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes what was typed.
    pub fn push(&mut self, typed: &[u8]) -> Typed {
        let keys = &self.keys.0;
        let mut forward = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.matched > 0 && *byte != keys[self.matched] {
                forward.extend_from_slice(&keys[..self.matched]);
                self.matched = 0;
            }
            if *byte != keys[self.matched] {
                forward.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == keys.len() {
                self.matched = 0;
                return Typed { forward, detach: true };
            }
        }
        Typed { forward, detach: false }
    }

    /// What is held back when the input ends.
    pub fn finish(self) -> Vec<u8> {
        self.keys.0[..self.matched].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher() -> DetachMatcher {
        DetachMatcher::new(DetachKeys::parse("ctrl-p,ctrl-q").unwrap())
    }

    #[test]
    fn a_sequence_across_reads_detaches() {
        let mut keys = matcher();
        assert_eq!(keys.push(b"ls\x10"), Typed { forward: b"ls".to_vec(), detach: false });
        assert_eq!(keys.push(b"\x11rest"), Typed { forward: vec![], detach: true });
    }

    #[test]
    fn a_partial_sequence_passes_through() {
        let mut keys = matcher();
        assert_eq!(keys.push(b"\x10a\x10\x10b").forward, b"\x10a\x10\x10b");
        assert_eq!(keys.push(b"\x10").forward, b"");
        assert_eq!(keys.finish(), b"\x10");
    }

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        assert_eq!(DetachKeys::parse("a,ctrl-A,ctrl-@,ctrl-[").unwrap().0, [b'a', 1, 0, 27]);
        for text in ["", "abc", "ctrl-", "ctrl-1", "ctrl-é", "a,,b"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}
