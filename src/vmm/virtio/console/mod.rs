//! virtio-console with one port: what the guest's kernel and its first programs say, and, if wanted, what is said to them
//! (virtio specification 1.3, section 5.3).
//!
//! Linux writes to such a console with interrupts off and waits for each write. So the device never makes it wait for a
//! reader of ours: what cannot be passed on at once is kept, up to [`KEPT_BYTES`], and what is more is dropped, with a line
//! in its place that says how much. Input is read only when the guest has room for it, and not waited for otherwise.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::virtio::chain::{Again, Chain, RING_FEATURES, Turn, serve};
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};

/// Output kept while it cannot be passed on, in bytes.
pub const KEPT_BYTES: usize = 64 << 10;
/// Most bytes of one request that are looked at; the rest counts as dropped. Linux sends a page at most.
const MOST_BYTES: usize = 1 << 20;

const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
const QUEUE_SIZES: [u16; 2] = [64; 2];
const AGAIN: u64 = 0;
const INPUT: u64 = 1;
const OUTPUT: u64 = 2;

/// What a console is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleConfig {
    /// Name of the device's thread, at most 15 bytes.
    pub name: String,
}

/// The device.
#[derive(Debug)]
pub struct Console {
    config: ConsoleConfig,
    again: Again,
    input: Option<File>,
    input_watched: bool,
    output: Output,
    output_watched: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    kept: VecDeque<u8>,
    dropped: u64,
}

impl Console {
    /// A console that writes to `output` and reads from `input`, if there is one. Both are made non-blocking, which concerns
    /// everyone who shares the open file: they should be ours alone. The end of either is not an error.
    ///
    /// # Errors
    /// The kernel refuses an eventfd, or to make a file non-blocking.
    pub fn new(config: ConsoleConfig, output: File, input: Option<File>) -> Result<Self, DeviceError> {
        for file in [Some(&output), input.as_ref()].into_iter().flatten() {
            let flags = fcntl(file, FcntlArg::F_GETFL).map_err(DeviceError::host("ask for a console's flags"))?;
            let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
            fcntl(file, FcntlArg::F_SETFL(flags)).map_err(DeviceError::host("make a console non-blocking"))?;
        }
        Ok(Self {
            config,
            again: Again::new()?,
            input,
            input_watched: false,
            output: Output { file: Some(output), kept: VecDeque::new(), dropped: 0 },
            output_watched: false,
        })
    }

    fn turn(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.feed(io)?;
        serve(io, FROM_GUEST, &self.again, |chain| self.output.take(chain))?;
        self.pass_on(io)
    }

