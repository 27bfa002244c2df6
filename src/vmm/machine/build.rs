//! Putting a machine together: memory, mapped files, devices, and then either a kernel to start or a saved machine.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_ioctls::Kvm;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::boot::{self, CommandLine};
use crate::error::{Error, Result};
use crate::kvm::{Vcpu, Vm};
use crate::layout;
use crate::log::Log;
use crate::machine::run::Machine;
use crate::machine::save::SavedMachine;
use crate::machine::{MachineConfig, Maker, wiring};
use crate::memory::{Access, Extent, Memory, Region};
use crate::platform::{Bus, Serial};
use crate::virtio::thread::Worker;
use crate::virtio::{Device, Transport};

/// What a machine is started with.
#[derive(Debug)]
pub struct Boot<'a> {
    /// An ELF `vmlinux` or a `bzImage`.
    pub kernel: &'a File,
    /// The initial file system: a cpio archive.
    pub initrd: Option<Initrd<'a>>,
}

pub use crate::boot::Initrd;

/// A machine in the making.
pub struct Builder {
    config: MachineConfig,
    log: Log,
    vm: Vm,
    memory: Memory,
    saved: Option<SavedMachine>,
    serial: Option<Serial>,
    control: Option<OwnedFd>,
    maker: Option<Maker>,
    devices: Vec<Arc<Transport>>,
    workers: Vec<Worker>,
}

impl Builder {
    /// A machine that starts from nothing.
    pub fn new(config: MachineConfig, log: Log) -> Result<Self> {
        let memory = Memory::empty(config.memory)?;
        Self::with_memory(config, log, memory, None)
    }

    /// A machine that goes on where a saved one was. The devices must be added in the order that they had.
    pub fn restore(saved: SavedMachine, log: Log) -> Result<Self> {
        let memory = saved.memory()?;
        Self::with_memory(saved.config().clone(), log, memory, Some(saved))
    }

    fn with_memory(config: MachineConfig, log: Log, memory: Memory, saved: Option<SavedMachine>) -> Result<Self> {
        if !(1..=boot::VCPUS_MAX).contains(&config.vcpus) {
            let most = boot::VCPUS_MAX;
            return Err(Error::Config(format!("a machine has between 1 and {most} processors, not {}", config.vcpus)));
        }
        if config.addresses > layout::DEVICES_MAX {
            return Err(Error::Config(format!("a machine has at most {} devices", layout::DEVICES_MAX)));
        }
        let kvm = Kvm::new().map_err(Error::host("open /dev/kvm"))?;
        let vm = Vm::new(&kvm)?;
        memory.attach_ram(&vm)?;
        let (devices, workers) = (Vec::new(), Vec::new());
        Ok(Self { config, log, vm, memory, saved, serial: None, control: None, maker: None, devices, workers })
    }

    /// Maps parts of files into the guest, see [`Memory::map_region`]. Comes before the devices: what is mapped later is
    /// not reached by those that are there.
    pub fn map_region(&mut self, extents: &[Extent<'_>], access: Access) -> Result<Region> {
        self.memory.map_region(&self.vm, extents, access)
    }

    /// Adds a device. Its place is the next free one.
    pub fn add_device(&mut self, device: Box<dyn Device>) -> Result<()> {
        let index = self.devices.len();
        if index == layout::DEVICES_MAX {
            return Err(Error::Config(format!("a machine has at most {} devices", layout::DEVICES_MAX)));
        }
        let line = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
        let (transport, worker) = Transport::new(device, self.memory.all(), line, &self.log)?;
        wiring::connect(&self.vm, index, &transport)?;
        self.devices.push(transport);
        self.workers.push(worker);
        Ok(())
    }

    /// Where the serial port's output goes. Without it there is no such port.
    pub fn serial(&mut self, out: Box<dyn Write + Send>) -> Result<()> {
        let line = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::host("make an eventfd"))?;
        self.vm.connect_interrupt(&line, layout::SERIAL_IRQ)?;
        self.serial = Some(Serial::new(out, self.config.serial_limit, line));
        Ok(())
    }

    /// Takes the machine's end of a control socket (see [`super::pair`]).
    pub fn control(&mut self, socket: OwnedFd) {
        self.control = Some(socket);
    }

    /// Lets devices be plugged in while the machine runs ([`super::Remote::plug`]); without it they are refused. They come to
    /// addresses that no device has yet ([`MachineConfig::addresses`]).
    pub fn maker(&mut self, maker: Maker) {
        self.maker = Some(maker);
    }

    /// The machine, ready to start a kernel.
    pub fn boot(self, boot: &Boot<'_>) -> Result<Machine> {
        if self.saved.is_some() {
            return Err(Error::Config("a restored machine has a kernel already".into()));
        }
        let mut command_line = CommandLine::new(&self.config.command_line)?;
        for index in 0..self.addresses() {
            command_line.push_device(layout::device(index), layout::device_irq(index))?;
        }
        let start = boot::load(
            &self.memory,
            &boot::Boot {
                kernel: boot.kernel,
                initrd: boot.initrd,
                command_line: &command_line,
                vcpus: self.config.vcpus,
            },
        )?;
        let vcpus = self.vcpus()?;
        vcpus[0].enter(start)?;
        Ok(self.finish(vcpus))
    }

    /// The machine as it was when it was saved.
    pub fn resume(mut self) -> Result<Machine> {
        let Some(saved) = self.saved.take() else {
            return Err(Error::Config("there is no saved machine to go on with".into()));
        };
        let (devices, addresses) = (self.devices.len(), saved.addresses());
        if devices > addresses {
            return Err(Error::State(format!("it has addresses for {addresses} devices, this machine has {devices}")));
        }
        let mut vcpus = self.vcpus()?;
        saved.restore(&self.vm, &mut vcpus, &self.devices)?;
        if let (Some(serial), Some(state)) = (&mut self.serial, saved.serial()) {
            serial.restore(state);
        }
        self.memory.populate(saved.needed())?;
        vcpus[0].map(saved.needed().pieces(self.config.memory))?;
        Ok(self.finish(vcpus))
    }

    /// How many devices the guest is told of.
    fn addresses(&self) -> usize {
        self.devices.len().max(self.config.addresses)
    }

    fn vcpus(&self) -> Result<Vec<Vcpu>> {
        (0..self.config.vcpus).map(|index| Vcpu::new(&self.vm, index, self.config.vcpus)).collect()
    }

    fn finish(self, vcpus: Vec<Vcpu>) -> Machine {
        let addresses = self.addresses();
        Machine {
            config: self.config,
            log: self.log,
            vm: self.vm,
            memory: self.memory,
            vcpus,
            bus: Arc::new(Bus::new(self.serial, self.devices, addresses)),
            workers: self.workers,
            control: self.control,
            maker: self.maker,
            threads: None,
        }
    }
}
