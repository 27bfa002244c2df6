//! A driver plays by the registers; the device echoes how long the buffers are that it gets.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Transport, TransportState};
use crate::log::Log;
use crate::sys::borrow;
use crate::virtio::registers::{
    ACKNOWLEDGE, CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, DRIVER_OK, FEATURES_OK, INTERRUPT_ACK, INTERRUPT_STATUS, MAGIC, NEEDS_RESET, QUEUE_DESC_HIGH,
    QUEUE_DESC_LOW, QUEUE_DEVICE_HIGH, QUEUE_DEVICE_LOW, QUEUE_DRIVER_HIGH, QUEUE_DRIVER_LOW, QUEUE_NOTIFY, QUEUE_NUM,
    QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, STATUS, VERSION, VERSION_1,
};
use crate::virtio::{Device, DeviceError, Io};

const FEATURE: u64 = 1 << 5;

#[derive(Default)]
struct Seen {
    used: u32,
    resets: u32,
    starts: u32,
}

struct Echo {
    seen: Arc<Mutex<Seen>>,
    config: [u8; 8],
    /// What the driver has sent so far, in bytes: the state.
    total: u32,
}

impl Device for Echo {
    fn kind(&self) -> u32 {
        4
    }

    fn name(&self) -> &str {
        "echo"
    }

    fn features(&self) -> u64 {
        VERSION_1 | FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 4]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.config.get(offset as usize + index).copied().unwrap_or(0);
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let Some(place) = self.config.get_mut(offset as usize..offset as usize + data.len()) {
            place.copy_from_slice(data);
        }
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.seen.lock().unwrap().starts += 1;
        io.signal_config(self)
    }

    fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        while let Some(chain) = io.queues[queue].iter(&io.memory)?.next() {
            let head = chain.head_index();
            let length: u32 = chain.map(|descriptor| descriptor.len()).sum();
            if length == 666 {
                return Err(DeviceError::Driver("the number of the beast".into()));
            }
            assert_ne!(length, 13, "unlucky");
            self.total += length;
            self.seen.lock().unwrap().used += 1;
            io.queues[queue].add_used(&io.memory, head, length)?;
            io.signal_used(queue)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.seen.lock().unwrap().resets += 1;
        self.total = 0;
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        Ok(self.total.to_le_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let state = state.try_into().map_err(|_| DeviceError::State("not four bytes".into()))?;
        self.total = u32::from_le_bytes(state);
        Ok(())
    }
}