    fn feed(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        let Some(input) = &self.input else { return Ok(()) };
        let (mut starved, mut ended) = (false, false);
        serve(io, TO_GUEST, &self.again, |chain| {
            let mut bytes = [0; 4096];
            let room = chain.writer.left().min(bytes.len());
            if room == 0 {
                return Ok(Turn::Done);
            }
            match (&*input).read(&mut bytes[..room]) {
                Ok(0) => ended = true,
                Ok(count) => {
                    chain.writer.write_all(&bytes[..count])?;
                    return Ok(Turn::Done);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => starved = true,
                // A terminal whose other side is closed says EIO.
                Err(_) => ended = true,
            }
            Ok(Turn::Later)
        })?;
        // Watched only while the guest has room: it would be reported again and again.
        let watch = starved && !ended;
        if watch != self.input_watched {
            if watch { io.watch(input.as_fd(), INPUT, Interest::READ) } else { io.unwatch(input.as_fd()) }?;
            self.input_watched = watch;
        }
        if ended {
            self.input = None;
        }
        Ok(())
    }

    fn pass_on(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        let mut passed = self.output.pass_on();
        if passed.is_ok() && self.output.kept.is_empty() {
            self.output.say_what_was_dropped();
            passed = self.output.pass_on();
        }
        let gone = passed.is_err();
        let Some(file) = &self.output.file else { return Ok(()) };
        let watch = !gone && !self.output.kept.is_empty();
        if watch != self.output_watched {
            if watch { io.watch(file.as_fd(), OUTPUT, Interest::WRITE) } else { io.unwatch(file.as_fd()) }?;
            self.output_watched = watch;
        }
        if gone {
            self.output.close();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Output {
    file: Option<File>,
    kept: VecDeque<u8>,
    /// Bytes dropped since the last line that said so.
    dropped: u64,
}

impl Output {
    /// Takes what the guest says.
    fn take(&mut self, chain: &mut Chain<'_>) -> Result<Turn, DeviceError> {
        if chain.writer.left() > 0 {
            return Err(DeviceError::Driver("output on the console has room for an answer".into()));
        }
        let mut bytes = [0; 4096];
        let mut left = chain.reader.left().min(MOST_BYTES);
        let rest = chain.reader.left() - left;
        while left > 0 {
            let most = left.min(bytes.len());
            let count = chain.reader.read_some(&mut bytes[..most]);
            self.keep(&bytes[..count]);
            left -= count;
        }
        self.drop_bytes(rest);
        Ok(Turn::Done)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.file.is_none() {
            return;
        }
        if self.kept.len() + bytes.len() > KEPT_BYTES {
            // Whether it succeeds shows in the room there is; an output that has failed is closed after the turn.
            let _ = self.pass_on();
        }
        self.say_what_was_dropped();
        let room = KEPT_BYTES.saturating_sub(self.kept.len()).min(bytes.len());
        // Between two losses nothing is kept that the line about the first cannot come before.
        let room = if self.dropped > 0 { 0 } else { room };
        self.kept.extend(&bytes[..room]);
        self.drop_bytes(bytes.len() - room);
    }

    fn drop_bytes(&mut self, count: usize) {
        self.dropped = self.dropped.saturating_add(count as u64);
    }

    fn say_what_was_dropped(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let line = format!("\r\n[{} bytes of output were dropped]\r\n", self.dropped);
        if self.kept.len() + line.len() <= KEPT_BYTES {
            self.kept.extend(line.as_bytes());
            self.dropped = 0;
        }
    }

    /// Passes on what is kept, as far as the reader takes it now.
    ///
    /// # Errors
    /// The reader is gone.
    fn pass_on(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        while !self.kept.is_empty() {
            match file.write(self.kept.as_slices().0) {
                Ok(0) => break,
                Ok(count) => drop(self.kept.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        self.file = None;
        self.kept = VecDeque::new();
    }
}

impl Drop for Output {
    /// The machine's last words. What the reader does not take now is lost.
    fn drop(&mut self) {
        self.say_what_was_dropped();
        let _ = self.pass_on();
    }
}

impl Device for Console {
    fn kind(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        // Size, ports and the register for emergencies each need a feature that is not offered.
        data.fill(0);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.again.watch(io, AGAIN)
    }

    fn queue_ready(&mut self, _queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        self.turn(io)
    }

    fn source_ready(&mut self, token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        if token == AGAIN {
            self.again.hear();
        }
        self.turn(io)
    }

    fn reset(&mut self) {
        // What the guest has said before stays said: a kernel that panics and reboots has its reason in there.
        self.input_watched = false;
        self.output_watched = false;
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        let state = State { kept: self.output.kept.clone(), dropped: self.output.dropped };
        postcard::to_stdvec(&state).map_err(|error| DeviceError::State(error.to_string()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let State { kept, dropped } =
            postcard::from_bytes(state).map_err(|error| DeviceError::State(error.to_string()))?;
        if kept.len() > KEPT_BYTES {
            return Err(DeviceError::State(format!("{} bytes of output, {KEPT_BYTES} are kept", kept.len())));
        }
        self.output.kept = kept;
        self.output.dropped = dropped;
        Ok(())
    }
}
