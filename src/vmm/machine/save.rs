//! A machine in a file: a page-aligned image of its memory behind the state of everything else.
//!
//! ```text
//!   0        magic, version, length of the state, offset of the memory
//!   64       the state (postcard)
//!   offset   the memory, without the hole; pages of zeroes are holes of the file
//! ```
//!
//! The header is written last, so a file that was not finished does not look like one that was. The file is for the host
//! (processor, KVM) and the version of this program that wrote it; whoever keeps such files keeps them apart by both.

use std::fs::File;
use std::ops::DerefMut;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kvm_bindings::kvm_cpuid_entry2;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::error::{Error, Result};
use crate::kvm::{InterruptState, Vcpu, VcpuState, Vm};
use crate::layout::{self, PAGE};
use crate::machine::MachineConfig;
use crate::memory::{Memory, WorkingSet};
use crate::platform::{Bus, SerialState};
use crate::virtio::{Transport, TransportState};

const MAGIC: [u8; 8] = *b"sbxvm\0\0\n";
const VERSION: u64 = 2;
const HEADER: u64 = 64;
/// More than the state of any machine has.
const STATE_MAX: u64 = 256 << 20;
const ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];
/// How much memory is looked at at once.
const CHUNK: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct State {
    config: MachineConfig,
    host: Vec<kvm_cpuid_entry2>,
    vcpus: Vec<VcpuState>,
    interrupts: InterruptState,
    devices: Vec<TransportState>,
    serial: Option<SerialState>,
}

/// A saved machine, read as far as to know what it is.
pub struct SavedMachine {
    file: File,
    memory: u64,
    state: State,
    needed: WorkingSet,
}

/// The parts of a machine, which stands still but for its devices.
pub(super) struct Parts<'a> {
    pub(super) config: &'a MachineConfig,
    pub(super) vm: &'a Vm,
    pub(super) memory: &'a Memory,
    pub(super) bus: &'a Bus,
}

/// Writes a machine to an empty file. Devices stand still meanwhile and go on afterwards.
pub(super) fn write(parts: &Parts<'_>, vcpus: &mut [impl DerefMut<Target = Vcpu>], file: &File) -> Result<()> {
    let devices: Vec<Result<TransportState>> = parts.bus.devices().iter().map(|device| device.save()).collect();
    let result = devices.into_iter().collect::<Result<_>>().and_then(|devices| {
        let state = State {
            config: parts.config.clone(),
            host: parts.vm.leaves(parts.config.vcpus)?,
            vcpus: vcpus.iter_mut().map(|vcpu| vcpu.save()).collect::<Result<_>>()?,
            interrupts: parts.vm.save()?,
            devices,
            serial: parts.bus.save_serial(),
        };
        write_file(&state, parts.memory, file)
    });
    for device in parts.bus.devices() {
        device.resume()?;
    }
    result
}

fn write_file(state: &State, memory: &Memory, file: &File) -> Result<()> {
    let bytes = postcard::to_stdvec(state).map_err(|error| Error::State(error.to_string()))?;
    let offset = (HEADER + bytes.len() as u64).next_multiple_of(layout::REGION_ALIGNMENT);
    file.set_len(offset + memory.bytes()).map_err(Error::host("make the saved machine's file large enough"))?;
    write_memory(memory, file, offset)?;
    let write = |bytes: &[u8], at| file.write_all_at(bytes, at).map_err(Error::host("write the saved machine"));
    write(&bytes, HEADER)?;
    let mut header = MAGIC.to_vec();
    for number in [VERSION, bytes.len() as u64, offset] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    write(&header, 0)
}

fn write_memory(memory: &Memory, file: &File, mut offset: u64) -> Result<()> {
    let mut chunk = vec![0; CHUNK as usize];
    for (start, length) in layout::ram(memory.bytes()) {
        for at in (0..length).step_by(CHUNK as usize) {
            let place = GuestAddress(start + at);
            if !memory.has_content(place, chunk.len())? {
                continue;
            }
            memory.ram().read_slice(&mut chunk, place)?;
            write_pages(&chunk, file, offset + at)?;
        }
        offset += length;
    }
    Ok(())
}

