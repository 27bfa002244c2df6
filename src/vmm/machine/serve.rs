//! What the main thread does while the machine runs: it waits for news of the other threads, and does what the parties want.

use std::os::fd::OwnedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::kvm::Vm;
use crate::machine::control::{Message, Reply, Request};
use crate::machine::events::{Event, Events};
use crate::machine::maker::{Job, Made, Workshop};
use crate::machine::parties::{Heard, OWNER, Parties};
use crate::machine::plugged::PluggedDevices;
use crate::machine::processors::Processors;
use crate::machine::save::{self, Parts};
use crate::machine::{Exit, MachineConfig};
use crate::memory::Memory;
use crate::platform::Bus;
use crate::sys::borrow;

/// How often it is looked whether drivers have let go of devices that belong to nobody, in milliseconds.
const LOOK_AGAIN: u16 = 1000;

/// A machine that runs, as its main thread has it.
pub(super) struct Running<'a> {
    pub(super) config: &'a MachineConfig,
    pub(super) vm: &'a Vm,
    pub(super) memory: &'a Memory,
    pub(super) bus: &'a Bus,
    pub(super) parties: Parties,
    pub(super) plugged: PluggedDevices<'a>,
    pub(super) workshop: Option<Workshop>,
    pub(super) processors: Processors,
    pub(super) paused: bool,
}

impl Running<'_> {
    /// Waits for the machine's end and does what the parties want.
    pub(super) fn wait(&mut self, events: &Events) -> Result<Exit> {
        loop {
            let asked = self.wait_once(events)?;
            while let Some(event) = events.pop() {
                match event {
                    Event::Ended(exit) => return Ok(exit),
                    Event::Failed(error) => return Err(error),
                    Event::Made(made) => self.made(made)?,
                }
            }
            for party in asked {
                if let Some(exit) = self.serve(party)? {
                    return Ok(exit);
                }
            }
            self.plugged.sweep()?;
        }
    }

    /// Waits for news or requests; the parties that have some.
    fn wait_once(&self, events: &Events) -> Result<Vec<u64>> {
        let mut files = vec![PollFd::new(borrow(events.wake()), PollFlags::POLLIN)];
        files.extend(self.parties.files());
        let patience = if self.plugged.has_orphans() { LOOK_AGAIN.into() } else { PollTimeout::NONE };
        match poll(&mut files, patience) {
            Ok(_) => {
                let asked = files[1..].iter().map(|file| file.any().unwrap_or(true));
                Ok(self.parties.numbers().zip(asked).filter_map(|(number, asks)| asks.then_some(number)).collect())
            }
            Err(nix::Error::EINTR) => Ok(Vec::new()),
            Err(error) => Err(Error::host("wait for the machine's end")(error)),
        }
    }

    /// Answers one request of a party.
    fn serve(&mut self, party: u64) -> Result<Option<Exit>> {
        let reply = match self.parties.hear(party)? {
            Heard::Nothing => return Ok(None),
            Heard::Gone => return self.leave(party),
            Heard::Nonsense(reason) => Err(reason),
            Heard::Request(Message { content: Request::Stop, .. }) if party == OWNER => {
                self.parties.reply(party, Ok(None));
                return Ok(Some(Exit::Stopped));
            }
            Heard::Request(Message { content: Request::Plug(description), files }) => {
                match self.order(party, description, files) {
                    // The answer comes with the device.
                    Ok(()) => return Ok(None),
                    Err(error) => Err(error.to_string()),
                }
            }
            Heard::Request(Message { content: Request::Unplug(index), .. }) => {
                self.plugged.unplug(party, index)?.map(|()| None)
            }
            Heard::Request(_) if party != OWNER => Err("only the machine's owner can ask for that".into()),
            Heard::Request(Message { content, files }) => self.obey(&content, files).map(|()| None),
        };
        self.reply(party, reply)
    }

    /// Does what only the owner may ask for.
    fn obey(&mut self, request: &Request, files: Vec<OwnedFd>) -> std::result::Result<(), String> {
        let file = files.into_iter().next();
        match (request, file) {
            (Request::Save | Request::Admit, None) => return Err("a file must come with the request".into()),
            (Request::Save, Some(file)) => self.save(file.into()).map_err(|error| error.to_string())?,
            (Request::Admit, Some(socket)) => self.parties.admit(socket)?,
            (Request::Pause, _) => self.pause(),
            (Request::Resume, _) => self.resume(),
            (Request::Stop | Request::Plug(_) | Request::Unplug(_), _) => {}
        }
        Ok(())
    }

    /// Who does not take the answer is gone, which for the owner the next round sees.
    fn reply(&mut self, party: u64, reply: Reply) -> Result<Option<Exit>> {
        if self.parties.reply(party, reply) || party == OWNER { Ok(None) } else { self.leave(party) }
    }

    fn leave(&mut self, party: u64) -> Result<Option<Exit>> {
        if party == OWNER {
            return Ok(Some(Exit::Abandoned));
        }
        self.parties.remove(party);
        self.plugged.abandon(party)?;
        Ok(None)
    }

    /// Has a device made.
    fn order(&mut self, party: u64, description: Vec<u8>, files: Vec<OwnedFd>) -> Result<()> {
        let Some(workshop) = &mut self.workshop else {
            return Err(Error::Config("it takes no devices while it runs".into()));
        };
        self.plugged.place()?;
        workshop.order(Job { party, description, files })?;
        self.parties.let_wait(party);
        Ok(())
    }

    /// A device that was ordered has come, or cannot be made.
    fn made(&mut self, Made { party, device }: Made) -> Result<()> {
        if let Some(workshop) = &mut self.workshop {
            workshop.delivered();
        }
        if !self.parties.numbers().any(|number| number == party) {
            // It has gone in the meantime.
            if let Ok(device) = device {
                device.end();
            }
            return Ok(());
        }
        let plugged = device.and_then(|device| self.plugged.plug(party, device));
        self.reply(party, plugged.map(Some).map_err(|error| error.to_string())).map(drop)
    }

    /// Ends everything but the devices that stand.
    pub(super) fn end(mut self, events: &Events) {
        self.processors.stop();
        if let Some(workshop) = self.workshop {
            workshop.end();
        }
        while let Some(event) = events.pop() {
            if let Event::Made(Made { device: Ok(device), .. }) = event {
                device.end();
            }
        }
        self.plugged.end();
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
        if !self.plugged.is_empty() {
            return Err(Error::Config("a machine into which devices were plugged cannot be saved".into()));
        }
        let was_paused = self.paused;
        self.pause();
        let mut vcpus: Vec<_> = self.processors.paused().collect();
        let parts = Parts { config: self.config, vm: self.vm, memory: self.memory, bus: self.bus };
        let result = save::write(&parts, &mut vcpus, &file);
        drop(vcpus);
        if !was_paused {
            self.resume();
        }
        result
    }
}
