//! A machine's life: its threads start, it runs until it ends or its owner ends it, its threads end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::confine::{Confinement, Role, Threads};
use crate::error::{Error, Result};
use crate::kvm::{Vcpu, Vm};
use crate::log::Log;
use crate::machine::control::{Reply, Request, receive, send};
use crate::machine::events::{Event, Events};
use crate::machine::processors::{Enter, Environment, Processors};
use crate::machine::save::{self, Parts};
use crate::machine::{Exit, MachineConfig, STACK};
use crate::memory::Memory;
use crate::platform::Bus;
use crate::sys::borrow;
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
    pub(super) threads: Option<Threads>,
}

impl Machine {
    /// Confines this process, which must have a single thread, and later each thread of the machine. Everything that the
    /// machine needs must be open; what the caller does on this thread after [`Machine::run`] is confined too.
    pub fn confine(&mut self, confinement: &Confinement) -> Result<()> {
        self.threads = Some(confinement.enter()?);
        Ok(())
    }

    /// Runs the machine to its end, on this thread and on one for each vCPU and device.
    pub fn run(self) -> Result<Exit> {
        let events = Arc::new(Events::new()?);
        let mut devices = Vec::new();
        for worker in self.workers {
            devices.push(start_device(worker, &events, self.threads.clone())?);
        }
        let environment =
            Environment { bus: self.bus.clone(), memory: self.memory.ram().clone(), events: events.clone() };
        let threads = self.threads.clone();
        let enter: Enter = Arc::new(move || confine(threads.as_ref(), Role::Vcpu));
        let processors = Processors::start(self.vcpus, &environment, &enter)?;
        confine(self.threads.as_ref(), Role::Main)?;
        let mut running = Running {
            config: &self.config,
            vm: &self.vm,
            memory: &self.memory,
            bus: &self.bus,
            control: self.control,
            processors,
            paused: false,
        };
        running.processors.resume();
        let exit = running.wait(&events);
        running.processors.stop();
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

fn confine(threads: Option<&Threads>, role: Role) -> Result<()> {
    threads.map_or(Ok(()), |threads| threads.enter(role))
}

/// Comes back when the thread is confined.
fn start_device(worker: Worker, events: &Arc<Events>, threads: Option<Threads>) -> Result<JoinHandle<()>> {
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

struct Running<'a> {
    config: &'a MachineConfig,
    vm: &'a Vm,
    memory: &'a Memory,
    bus: &'a Bus,
    control: Option<OwnedFd>,
    processors: Processors,
    paused: bool,
}

impl Running<'_> {
    /// Waits for the machine's end and does what its owner wants.
    fn wait(&mut self, events: &Events) -> Result<Exit> {
        loop {
            let asked = self.wait_once(events)?;
            if let Some(event) = events.pop() {
                match event {
                    Event::Ended(exit) => return Ok(exit),
                    Event::Failed(error) => return Err(error),
                }
            }
            if asked && let Some(exit) = self.serve()? {
                return Ok(exit);
            }
        }
    }

    /// Waits for news or a request; whether it is a request.
    fn wait_once(&self, events: &Events) -> Result<bool> {
        let mut files = vec![PollFd::new(borrow(events.wake()), PollFlags::POLLIN)];
        files.extend(self.control.as_ref().map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN)));
        match poll(&mut files, PollTimeout::NONE) {
            Ok(_) => Ok(files.get(1).is_some_and(|control| control.any().unwrap_or(true))),
            Err(nix::Error::EINTR) => Ok(false),
            Err(error) => Err(Error::host("wait for the machine's end")(error)),
        }
    }

    /// Answers one request of the owner.
    fn serve(&mut self) -> Result<Option<Exit>> {
        let Some(control) = &self.control else { return Ok(None) };
        let message = receive::<Request>(control).map_err(Error::host("read the control socket"))?;
        let Some((request, file)) = message else { return Ok(Some(Exit::Abandoned)) };
        let reply: Reply = match (request, file) {
            (Request::Save, None) => Err("a file must come with the request".into()),
            (Request::Save, Some(file)) => self.save(file.into()).map_err(|error| error.to_string()),
            (Request::Pause, _) => {
                self.pause();
                Ok(())
            }
            (Request::Resume, _) => {
                self.resume();
                Ok(())
            }
            (Request::Stop, _) => Ok(()),
        };
        let Some(control) = &self.control else { return Ok(None) };
        // An owner that does not wait for the answer is gone, which the next round sees.
        let _gone = send(control, &reply, None);
        Ok((request == Request::Stop).then_some(Exit::Stopped))
    }

    fn pause(&mut self) {
        if !self.paused {
            self.processors.pause();
            self.paused = true;
        }
    }

    fn resume(&mut self) {
        if self.paused {
            self.processors.resume();
            self.paused = false;
        }
    }

    fn save(&mut self, file: std::fs::File) -> Result<()> {
        let was_paused = self.paused;
        self.pause();
        let mut vcpus: Vec<_> = self.processors.paused().collect();
        let parts = Parts { config: self.config, vm: self.vm, memory: self.memory, devices: self.bus.devices() };
        let result = save::write(&parts, &mut vcpus, &file);
        drop(vcpus);
        if !was_paused {
            self.resume();
        }
        result
    }
}
