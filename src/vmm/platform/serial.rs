//! A serial port (8250 family, PC16550D data sheet), output only: the guest's first words, before it has better.
//!
//! Every byte is an exit of its vCPU, so this is nothing to send data by. How much is kept is bounded: a guest that never
//! stops talking fills nobody's disk.

use std::io::Write;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

/// Registers, by their offset. The first two are the divisor where `DLAB` is set.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_IDENTITY: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

const DIVISOR_LATCH: u8 = 0x80;
const TRANSMITTER_EMPTY_ENABLED: u8 = 0x02;
const NO_INTERRUPT: u8 = 0x01;
const TRANSMITTER_EMPTY: u8 = 0x02;
const FIFOS: u8 = 0xc0;
const LOOP: u8 = 0x10;
/// Holding register and shift register are empty.
const LINE_IDLE: u8 = 0x60;
/// Carrier, data set ready, clear to send.
const MODEM_READY: u8 = 0xb0;

/// A serial port without input.
pub struct Serial {
    out: Box<dyn Write + Send>,
    left: u64,
    line: EventFd,
    state: SerialState,
}

/// What a guest's driver has made of a serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    enabled: u8,
    empty_pending: bool,
    fifos: bool,
    control: u8,
    modem: u8,
    scratch: u8,
    divisor: [u8; 2],
}

impl Serial {
    /// Writes the first `limit` bytes to `out` and drops the rest; raises its interrupt through `line`.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, limit: u64, line: EventFd) -> Self {
        let state = SerialState {
            enabled: 0,
            empty_pending: false,
            fifos: false,
            control: 0,
            modem: 0,
            scratch: 0,
            divisor: [12, 0],
        };
        Self { out, left: limit, line, state }
    }

    /// The state of the registers.
    #[must_use]
    pub fn save(&self) -> SerialState {
        self.state.clone()
    }

    /// Takes the state of one that was saved. A driver in the middle of a line waits for its interrupt, which may have been under way:
    /// one too many does no harm.
    pub fn restore(&mut self, state: SerialState) {
        self.state = state;
        self.announce_empty();
    }

    /// The guest reads a register.
    pub fn read(&mut self, register: u16) -> u8 {
        let latch = self.state.control & DIVISOR_LATCH != 0;
        match register {
            DATA | INTERRUPT_ENABLE if latch => self.state.divisor[usize::from(register)],
            DATA => 0,
            INTERRUPT_ENABLE => self.state.enabled,
            INTERRUPT_IDENTITY => self.identity(),
            LINE_CONTROL => self.state.control,
            MODEM_CONTROL => self.state.modem,
            LINE_STATUS => LINE_IDLE,
            // In loop mode the outputs come back as inputs: DTR as DSR, RTS as CTS, OUT1 as RI, OUT2 as CD.
            MODEM_STATUS if self.state.modem & LOOP != 0 => {
                let bit = |from: u8, to: u8| (self.state.modem >> from & 1) << to;
                bit(0, 5) | bit(1, 4) | bit(2, 6) | bit(3, 7)
            }
            MODEM_STATUS => MODEM_READY,
            SCRATCH => self.state.scratch,
            _ => 0xff,
        }
    }

    /// Reading why it interrupted takes the reason back.
    fn identity(&mut self) -> u8 {
        let fifos = if self.state.fifos { FIFOS } else { 0 };
        let reason = if self.state.empty_pending { TRANSMITTER_EMPTY } else { NO_INTERRUPT };
        self.state.empty_pending = false;
        fifos | reason
    }

    /// The guest writes a register.
    pub fn write(&mut self, register: u16, value: u8) {
        let latch = self.state.control & DIVISOR_LATCH != 0;
        match register {
            DATA | INTERRUPT_ENABLE if latch => self.state.divisor[usize::from(register)] = value,
            DATA => self.send(value),
            INTERRUPT_ENABLE => {
                let newly = !self.state.enabled & value & TRANSMITTER_EMPTY_ENABLED != 0;
                self.state.enabled = value & 0x0f;
                if newly {
                    self.announce_empty();
                }
            }
            INTERRUPT_IDENTITY => self.state.fifos = value & 1 != 0,
            LINE_CONTROL => self.state.control = value,
            MODEM_CONTROL => self.state.modem = value & 0x1f,
            SCRATCH => self.state.scratch = value,
            _ => {}
        }
    }

    fn send(&mut self, byte: u8) {
        if self.state.modem & LOOP == 0 && self.left > 0 {
            self.left -= 1;
            // Nobody may be listening any more; the guest cannot be told and must not be stopped by it.
            let written = self.out.write_all(&[byte]);
            if written.is_err() {
                self.left = 0;
            }
        }
        self.announce_empty();
    }

    fn announce_empty(&mut self) {
        if self.state.enabled & TRANSMITTER_EMPTY_ENABLED != 0 {
            self.state.empty_pending = true;
            // An eventfd's write only fails where 2^64 - 2 edges are pending, and then one more changes nothing.
            let _pending = self.line.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::Serial;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn serial(limit: u64) -> (Serial, Kept, EventFd) {
        let (kept, line) = (Kept::default(), EventFd::new(EFD_NONBLOCK).unwrap());
        (Serial::new(Box::new(kept.clone()), limit, line.try_clone().unwrap()), kept, line)
    }

    #[test]
    fn output_is_kept_up_to_the_limit() {
        let (mut serial, kept, _) = serial(3);
        b"hello".iter().for_each(|byte| serial.write(0, *byte));
        assert_eq!(*kept.0.lock().unwrap(), b"hel");
    }

    #[test]
    fn an_interrupt_tells_that_the_transmitter_is_empty_until_its_reason_is_read() {
        let (mut serial, _, line) = serial(9);
        serial.write(0, b'x');
        assert!(line.read().is_err(), "nobody has asked for an interrupt");
        serial.write(1, 2);
        assert_eq!(line.read().unwrap(), 1);
        assert_eq!(serial.read(2), 2);
        assert_eq!(serial.read(2), 1);
        serial.write(0, b'y');
        assert_eq!(line.read().unwrap(), 1);
    }

    #[test]
    fn a_driver_in_the_middle_of_a_line_goes_on_after_a_restore() {
        let (mut before, ..) = serial(9);
        before.write(3, 3);
        before.write(1, 2);
        before.write(0, b'x');
        let (mut after, kept, line) = serial(9);
        after.restore(before.save());
        assert_eq!(line.read().unwrap(), 1, "it is asked for more");
        assert_eq!((after.read(1), after.read(2), after.read(3)), (2, 2, 3));
        after.write(0, b'y');
        assert_eq!((line.read().unwrap(), kept.0.lock().unwrap().as_slice()), (1, &b"y"[..]));
        // One that has asked for nothing is told nothing.
        let (mut silent, _, line) = serial(9);
        silent.restore(serial(9).0.save());
        assert!(line.read().is_err());
    }

    #[test]
    fn the_divisor_and_the_loop_do_not_reach_the_line() {
        let (mut serial, kept, _) = serial(9);
        serial.write(3, 0x80);
        serial.write(0, 1);
        assert_eq!(serial.read(0), 1);
        serial.write(3, 3);
        serial.write(4, 0x1a);
        serial.write(0, b'x');
        assert_eq!(serial.read(6), 0x90, "RTS and OUT2 come back as CTS and CD");
        assert!(kept.0.lock().unwrap().is_empty());
    }
}
