//! The devices that were plugged into a machine that runs, each with the party that it belongs to. When a party goes, its
//! devices go as soon as their drivers let them.

use crate::error::{Error, Result};
use crate::kvm::Vm;
use crate::machine::maker::NewDevice;
use crate::machine::wiring;
use crate::platform::Bus;

/// A device that was plugged in.
struct Plugged {
    index: usize,
    /// Nobody's where the party has gone.
    party: Option<u64>,
    device: NewDevice,
}

/// All of them.
pub(super) struct PluggedDevices<'a> {
    vm: &'a Vm,
    bus: &'a Bus,
    devices: Vec<Plugged>,
}

impl<'a> PluggedDevices<'a> {
    pub(super) fn new(vm: &'a Vm, bus: &'a Bus) -> Self {
        Self { vm, bus, devices: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Whether there are devices that wait for their driver to let go.
    pub(super) fn has_orphans(&self) -> bool {
        self.devices.iter().any(|plugged| plugged.party.is_none())
    }

    /// Where the next device goes.
    pub(super) fn place(&self) -> Result<usize> {
        self.bus.free().ok_or_else(|| Error::Config("every place that the guest knows of has a device".into()))
    }

    /// Shows a new device to the guest; the index of its place.
    pub(super) fn plug(&mut self, party: u64, device: NewDevice) -> Result<usize> {
        let connected =
            self.place().and_then(|index| wiring::connect(self.vm, index, &device.transport).map(|()| index));
        match connected {
            Ok(index) => {
                self.bus.put(index, device.transport.clone());
                self.devices.push(Plugged { index, party: Some(party), device });
                Ok(index)
            }
            Err(error) => {
                device.end();
                Err(error)
            }
        }
    }

    /// Takes a device out that the party has plugged in. The reply is the inner result; the machine cannot go on where the
    /// outer one fails.
    pub(super) fn unplug(&mut self, party: u64, index: usize) -> Result<std::result::Result<(), String>> {
        let is_it = |plugged: &Plugged| plugged.index == index && plugged.party == Some(party);
        let Some(at) = self.devices.iter().position(is_it) else {
            return Ok(Err(format!("the one who asks has no device at address {index}")));
        };
        Ok(if self.take_out(at)? { Ok(()) } else { Err(format!("a driver holds the device at address {index}")) })
    }

    /// The party has gone.
    pub(super) fn abandon(&mut self, party: u64) -> Result<()> {
        for plugged in self.devices.iter_mut().filter(|plugged| plugged.party == Some(party)) {
            plugged.party = None;
        }
        self.sweep()
    }

    /// Takes out what belongs to nobody and no driver holds.
    pub(super) fn sweep(&mut self) -> Result<()> {
        for at in (0..self.devices.len()).rev() {
            if self.devices[at].party.is_none() {
                self.take_out(at)?;
            }
        }
        Ok(())
    }

    /// Whether that could be done. A device that cannot be disconnected stays in the list, for KVM may have its page.
    fn take_out(&mut self, at: usize) -> Result<bool> {
        let index = self.devices[at].index;
        if self.bus.take(index).is_none() {
            return Ok(false);
        }
        wiring::disconnect(self.vm, index, &self.devices[at].device.transport)?;
        self.devices.remove(at).device.end();
        Ok(true)
    }

    /// Ends all of them. No vCPU may run any more.
    pub(super) fn end(self) {
        self.devices.into_iter().for_each(|plugged| plugged.device.end());
    }
}
