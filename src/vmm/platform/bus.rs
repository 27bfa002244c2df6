//! Who answers at which address and port. What nobody answers reads as ones, as on a PC without that card.

use std::sync::{Arc, Mutex, PoisonError};

use crate::layout;
use crate::platform::serial::Serial;
use crate::virtio::{Transport, mmio};

/// The guest has ended its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By the keyboard controller's reset line: what `reboot=k` does.
    Reset,
    /// By our port, with a status.
    PowerOff(u8),
}

/// Output register full (there is never input), as the keyboard controller's status: nothing to read, ready to be written.
const KEYBOARD_IDLE: u8 = 0;
const KEYBOARD_RESET: u8 = 0xfe;

/// Addresses and ports of a machine. Shared by all vCPUs.
pub struct Bus {
    serial: Option<Mutex<Serial>>,
    devices: Vec<Arc<Transport>>,
    /// How many devices the guest was told of.
    addresses: usize,
}

impl Bus {
    /// With the devices in the order of their addresses, and places for so many in all.
    #[must_use]
    pub fn new(serial: Option<Serial>, devices: Vec<Arc<Transport>>, addresses: usize) -> Self {
        Self { serial: serial.map(Mutex::new), devices, addresses }
    }

    /// The devices, in the order of their addresses.
    #[must_use]
    pub fn devices(&self) -> &[Arc<Transport>] {
        &self.devices
    }

    /// The guest reads memory that is not there.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        match place(address) {
            Some((index, offset)) if index < self.devices.len() => self.devices[index].read(offset, data),
            Some((index, offset)) if index < self.addresses => mmio::read_vacant(offset, data),
            _ => data.fill(0xff),
        }
    }

    /// The guest writes memory that is not there.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) =
            place(address).and_then(|(index, offset)| Some((self.devices.get(index)?, offset)))
        {
            device.write(offset, data);
        }
    }

    /// The guest reads a port.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port == layout::KEYBOARD_COMMAND {
            data.fill(KEYBOARD_IDLE);
        } else if let (true, Some(serial)) = (layout::SERIAL_PORTS.contains(&port), &self.serial) {
            let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
            data.fill_with(|| serial.read(port - layout::SERIAL_PORTS.start()));
        }
    }

    /// The guest writes a port. Some writes end the machine.
    #[must_use]
    pub fn write_port(&self, port: u16, data: &[u8]) -> Option<End> {
        match (port, data.first()) {
            (layout::KEYBOARD_COMMAND, Some(&KEYBOARD_RESET)) => return Some(End::Reset),
            (layout::POWER, Some(status)) => return Some(End::PowerOff(*status)),
            _ => {}
        }
        if let (true, Some(serial)) = (layout::SERIAL_PORTS.contains(&port), &self.serial) {
            let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
            data.iter().for_each(|byte| serial.write(port - layout::SERIAL_PORTS.start(), *byte));
        }
        None
    }
}

/// Index of a device and offset in its registers.
fn place(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(layout::DEVICES)?;
    Some((usize::try_from(offset / layout::DEVICE_SIZE).ok()?, offset % layout::DEVICE_SIZE))
}

#[cfg(test)]
mod tests {
    use super::{Bus, End};

    #[test]
    fn what_is_not_there_reads_as_ones_and_swallows_writes() {
        let bus = Bus::new(None, Vec::new(), 1);
        let mut data = [0; 4];
        bus.read_memory(0xc000_1000, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.read_memory(0xc000_0000, &mut data);
        assert_eq!(data, *b"virt", "a place without a device");
        bus.read_memory(0xc000_0008, &mut data);
        assert_eq!(data, [0; 4], "which has no kind");
        bus.read_memory(0, &mut data[..1]);
        bus.write_memory(u64::MAX, &data);
        data = [0; 4];
        bus.read_port(0xcfc, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(bus.write_port(0x3f8, b"x"), None);
    }

    #[test]
    fn two_ports_end_the_machine() {
        let bus = Bus::new(None, Vec::new(), 1);
        assert_eq!(bus.write_port(0x64, &[0xfe]), Some(End::Reset));
        assert_eq!(bus.write_port(0x64, &[0xd1]), None);
        assert_eq!(bus.write_port(0x600, &[7]), Some(End::PowerOff(7)));
    }
}
