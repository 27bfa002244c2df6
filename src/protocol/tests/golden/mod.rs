//! The bytes of every message, as they are written down beside this file: a change of the format is seen, and is a new
//! [`VERSION`](sbx_protocol::VERSION).
//!
//! After such a change `SBX_WRITE_GOLDEN=1 cargo test -p sbx-protocol` writes them anew.

use std::fmt::{Debug, Write};
use std::path::PathBuf;

use sbx_protocol::{Decoder, read_frame, write_frame};
use serde::{Serialize, de::DeserializeOwned};

use crate::samples;

const WRITE: &str = "SBX_WRITE_GOLDEN";
/// Bytes on one line.
const WIDTH: usize = 32;

fn check<T>(file: &str, samples: &[(&str, T)])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut text = String::new();
    for (name, message) in samples {
        let mut wire = Vec::new();
        write_frame(&mut wire, message).unwrap();
        assert_eq!(read_frame::<T>(&mut wire.as_slice()).unwrap().as_ref(), Some(message), "{name}");
        let mut decoder = Decoder::default();
        decoder.push(&wire);
        assert_eq!(decoder.next_message::<T>().unwrap().as_ref(), Some(message), "{name}");
        writeln!(text, "{name}").unwrap();
        for line in wire.chunks(WIDTH) {
            let bytes: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "    {bytes}").unwrap();
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (ours, theirs) in text.lines().zip(expected.lines()) {
        assert_eq!(ours, theirs, "{file}: the format has changed: raise VERSION, then {WRITE}=1 writes the file anew");
    }
    assert_eq!(text.len(), expected.len(), "{file}: messages have come or gone: {WRITE}=1 writes the file anew");
}

#[test]
fn greetings_have_the_bytes_that_are_written_down() {
    check("hello.txt", &samples::hellos());
}

#[test]
fn requests_have_the_bytes_that_are_written_down() {
    check("request.txt", &samples::requests());
}

#[test]
fn replies_have_the_bytes_that_are_written_down() {
    check("reply.txt", &samples::replies());
}
