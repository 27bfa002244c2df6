//! The virtio-mmio transport (virtio specification 1.2, 4.2): a device's registers, as a driver sees them.
//!
//! ```text
//!   0 ──▶ ACKNOWLEDGE ──▶ DRIVER ──▶ FEATURES_OK ──▶ DRIVER_OK ──▶ (DEVICE_NEEDS_RESET)
//!   ▲                                    │ refused where the          │ the device's thread runs
//!   │                                    │ features do not fit        │
//!   └────────────────────────────────────┴────────────────────────────┘ a driver writes 0
//! ```
//!
//! What a driver reads is shown in a page as well ([`super::page`]), from which a guest reads it without coming here.
//!
//! What a driver writes stays a number until `DRIVER_OK`; then the queues are checked as a whole ([`super::queues`]) and
//! handed to the device's thread. A driver that breaks the rules gets a device that needs a reset, nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::error::{Error, Result};
use crate::log::Log;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::Interrupt;
use crate::virtio::page::CONFIG_BYTES;
use crate::virtio::queues::{Progress, QueueSetup};
use crate::virtio::registers::{
    ACKNOWLEDGE, CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, DRIVER_OK, EVENT_IDX, FAILED, FEATURES_OK, INTERRUPT_ACK, INTERRUPT_STATUS, MAGIC,
    MAGIC_VALUE, NEEDS_RESET, QUEUE_DESC_HIGH, QUEUE_DESC_LOW, QUEUE_DEVICE_HIGH, QUEUE_DEVICE_LOW, QUEUE_DRIVER_HIGH,
    QUEUE_DRIVER_LOW, QUEUE_NOTIFY, QUEUE_NUM, QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, SHARED_MEMORY, STATUS, VENDOR_ID,
    VENDOR_VALUE, VERSION, VERSION_1, VERSION_VALUE,
};
use crate::virtio::thread::{Activation, Orders, Shared, Worker};

/// Offset of the register by which a driver kicks a queue, for a connection past this code.
pub const KICK_REGISTER: u64 = QUEUE_NOTIFY;
/// The same of the register by which a driver acknowledges an interrupt.
pub const ACKNOWLEDGE_REGISTER: u64 = INTERRUPT_ACK;
/// Registers that a driver can read, but for those that the interrupt shows.
const SHOWN: [u64; 12] = [
    MAGIC,
    VERSION,
    DEVICE_ID,
    VENDOR_ID,
    DEVICE_FEATURES,
    QUEUE_NUM_MAX,
    QUEUE_READY,
    STATUS,
    *SHARED_MEMORY.start(),
    *SHARED_MEMORY.start() + 4,
    *SHARED_MEMORY.start() + 8,
    *SHARED_MEMORY.end(),
];

/// The registers of one device.
pub struct Transport {
    shared: Arc<Shared>,
    memory: GuestMemoryMmap,
    kind: u32,
    offered: u64,
    sizes: Vec<u16>,
    kicks: Vec<EventFd>,
    registers: Mutex<Registers>,
    orders: Orders,
}

/// What a driver has written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u32,
    offered_word: u32,
    accepted_word: u32,
    accepted: u64,
    selected: u32,
    queues: Vec<QueueSetup>,
}

/// State of a device with its transport.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransportState {
    kind: u32,
    registers: Registers,
    progress: Vec<Progress>,
    interrupt: u32,
    failed: bool,
    device: Vec<u8>,
}

