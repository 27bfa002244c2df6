//! A machine's life: its threads start, it runs until it ends or its owner ends it, its threads end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use crate::confine::{Confinement, Role, Threads};
use crate::error::{Error, Result};
use crate::kvm::{Vcpu, Vm};
use crate::log::Log;
use crate::machine::events::{Event, Events};
use crate::machine::maker::{Maker, Materials, Workshop};
use crate::machine::parties::Parties;
use crate::machine::plugged::PluggedDevices;
use crate::machine::processors::{Enter, Environment, Processors};
use crate::machine::serve::Running;
use crate::machine::{Exit, MachineConfig, STACK};
use crate::memory::Memory;
use crate::platform::Bus;
use crate::virtio::thread::Worker;

/// A machine that is put together.
pub struct Machine {
    pub(super) config: MachineConfig,
    pub(super) log: Log,
    pub(super) vm: Vm,
    pub(super) memory: Memory,
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) bus: Arc<Bus>,
    pub(super) workers: Vec<Worker>,
    pub(super) control: Option<OwnedFd>,
    pub(super) maker: Option<Maker>,
    pub(super) threads: Option<Threads>,
}

impl Machine {
    /// Confines this process, which must have a single thread, and later each thread of the machine. Everything that the
    /// machine needs must be open; what the caller does on this thread after [`Machine::run`] is confined too.
    pub fn confine(&mut self, confinement: &Confinement) -> Result<()> {
        self.threads = Some(confinement.enter()?);
        Ok(())
    }

    /// Runs the machine to its end, on this thread and on one for each vCPU and device, and one more where devices may be
    /// plugged in.
    pub fn run(self) -> Result<Exit> {
        let events = Arc::new(Events::new()?);
        let materials = Materials {
            memory: self.memory.all().clone(),
            log: self.log.clone(),
            events: events.clone(),
            threads: self.threads.clone(),
        };
        let workshop = self.maker.map(|maker| Workshop::start(maker, materials)).transpose()?;
        let mut devices = Vec::new();
        for worker in self.workers {
            devices.push(start_device(worker, &events, self.threads.clone())?);
        }
        let environment =
            Environment { bus: self.bus.clone(), memory: self.memory.ram().clone(), events: events.clone() };
        let threads = self.threads.clone();
        let enter: Enter = Arc::new(move || confine(threads.as_ref(), Role::Vcpu));
        let processors = Processors::start(self.vcpus, &environment, &enter)?;
        workshop.as_ref().map_or(Ok(()), Workshop::wait_confined)?;
        confine(self.threads.as_ref(), Role::Main)?;
        let mut running = Running {
            config: &self.config,
            vm: &self.vm,
            memory: &self.memory,
            bus: &self.bus,
            parties: Parties::new(self.control),
            plugged: PluggedDevices::new(&self.vm, &self.bus),
            workshop,
            processors,
            paused: false,
        };
        running.processors.resume();
        let exit = running.wait(&events);
        running.end(&events);
        for device in self.bus.devices() {
            if let Err(error) = device.stop() {
                self.log.say(&format!("device {}: {error}", device.name()));
            }
        }
        for device in devices {
            // A panic was caught and told.
            let _told = device.join();
        }
        exit
    }
}

/// Confines this thread, in a process that is confined.
pub(super) fn confine(threads: Option<&Threads>, role: Role) -> Result<()> {
    threads.map_or(Ok(()), |threads| threads.enter(role))
}

/// Comes back when the thread is confined.
pub(super) fn start_device(worker: Worker, events: &Arc<Events>, threads: Option<Threads>) -> Result<JoinHandle<()>> {
    let (name, events) = (worker.name().to_owned(), events.clone());
    let step = format!("start the thread of device {name}");
    let (reply, answer) = sync_channel(1);
    let body = move || {
        let confined = confine(threads.as_ref(), Role::Device(worker.kind()));
        let stop = confined.is_err();
        // Who waits for it holds the other end.
        let _held = reply.send(confined);
        if stop {
            return;
        }
        let name = worker.name().to_owned();
        if let Err(message) = worker.run() {
            events.push(Event::Failed(Error::Panic { thread: name, message }));
        }
    };
    let thread = thread::Builder::new().name(name.clone()).stack_size(STACK).spawn(body).map_err(Error::host(step))?;
    let ended = || Error::Panic { thread: name, message: "it ended before it began".into() };
    answer.recv().map_err(|_| ended())??;
    Ok(thread)
}
