//! Who answers at which address and port. What nobody answers reads as ones, as on a PC without that card.
//!
//! Devices that the machine was built with stand for as long as it does; behind them are places where others come and go.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::layout;
use crate::platform::serial::{Serial, SerialState};
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
    /// Further places that the guest was told of. Only one thread puts devices there and takes them away.
    places: Vec<RwLock<Option<Arc<Transport>>>>,
}

impl Bus {
    /// With the devices in the order of their addresses, and places for so many in all.
    #[must_use]
    pub fn new(serial: Option<Serial>, devices: Vec<Arc<Transport>>, addresses: usize) -> Self {
        let places = (devices.len()..addresses).map(|_| RwLock::default()).collect();
        Self { serial: serial.map(Mutex::new), devices, places }
    }

    /// The state of the serial port, if there is one.
    #[must_use]
    pub fn save_serial(&self) -> Option<SerialState> {
        self.serial.as_ref().map(|serial| serial.lock().unwrap_or_else(PoisonError::into_inner).save())
    }

    /// The first place where a device can be put, by its address.
    #[must_use]
    pub fn free(&self) -> Option<usize> {
        let is_free = |place: &RwLock<Option<_>>| place.read().unwrap_or_else(PoisonError::into_inner).is_none();
        self.places.iter().position(is_free).map(|place| self.devices.len() + place)
    }

    /// Puts a device at a free place.
    pub fn put(&self, index: usize, device: Arc<Transport>) {
        if let Some(place) = self.place(index) {
            *place.write().unwrap_or_else(PoisonError::into_inner) = Some(device);
        }
    }

    /// Takes a device away, unless a driver holds it or a vCPU is just at its registers. Its place reads as vacant then. Does
    /// not wait: a driver that resets a device waits for the device.
    #[must_use]
    pub fn take(&self, index: usize) -> Option<Arc<Transport>> {
        let mut place = self.place(index)?.try_write().ok()?;
        place.take_if(|device| device.is_let_go())
    }

    /// One of the places behind the devices that stand.
    fn place(&self, index: usize) -> Option<&RwLock<Option<Arc<Transport>>>> {
        self.places.get(index.checked_sub(self.devices.len())?)
    }

    /// The devices that stand, in the order of their addresses.
    #[must_use]
    pub fn devices(&self) -> &[Arc<Transport>] {
        &self.devices
    }

    /// The guest reads memory that is not there.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        let Some((index, offset)) = place(address) else { return data.fill(0xff) };
        if let Some(device) = self.devices.get(index) {
            return device.read(offset, data);
        }
        let Some(place) = self.place(index) else { return data.fill(0xff) };
        match &*place.read().unwrap_or_else(PoisonError::into_inner) {
            Some(device) => device.read(offset, data),
            None => mmio::read_vacant(offset, data),
        }
    }

    /// The guest writes memory that is not there.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        let Some((index, offset)) = place(address) else { return };
        if let Some(device) = self.devices.get(index) {
            return device.write(offset, data);
        }
        let Some(place) = self.place(index) else { return };
        if let Some(device) = &*place.read().unwrap_or_else(PoisonError::into_inner) {
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
    use std::sync::Arc;

    use vm_memory::{GuestAddress, GuestMemoryMmap};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::{Bus, End};
    use crate::layout;
    use crate::log::Log;
    use crate::virtio::Transport;
    use crate::virtio::rng::{Rng, RngConfig};

    /// A device whose thread never runs.
    fn device() -> Arc<Transport> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let rng = Rng::new(RngConfig { name: "rng".into() }).unwrap();
        Transport::new(Box::new(rng), &memory, EventFd::new(EFD_NONBLOCK).unwrap(), &Log::new(|_| {})).unwrap().0
    }

    /// Device id and status, as the guest reads them at a place.
    fn seen(bus: &Bus, index: usize) -> [u32; 2] {
        [0x008, 0x070].map(|offset| {
            let mut data = [0; 4];
            bus.read_memory(layout::device(index) + offset, &mut data);
            u32::from_le_bytes(data)
        })
    }

    fn set_status(bus: &Bus, index: usize, status: u32) {
        bus.write_memory(layout::device(index) + 0x070, &status.to_le_bytes());
    }

    #[test]
    fn devices_come_to_the_first_free_place_and_go_when_they_were_let_go() {
        let bus = Bus::new(None, vec![device()], 3);
        assert_eq!(bus.free(), Some(1), "the device that stands has its place");
        bus.put(1, device());
        assert_eq!(bus.free(), Some(2));
        bus.put(2, device());
        assert_eq!(bus.free(), None);
        assert_eq!(seen(&bus, 2), [4, 0]);
        for status in [2, 3, 128] {
            set_status(&bus, 1, status);
            assert_eq!(seen(&bus, 1)[1] & status, status);
            assert!(bus.take(1).is_none(), "a driver holds it");
        }
        set_status(&bus, 1, 0);
        set_status(&bus, 1, 1);
        assert_eq!(seen(&bus, 1), [4, 1]);
        assert!(bus.take(1).is_some(), "it was only seen");
        assert_eq!(seen(&bus, 1), [0, 0]);
        assert!(bus.take(1).is_none(), "there is nothing");
        set_status(&bus, 1, 3);
        assert_eq!((seen(&bus, 1), bus.free()), ([0, 0], Some(1)));
        assert!(bus.take(0).is_none() && bus.take(3).is_none() && bus.take(usize::MAX).is_none());
        assert_eq!(seen(&bus, 0), [4, 0], "what stands is not taken away");
        assert_eq!(seen(&bus, 3), [u32::MAX; 2], "the guest was told of three");
    }

    #[test]
    fn nobody_waits_for_a_vcpu_that_is_at_a_device() {
        let bus = Bus::new(None, Vec::new(), 1);
        bus.put(0, device());
        let reading = bus.place(0).unwrap().read().unwrap();
        assert!(bus.take(0).is_none());
        drop(reading);
        assert!(bus.take(0).is_some());
    }

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