impl Transport {
    /// Registers for a device that interrupts through `line`, and the body of the device's thread.
    pub fn new(
        device: Box<dyn Device>,
        memory: &GuestMemoryMmap,
        line: EventFd,
        log: &Log,
    ) -> Result<(Arc<Self>, Worker)> {
        let (name, kind, offered) = (device.name().to_owned(), device.kind(), device.features());
        let sizes = device.queue_sizes().to_vec();
        check(&name, offered, &sizes)?;
        let mut kicks = Vec::new();
        let mut worker_kicks = Vec::new();
        for _ in &sizes {
            let kick = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
            worker_kicks.push(kick.try_clone().map_err(Error::host("make an eventfd"))?);
            kicks.push(kick);
        }
        let shared = Arc::new(Shared {
            name,
            device: Mutex::new(device),
            interrupt: Interrupt::new(line)?,
            failed: AtomicBool::new(false),
            log: log.clone(),
        });
        let (worker, orders) = Worker::new(shared.clone(), worker_kicks, memory.clone())?;
        let registers =
            Mutex::new(Registers { queues: vec![QueueSetup::default(); sizes.len()], ..Default::default() });
        let transport = Self { shared, memory: memory.clone(), kind, offered, sizes, kicks, registers, orders };
        transport.show(&transport.registers());
        transport.show_config();
        Ok((Arc::new(transport), worker))
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What a driver writes to [`KICK_REGISTER`] for each queue, and the event that it stands for.
    pub fn kicks(&self) -> impl Iterator<Item = (u32, &EventFd)> {
        (0..).zip(&self.kicks)
    }

    /// How it interrupts, and the registers as a page.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.shared.interrupt
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver reads at an offset. Registers are read by four aligned bytes, the configuration as the device likes it.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= CONFIG {
            self.shared.device().read_config(offset - CONFIG, data);
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            data.copy_from_slice(&self.register(offset).to_le_bytes());
        }
    }

    fn register(&self, offset: u64) -> u32 {
        self.value(&self.registers(), offset)
    }

    /// Puts what a driver reads into the page, but for what the interrupt puts there.
    fn show(&self, registers: &Registers) {
        let page = self.shared.interrupt.page().write();
        for offset in SHOWN {
            page.set(offset, self.value(registers, offset));
        }
    }

    fn show_config(&self) {
        let mut space = [0; CONFIG_BYTES];
        self.shared.device().read_config(0, &mut space);
        self.shared.interrupt.page().write().set_config(&space);
    }

    fn value(&self, registers: &Registers, offset: u64) -> u32 {
        let queue = registers.selected as usize;
        match offset {
            MAGIC => MAGIC_VALUE,
            VERSION => VERSION_VALUE,
            DEVICE_ID => self.kind,
            VENDOR_ID => VENDOR_VALUE,
            DEVICE_FEATURES => word(self.offered, registers.offered_word),
            QUEUE_NUM_MAX => self.sizes.get(queue).map_or(0, |size| u32::from(*size)),
            QUEUE_READY => registers.queues.get(queue).map_or(0, |queue| u32::from(queue.ready)),
            INTERRUPT_STATUS => self.shared.interrupt.status(),
            STATUS if self.shared.failed.load(Ordering::SeqCst) => registers.status | NEEDS_RESET,
            STATUS => registers.status,
            CONFIG_GENERATION => self.shared.interrupt.generation(),
            offset if SHARED_MEMORY.contains(&offset) => u32::MAX,
            _ => 0,
        }
    }

