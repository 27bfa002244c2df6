//! What of a device goes past our code: KVM knows its queues' and its interrupt's eventfds and shows its registers.

use crate::error::Result;
use crate::kvm::Vm;
use crate::layout;
use crate::memory;
use crate::virtio::Transport;
use crate::virtio::mmio::{ACKNOWLEDGE_REGISTER, KICK_REGISTER};

/// Connects a device at an address, by its index. Undone where that fails half-way.
pub(super) fn connect(vm: &Vm, index: usize, device: &Transport) -> Result<()> {
    let connected = connect_all(vm, index, device);
    if connected.is_err() {
        // What was not connected cannot be disconnected, and the registers come last.
        let _some = disconnect_events(vm, index, device);
    }
    connected
}

fn connect_all(vm: &Vm, index: usize, device: &Transport) -> Result<()> {
    let registers = layout::device(index);
    for (queue, kick) in device.kicks() {
        vm.connect_kick(registers + KICK_REGISTER, queue, kick)?;
    }
    let interrupt = device.interrupt();
    vm.connect_interrupt(interrupt.line(), layout::device_irq(index))?;
    vm.swallow(registers + ACKNOWLEDGE_REGISTER, interrupt.acknowledgements())?;
    memory::attach_registers(vm, index, interrupt.page())
}

/// Disconnects a device. Where this fails, KVM may still read its registers' page, which must stay then.
pub(super) fn disconnect(vm: &Vm, index: usize, device: &Transport) -> Result<()> {
    memory::detach_registers(vm, index)?;
    disconnect_events(vm, index, device)
}

/// Goes on where something fails, and says what did first.
fn disconnect_events(vm: &Vm, index: usize, device: &Transport) -> Result<()> {
    let registers = layout::device(index);
    let mut all: Vec<Result<()>> = Vec::new();
    for (queue, kick) in device.kicks() {
        all.push(vm.disconnect_kick(registers + KICK_REGISTER, queue, kick));
    }
    let interrupt = device.interrupt();
    all.push(vm.disconnect_interrupt(interrupt.line(), layout::device_irq(index)));
    all.push(vm.let_through(registers + ACKNOWLEDGE_REGISTER, interrupt.acknowledgements()));
    all.into_iter().collect()
}
