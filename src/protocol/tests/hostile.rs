//! Bytes of somebody who means harm, or whose memory is broken: whatever they are, reading them ends with a message or an
//! error, never with a panic, and never takes more memory than a whole frame could need.
//!
//! `SBX_FUZZ_ROUNDS` makes it longer. A failure names its seed, with which it happens again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sbx_protocol::{Decoder, FrameError, Hello, MAX_FRAME, Reply, Request, read_frame, write_frame};
use serde::{Serialize, de::DeserializeOwned};

use crate::counting::peak_of;
use crate::samples;

/// What a byte of a message can become at most: an empty string is one byte, and three words in memory.
const GROWTH: usize = 64;
/// What nested lists may reserve ahead, by the lengths that they claim.
const AHEAD: usize = 8 << 20;

/// A generator of the same numbers everywhere (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % limit.max(1)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

fn rounds() -> u64 {
    std::env::var("SBX_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Reads everything in `wire` by both readers, in portions, and checks that both say the same.
fn read_all<T: DeserializeOwned + Serialize>(wire: &[u8], dice: &mut Dice) {
    let (whole, peak) = peak_of(|| {
        let mut input = wire;
        let mut found = Vec::new();
        loop {
            match read_frame::<T>(&mut input) {
                Ok(Some(message)) => found.push(encoded(&message)),
                Ok(None) => break (found, true),
                Err(_) => break (found, false),
            }
        }
    });
    assert!(peak <= wire.len() * GROWTH + MAX_FRAME + AHEAD, "{peak} bytes for a message of {}", wire.len());
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    let mut rest = wire;
    let mut failed = false;
    while !rest.is_empty() && !failed {
        let (now, later) = rest.split_at(1 + dice.below(rest.len()));
        decoder.push(now);
        rest = later;
        loop {
            match decoder.next_message::<T>() {
                Ok(Some(message)) => found.push(encoded(&message)),
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
    }
    assert_eq!(found, whole.0, "both readers find the same messages");
    assert!(!failed || !whole.1, "what one reader refuses the other does not take for the end");
}

/// A message that was understood can be said again, and then means the same.
fn encoded<T: DeserializeOwned + Serialize>(message: &T) -> Vec<u8> {
    let mut wire = Vec::new();
    match write_frame(&mut wire, message) {
        Ok(()) => {}
        // A number may be written longer than it needs to be; never shorter, so only what was too long before.
        Err(FrameError::TooLong(_)) => return wire,
        Err(error) => panic!("{error}"),
    }
    let again: T = read_frame(&mut wire.as_slice()).unwrap().unwrap();
    let mut second = Vec::new();
    write_frame(&mut second, &again).unwrap();
    assert_eq!(wire, second);
    wire
}

fn read_as_everything(wire: &[u8], seed: u64) {
    let read = AssertUnwindSafe(|| {
        let mut dice = Dice(seed | 1);
        read_all::<Hello>(wire, &mut dice);
        read_all::<Request>(wire, &mut dice);
        read_all::<Reply>(wire, &mut dice);
    });
    if let Err(panic) = catch_unwind(read) {
        eprintln!("seed {seed}: {} bytes: {wire:02x?}", wire.len());
        std::panic::resume_unwind(panic);
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut wire = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    wire.extend_from_slice(body);
    wire
}

fn sample_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    frames.extend(samples::hellos().iter().map(|(_, message)| encoded(message)));
    frames.extend(samples::requests().iter().map(|(_, message)| encoded(message)));
    frames.extend(samples::replies().iter().map(|(_, message)| encoded(message)));
    frames
}

#[test]
fn random_bytes_are_read_or_refused() {
    for seed in 1..=rounds() {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let length = dice.below(300);
        let bytes = dice.bytes(length);
        read_as_everything(&bytes, seed);
        read_as_everything(&framed(&bytes), seed);
    }
}

#[test]
fn damaged_messages_are_read_or_refused() {
    let frames = sample_frames();
    for seed in 1..=rounds() {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut wire = frames[dice.below(frames.len())].clone();
        for _ in 0..=dice.below(4) {
            let place = dice.below(wire.len());
            match dice.below(5) {
                0 => wire[place] ^= 1 << dice.below(8),
                1 => wire[place] = *dice.bytes(1).first().unwrap(),
                2 => wire.truncate(place.max(1)),
                3 => {
                    let length = dice.below(20);
                    let more = dice.bytes(length);
                    wire.splice(place..place, more);
                }
                // A length or a number as large as it can be.
                _ => drop(wire.splice(place..=place, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            }
        }
        read_as_everything(&wire, seed);
        // The damage, behind a length that fits: what the types themselves make of it.
        if let Some(body) = wire.get(4..) {
            read_as_everything(&framed(body), seed);
        }
    }
}

#[test]
fn a_frame_of_the_greatest_length_takes_memory_in_proportion() {
    // Zeroes and ones are the densest lists: each byte is an element, or the length of one.
    for byte in [0, 1, 2, 0x7f, 0xff] {
        let frames = sample_frames();
        read_as_everything(&framed(&vec![byte; MAX_FRAME]), u64::from(byte));
        for frame in &frames {
            let mut body = frame[4..].to_vec();
            body.resize(MAX_FRAME, byte);
            read_as_everything(&framed(&body), u64::from(byte));
        }
    }
}

#[test]
fn a_list_that_claims_to_be_endless_reserves_nothing_ahead() {
    // `Reply::Processes` with a length of 2^63.
    let body = [7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let (result, peak) = peak_of(|| read_frame::<Reply>(&mut framed(&body).as_slice()));
    assert!(matches!(result, Err(FrameError::Malformed(_))), "{result:?}");
    assert!(peak <= 2 << 20, "{peak}");
}

#[test]
fn a_frame_longer_than_the_limit_is_refused_without_being_held() {
    let mut wire = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes().to_vec();
    wire.resize(1000, 0);
    let (result, peak) = peak_of(|| {
        let mut decoder = Decoder::default();
        decoder.push(&wire);
        decoder.next_message::<Request>()
    });
    assert!(matches!(result, Err(FrameError::TooLong(_))), "{result:?}");
    assert!(peak <= 8192, "{peak}");
    assert!(matches!(write_frame(&mut Vec::new(), &"x".repeat(MAX_FRAME)), Err(FrameError::TooLong(_))));
}