    /// The driver writes at an offset.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            self.shared.device().write_config(offset - CONFIG, data);
            self.show_config();
        } else if let (true, Ok(value)) = (offset.is_multiple_of(4), data.try_into()) {
            self.set_register(offset, u32::from_le_bytes(value));
        }
    }

    fn set_register(&self, offset: u64, value: u32) {
        match offset {
            // Usually a write here never comes so far, see `KICK_REGISTER`.
            QUEUE_NOTIFY => return self.kick(value),
            INTERRUPT_ACK => return self.shared.interrupt.acknowledge(value),
            _ => {}
        }
        let mut registers = self.registers();
        match offset {
            STATUS => self.set_status(&mut registers, value),
            DEVICE_FEATURES_SEL => registers.offered_word = value,
            DRIVER_FEATURES_SEL => registers.accepted_word = value,
            DRIVER_FEATURES if registers.status & FEATURES_OK == 0 => {
                let word = registers.accepted_word;
                set_word(&mut registers.accepted, word, value);
            }
            QUEUE_SEL => registers.selected = value,
            // From DRIVER_OK to a reset the queues belong to the device's thread.
            _ if registers.status & DRIVER_OK == 0 => set_queue(&mut registers, offset, value),
            _ => {}
        }
        self.show(&registers);
    }

    fn kick(&self, queue: u32) {
        if let Some(kick) = self.kicks.get(queue as usize) {
            // Only fails where 2^64 - 2 kicks wait already.
            let _full = kick.write(1);
        }
    }

    fn set_status(&self, registers: &mut Registers, value: u32) {
        if value == 0 {
            return self.reset(registers);
        }
        // A driver only adds to the status; the device's own bit is not the driver's.
        let mut new = (value & !NEEDS_RESET) & !registers.status;
        if new & FEATURES_OK != 0 && !self.features_fit(registers.accepted) {
            new &= !FEATURES_OK;
        }
        let before = registers.status;
        registers.status |= new & (ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED);
        if new & DRIVER_OK != 0 {
            if before & FEATURES_OK == 0 {
                return self.refuse("is ready without having agreed on features".into());
            }
            registers.status |= DRIVER_OK;
            if let Err(error) = self.activate(registers, &[], false) {
                self.refuse(error);
            }
        }
    }

    fn features_fit(&self, accepted: u64) -> bool {
        accepted & !self.offered == 0 && accepted & VERSION_1 != 0
    }

    fn refuse(&self, reason: String) {
        self.shared.fail(&DeviceError::Driver(reason));
    }

    fn activate(
        &self,
        registers: &Registers,
        progress: &[Progress],
        restored: bool,
    ) -> std::result::Result<(), String> {
        let event_idx = registers.accepted & EVENT_IDX != 0;
        let mut queues = Vec::new();
        for (index, (setup, max)) in registers.queues.iter().zip(&self.sizes).enumerate() {
            let progress = progress.get(index).copied().unwrap_or_default();
            let queue = setup.queue(*max, progress, event_idx, &self.memory);
            queues.push(queue.map_err(|error| format!("queue {index}: {error}"))?);
        }
        let activation = Activation { queues, features: registers.accepted, restored };
        self.orders.activate(activation).map_err(|error| error.to_string())
    }

    fn reset(&self, registers: &mut Registers) {
        let active = registers.status & DRIVER_OK != 0;
        *registers = Registers { queues: vec![QueueSetup::default(); self.sizes.len()], ..Default::default() };
        if active {
            // When the driver reads the status again, the device must have let go of the guest's memory.
            if let Err(error) = self.orders.reset() {
                self.shared.log.say(&format!("device {}: {error}", self.shared.name));
            }
        } else {
            self.shared.device().reset();
        }
        self.shared.failed.store(false, Ordering::SeqCst);
        self.shared.interrupt.acknowledge(u32::MAX);
    }

    /// Lets the thread stand still and takes the state of device and transport. No vCPU may run.
    pub fn save(&self) -> Result<TransportState> {
        let progress = self.orders.pause()?;
        let device = self.shared.device().save();
        let device = device.map_err(|source| Error::Device { device: self.shared.name.clone(), source })?;
        Ok(TransportState {
            kind: self.kind,
            registers: self.registers().clone(),
            progress,
            interrupt: self.shared.interrupt.status(),
            failed: self.shared.failed.load(Ordering::SeqCst),
            device,
        })
    }

    /// Lets the thread go on after [`Transport::save`].
    pub fn resume(&self) -> Result<()> {
        self.orders.resume()
    }

    /// Takes a state of [`Transport::save`]. Comes after the interrupt controllers and before the vCPUs run.
    pub fn restore(&self, state: &TransportState) -> Result<()> {
        let registers = state.registers.clone();
        if state.kind != self.kind || registers.queues.len() != self.sizes.len() {
            return Err(Error::State(format!(
                "where the saved machine has a device of kind {} with {} queues, this one has {} of kind {} with {}",
                state.kind,
                registers.queues.len(),
                self.shared.name,
                self.kind,
                self.sizes.len()
            )));
        }
        if registers.accepted & !self.offered != 0 {
            return Err(Error::State(format!(
                "the driver of device {} uses features {:#x}, which this one does not offer",
                self.shared.name,
                registers.accepted & !self.offered
            )));
        }
        let restored = self.shared.device().restore(&state.device);
        restored.map_err(|source| Error::Device { device: self.shared.name.clone(), source })?;
        self.shared.failed.store(state.failed, Ordering::SeqCst);
        if registers.status & DRIVER_OK != 0 && !state.failed {
            self.activate(&registers, &state.progress, true).map_err(Error::State)?;
        }
        self.show(&registers);
        self.show_config();
        *self.registers() = registers;
        if state.interrupt != 0 {
            // The edge may have been under way when the machine was saved. One too many does no harm.
            self.shared.interrupt.raise(state.interrupt).map_err(|error| Error::State(error.to_string()))?;
        }
        Ok(())
    }

    /// Whether no driver holds the device, as its status says. Does not wait: while a vCPU is at the registers, one may.
    ///
    /// Linux resets a device that its driver lets go of, and then sets `ACKNOWLEDGE` again (`virtio_dev_remove`): by that bit
    /// alone it says that it has seen a device.
    #[must_use]
    pub fn is_let_go(&self) -> bool {
        self.registers.try_lock().is_ok_and(|registers| self.value(&registers, STATUS) & !ACKNOWLEDGE == 0)
    }

    /// Ends the device's thread.
    pub fn stop(&self) -> Result<()> {
        self.orders.stop()
    }
}