struct Machine {
    transport: Arc<Transport>,
    thread: Option<JoinHandle<Result<(), String>>>,
    seen: Arc<Mutex<Seen>>,
    line: EventFd,
    said: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn new(memory: &GuestMemoryMmap) -> Self {
        let (seen, said) = (Arc::default(), Arc::new(Mutex::new(Vec::new())));
        let device = Echo { seen: Arc::clone(&seen), config: *b"settings", total: 0 };
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let sink = said.clone();
        let log = Log::new(move |message: &str| sink.lock().unwrap().push(message.to_owned()));
        let (transport, worker) = Transport::new(Box::new(device), memory, line.try_clone().unwrap(), &log).unwrap();
        let thread = thread::spawn(move || worker.run());
        Self { transport, thread: Some(thread), seen, line, said }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// The same from the page that the guest reads.
    fn shown(&self, offset: u64) -> u32 {
        self.transport.interrupt().page().get(offset)
    }

    fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn agree(&self, features: u64) {
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        for (select, word) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(DRIVER_FEATURES_SEL, select);
            self.write(DRIVER_FEATURES, word);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    fn set_queue(&self, index: u32, size: u32, rings: [u64; 3]) {
        self.write(QUEUE_SEL, index);
        self.write(QUEUE_NUM, size);
        let registers = [
            (QUEUE_DESC_LOW, QUEUE_DESC_HIGH),
            (QUEUE_DRIVER_LOW, QUEUE_DRIVER_HIGH),
            (QUEUE_DEVICE_LOW, QUEUE_DEVICE_HIGH),
        ];
        for ((low, high), ring) in registers.into_iter().zip(rings) {
            self.write(low, ring as u32);
            self.write(high, (ring >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
    }

    fn go(&self) {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Waits for an interrupt with one of these reasons and acknowledges it.
    fn wait(&self, reason: u32) {
        while self.read(INTERRUPT_STATUS) & reason == 0 {
            let mut files = [PollFd::new(borrow(&self.line), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(Duration::from_secs(20)).unwrap();
            assert_ne!(
                poll(&mut files, timeout).unwrap(),
                0,
                "no interrupt came; said: {:?}",
                self.said.lock().unwrap()
            );
            self.line.read().unwrap();
        }
        self.write(INTERRUPT_ACK, reason);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _gone = self.transport.stop();
        if let Some(thread) = self.thread.take() {
            let _told = thread.join();
        }
    }
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap()
}

/// A queue at 0x1000 whose driver has made one buffer of this length available.
fn queue_with(memory: &GuestMemoryMmap, length: u32) -> [u64; 3] {
    let mock = MockSplitQueue::create(memory, GuestAddress(0x1000), 16);
    mock.build_desc_chain(&[RawDescriptor::from(Descriptor::new(0x8000, length, 0, 0))]).unwrap();
    [mock.desc_table_addr().0, mock.avail_addr().0, mock.used_addr().0]
}

fn running(memory: &GuestMemoryMmap, length: u32) -> Machine {
    let machine = Machine::new(memory);
    machine.agree(VERSION_1);
    machine.set_queue(0, 16, queue_with(memory, length));
    machine.go();
    machine.wait(2);
    machine
}

#[test]
fn a_driver_finds_what_the_device_is() {
    let machine = Machine::new(&memory());
    assert_eq!(machine.read(MAGIC).to_le_bytes(), *b"virt");
    assert_eq!((machine.read(VERSION), machine.read(0x008)), (2, 4));
    machine.write(DEVICE_FEATURES_SEL, 0);
    assert_eq!(machine.read(DEVICE_FEATURES), FEATURE as u32);
    machine.write(DEVICE_FEATURES_SEL, 1);
    assert_eq!(machine.read(DEVICE_FEATURES), 1);
    machine.write(DEVICE_FEATURES_SEL, 2);
    assert_eq!(machine.read(DEVICE_FEATURES), 0);
    for (queue, size) in [(0, 16), (1, 4), (2, 0), (u32::MAX, 0)] {
        machine.write(QUEUE_SEL, queue);
        assert_eq!(machine.read(QUEUE_NUM_MAX), size);
    }
    assert_eq!((machine.read(0x0b0), machine.read(0x0bc)), (u32::MAX, u32::MAX), "no shared memory region");
    let mut data = [0xaa; 2];
    machine.transport.read(MAGIC, &mut data);
    assert_eq!(data, [0, 0], "registers are read by four bytes");
}

#[test]
fn the_configuration_is_read_and_written_as_the_device_says() {
    let machine = Machine::new(&memory());
    let mut data = [0; 3];
    machine.transport.read(CONFIG + 6, &mut data);
    assert_eq!(&data, b"gs\0");
    machine.transport.write(CONFIG, b"S");
    machine.transport.write(u64::MAX, b"S");
    assert_eq!(machine.read(CONFIG).to_le_bytes(), *b"Sett");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for features in [0, FEATURE, VERSION_1 | 1 << 6] {
        let machine = Machine::new(&memory());
        machine.agree(features);
        assert_eq!(machine.read(STATUS), ACKNOWLEDGE | DRIVER, "{features:#x}");
        machine.go();
        assert_ne!(machine.read(STATUS) & NEEDS_RESET, 0);
        assert_eq!(machine.seen.lock().unwrap().starts, 0);
    }
}

#[test]
fn a_kick_brings_the_buffer_to_the_device_and_an_interrupt_back() {
    let memory = memory();
    let machine = running(&memory, 100);
    assert_eq!(machine.read(CONFIG_GENERATION), 1, "the device has changed its configuration");
    machine.write(QUEUE_NOTIFY, 7);
    machine.write(QUEUE_NOTIFY, 0);
    machine.wait(1);
    assert_eq!(machine.seen.lock().unwrap().used, 1);
    assert_eq!(machine.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

#[test]
fn queues_outside_of_the_memory_need_a_reset_and_are_told() {
    let memory = memory();
    let machine = Machine::new(&memory);
    machine.agree(VERSION_1);
    machine.set_queue(0, 16, [0x1000, 0x2000, 0xf_ffff_0000]);
    machine.go();
    assert_ne!(machine.read(STATUS) & NEEDS_RESET, 0);
    assert_eq!(machine.read(INTERRUPT_STATUS), 2);
    let said = machine.said.lock().unwrap().concat();
    assert!(said.contains("device echo needs a reset") && said.contains("queue 0"), "{said}");
}

#[test]
fn a_device_that_fails_works_again_after_a_reset() {
    let memory = memory();
    let machine = running(&memory, 666);
    machine.write(QUEUE_NOTIFY, 0);
    machine.wait(2);
    assert_ne!(machine.read(STATUS) & NEEDS_RESET, 0);
    assert!(machine.said.lock().unwrap().concat().contains("the number of the beast"));
    machine.write(STATUS, 0);
    assert_eq!((machine.read(STATUS), machine.read(INTERRUPT_STATUS)), (0, 0));
    assert_eq!(machine.seen.lock().unwrap().resets, 1);
    machine.agree(VERSION_1);
    machine.set_queue(0, 16, queue_with(&memory, 10));
    machine.go();
    machine.write(QUEUE_NOTIFY, 0);
    machine.wait(1);
}

#[test]
fn a_reset_takes_the_queues_from_the_device() {
    let memory = memory();
    let machine = running(&memory, 10);
    machine.write(STATUS, 0);
    machine.write(QUEUE_NOTIFY, 0);
    machine.write(QUEUE_SEL, 0);
    assert_eq!(machine.read(QUEUE_READY), 0);
    let (seen, transport) = (machine.seen.clone(), machine.transport.clone());
    transport.save().unwrap();
    assert_eq!(seen.lock().unwrap().used, 0, "the thread has seen every order and the kick is behind them");
    transport.resume().unwrap();
}

#[test]
fn a_device_goes_on_where_it_was_saved() {
    let memory = memory();
    let machine = running(&memory, 100);
    machine.write(QUEUE_NOTIFY, 0);
    machine.wait(1);
    let state = machine.transport.save().unwrap();
    let state: TransportState = postcard::from_bytes(&postcard::to_stdvec(&state).unwrap()).unwrap();
    let other = Machine::new(&memory);
    other.transport.restore(&state).unwrap();
    other.wait(2);
    assert_eq!(other.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let again = other.transport.save().unwrap();
    assert_eq!(again.progress, state.progress);
    assert_eq!((again.device, again.progress[0].next_avail), (100_u32.to_le_bytes().to_vec(), 1));
    assert_eq!(other.seen.lock().unwrap().used, 0, "what was used is not used again");
    other.transport.resume().unwrap();
}

#[test]
fn buffers_that_nobody_kicked_for_are_seen_after_a_restore() {
    let memory = memory();
    let machine = running(&memory, 100);
    let state = machine.transport.save().unwrap();
    let other = Machine::new(&memory);
    other.transport.restore(&state).unwrap();
    other.wait(1);
    assert_eq!(other.seen.lock().unwrap().used, 1);
}

#[test]
fn a_state_of_another_device_is_refused() {
    let memory = memory();
    let machine = Machine::new(&memory);
    let mut state = machine.transport.save().unwrap();
    machine.transport.resume().unwrap();
    state.kind = 9;
    let error = machine.transport.restore(&state).unwrap_err().to_string();
    assert!(error.contains("of kind 9 with 2 queues, this one has echo of kind 4"), "{error}");
    let mut state = machine.transport.save().unwrap();
    machine.transport.resume().unwrap();
    state.registers.accepted = 1 << 40;
    assert!(machine.transport.restore(&state).is_err());
}

#[test]
fn a_panic_of_a_device_ends_its_thread_with_what_it_said() {
    let memory = memory();
    let mut machine = running(&memory, 13);
    machine.write(QUEUE_NOTIFY, 0);
    let message = machine.thread.take().unwrap().join().unwrap().unwrap_err();
    assert!(message.contains("unlucky"), "{message}");
    machine.write(STATUS, 0);
    assert_eq!(machine.read(STATUS), 0, "the guest does not hang");
}

#[test]
fn the_guests_page_shows_what_a_driver_would_read_here() {
    let compare = |machine: &Machine, when: &str| {
        for offset in (0..CONFIG + 16).step_by(4) {
            assert_eq!(machine.shown(offset), machine.read(offset), "{when}, register {offset:#x}");
        }
    };
    let memory = memory();
    let machine = Machine::new(&memory);
    compare(&machine, "new");
    machine.write(DEVICE_FEATURES_SEL, 1);
    machine.write(QUEUE_SEL, 1);
    machine.transport.write(CONFIG + 4, b"X");
    compare(&machine, "selected");
    machine.agree(VERSION_1);
    machine.set_queue(0, 16, queue_with(&memory, 666));
    compare(&machine, "agreed");
    machine.go();
    machine.wait(2);
    compare(&machine, "running, with another configuration");
    let state = machine.transport.save().unwrap();
    machine.transport.resume().unwrap();
    machine.write(QUEUE_NOTIFY, 0);
    machine.wait(2);
    compare(&machine, "failed");
    machine.write(STATUS, 0);
    compare(&machine, "reset");
    let other = Machine::new(&memory);
    other.transport.restore(&state).unwrap();
    other.wait(2);
    compare(&other, "restored");
}
