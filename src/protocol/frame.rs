//! Frames: a 32-bit little-endian length and a postcard message.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Longest message in bytes. Output never travels in messages, so that this is ample.
pub const MAX_FRAME: usize = 1 << 20;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed or ended in the middle of a message.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The length is beyond [`MAX_FRAME`].
    #[error("a message of {0} bytes, more than the {MAX_FRAME} allowed")]
    TooLong(usize),
    /// The bytes are not a message of this version.
    #[error("a message that is not understood: {0}")]
    Malformed(postcard::Error),
}

/// Reads one message; `None` at the end of the connection.
pub fn read_frame<T: DeserializeOwned>(input: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut length = [0u8; 4];
    if !fill_or_end(input, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut body = vec![0u8; length];
    input.read_exact(&mut body)?;
    parse(&body).map(Some)
}

/// Fills `buffer`; `false` when the input ends before its first byte.
fn fill_or_end(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Messages out of bytes that arrive in any portions, for a reader that must not wait.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// How many bytes wait for the rest of their message.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The next whole message, if there is one.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(prefix) = self.pending.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = self.pending.get(4..4 + length) else { return Ok(None) };
        let message = parse(body)?;
        self.pending.drain(..4 + length);
        Ok(Some(message))
    }

    /// Bytes behind the messages that were taken, for a connection that goes on as a raw stream.
    pub fn into_rest(self) -> Vec<u8> {
        self.pending
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(FrameError::Malformed(error)),
    }
}

/// Writes one message.
pub fn write_frame<T: Serialize>(output: &mut impl Write, message: &T) -> Result<(), FrameError> {
    let mut frame = postcard::to_extend(message, vec![0u8; 4]).map_err(FrameError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    output.write_all(&frame)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &("word", 7u32)).unwrap();
        write_frame(&mut wire, &("next", 8u32)).unwrap();
        let mut input = wire.as_slice();
        assert_eq!(read_frame::<(String, u32)>(&mut input).unwrap(), Some(("word".into(), 7)));
        assert_eq!(read_frame::<(String, u32)>(&mut input).unwrap(), Some(("next".into(), 8)));
        assert_eq!(read_frame::<(String, u32)>(&mut input).unwrap(), None);
    }

    #[test]
    fn messages_may_arrive_byte_by_byte() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &"word").unwrap();
        write_frame(&mut wire, &"next").unwrap();
        wire.extend_from_slice(b"rest");
        let mut decoder = Decoder::default();
        let mut words: Vec<String> = Vec::new();
        for byte in wire {
            decoder.push(&[byte]);
            // What follows the second message is no message any more.
            if words.len() < 2 {
                words.extend(decoder.next_message::<String>().unwrap());
            }
        }
        assert_eq!(words, ["word", "next"]);
        assert_eq!(decoder.into_rest(), b"rest");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        let wire = u32::MAX.to_le_bytes();
        assert!(matches!(read_frame::<u8>(&mut wire.as_slice()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn cut_and_padded_messages_are_refused() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &"word").unwrap();
        assert!(matches!(read_frame::<String>(&mut &wire[..wire.len() - 1]), Err(FrameError::Io(_))));
        assert!(matches!(read_frame::<String>(&mut &wire[..2]), Err(FrameError::Io(_))));
        let mut padded = wire.clone();
        padded.push(0);
        padded[0] += 1;
        assert!(matches!(read_frame::<String>(&mut padded.as_slice()), Err(FrameError::Malformed(_))));
    }
}