fn check(name: &str, offered: u64, sizes: &[u16]) -> Result<()> {
    if name.is_empty() || name.len() > 15 || name.contains('\0') {
        return Err(Error::Config(format!("a device's name has 1 to 15 bytes, not {name:?}")));
    }
    if offered & VERSION_1 == 0 {
        return Err(Error::Config(format!("device {name} does not offer VIRTIO_F_VERSION_1")));
    }
    match sizes.iter().find(|size| !size.is_power_of_two()) {
        Some(size) => Err(Error::Config(format!("device {name} has a queue of {size} entries, no power of two"))),
        None => Ok(()),
    }
}

/// A driver reads where no device is: the kind is 0, "there is nobody here" (4.2.2).
pub(crate) fn read_vacant(offset: u64, data: &mut [u8]) {
    data.fill(0);
    let value = match offset {
        MAGIC => MAGIC_VALUE,
        VERSION => VERSION_VALUE,
        _ => 0,
    };
    if data.len() == 4 {
        data.copy_from_slice(&value.to_le_bytes());
    }
}

/// One of the two halves of 64 bits.
fn word(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

fn set_word(bits: &mut u64, select: u32, value: u32) {
    match select {
        0 => *bits = *bits & !0xffff_ffff | u64::from(value),
        1 => *bits = *bits & 0xffff_ffff | u64::from(value) << 32,
        _ => {}
    }
}

fn set_queue(registers: &mut Registers, offset: u64, value: u32) {
    let Some(queue) = registers.queues.get_mut(registers.selected as usize) else { return };
    match offset {
        QUEUE_NUM => queue.size = value,
        QUEUE_READY => queue.ready = value & 1 == 1,
        QUEUE_DESC_LOW => set_word(&mut queue.descriptors, 0, value),
        QUEUE_DESC_HIGH => set_word(&mut queue.descriptors, 1, value),
        QUEUE_DRIVER_LOW => set_word(&mut queue.driver, 0, value),
        QUEUE_DRIVER_HIGH => set_word(&mut queue.driver, 1, value),
        QUEUE_DEVICE_LOW => set_word(&mut queue.device, 0, value),
        QUEUE_DEVICE_HIGH => set_word(&mut queue.device, 1, value),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