/// Writes what lies between pages of zeroes, each run of pages at once.
fn write_pages(chunk: &[u8], file: &File, offset: u64) -> Result<()> {
    let mut at = offset;
    for run in chunk.chunks(PAGE as usize).collect::<Vec<_>>().chunk_by(|a, b| (*a == ZEROES) == (*b == ZEROES)) {
        let bytes = run.len() * PAGE as usize;
        if run[0] != ZEROES {
            let start = (at - offset) as usize;
            file.write_all_at(&chunk[start..start + bytes], at)
                .map_err(Error::host("write the saved machine's memory"))?;
        }
        at += bytes as u64;
    }
    Ok(())
}

impl SavedMachine {
    /// Reads the state in a file of [`super::Remote::save`].
    pub fn open(file: File) -> Result<Self> {
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, 0).map_err(Error::host("read the saved machine"))?;
        if header[..8] != MAGIC {
            return Err(Error::State("the file is none, or was not finished".into()));
        }
        let number = |index: usize| {
            let bytes = &header[8 + 8 * index..16 + 8 * index];
            bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        if number(0) != VERSION {
            return Err(Error::State(format!("the file has version {}, this program reads {VERSION}", number(0))));
        }
        let (length, memory) = (number(1), number(2));
        if length > STATE_MAX || !memory.is_multiple_of(PAGE) {
            return Err(Error::State(format!("a state of {length} bytes with memory at {memory}")));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, HEADER).map_err(Error::host("read the saved machine"))?;
        let state = postcard::from_bytes(&bytes).map_err(|error| Error::State(error.to_string()))?;
        Ok(Self { file, memory, state, needed: WorkingSet::default() })
    }

    /// What the machine is.
    #[must_use]
    pub fn config(&self) -> &MachineConfig {
        &self.state.config
    }

    /// How many devices its guest was told of.
    pub(super) fn addresses(&self) -> usize {
        self.state.config.addresses.max(self.state.devices.len())
    }

    /// What process `pid`, which runs a machine from this file, has touched of its memory. `None` where that is more than a
    /// start needs.
    pub fn working_set(&self, pid: i32) -> Result<Option<WorkingSet>> {
        WorkingSet::observe(pid, &self.file, self.memory, self.state.config.memory)
    }

    /// Which memory the machine will need.
    pub fn expect(&mut self, needed: WorkingSet) {
        self.needed = needed;
    }

    pub(super) fn needed(&self) -> &WorkingSet {
        &self.needed
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let file = self.file.try_clone().map_err(Error::host("open the saved memory"))?;
        Memory::restored(self.state.config.memory, file, self.memory)
    }

    /// The state of its serial port.
    pub(super) fn serial(&self) -> Option<SerialState> {
        self.state.serial.clone()
    }

    /// Puts the state into a machine that was made of the same parts. More devices than there were find their guest
    /// without a driver for them.
    pub(super) fn restore(&self, vm: &Vm, vcpus: &mut [Vcpu], devices: &[Arc<Transport>]) -> Result<()> {
        let state = &self.state;
        if vm.leaves(state.config.vcpus)? != state.host {
            return Err(Error::State("it was saved on a host with another processor or KVM".into()));
        }
        if state.vcpus.len() != vcpus.len() || state.devices.len() > devices.len() {
            return Err(Error::State(format!(
                "it has {} vCPUs and {} devices, this machine has {} and {}",
                state.vcpus.len(),
                state.devices.len(),
                vcpus.len(),
                devices.len()
            )));
        }
        for (vcpu, saved) in vcpus.iter_mut().zip(&state.vcpus) {
            vcpu.restore(saved)?;
        }
        vm.restore(&state.interrupts)?;
        devices.iter().zip(&state.devices).try_for_each(|(device, saved)| device.restore(saved))
    }
}
