//! Why a vCPU came back from the guest, in our words. The one place that knows KVM's exits.

use kvm_ioctls::VcpuExit;

/// Why a vCPU came back. Reads wait for their answer in `data`.
#[derive(Debug)]
pub enum Returned<'a> {
    /// The guest reads from a port.
    PortRead {
        /// The port.
        port: u16,
        /// Where the answer goes.
        data: &'a mut [u8],
    },
    /// The guest writes to a port.
    PortWrite {
        /// The port.
        port: u16,
        /// What it writes; several values where it is a string instruction.
        data: &'a [u8],
    },
    /// The guest reads memory that is not there.
    MemoryRead {
        /// Guest-physical address.
        address: u64,
        /// Where the answer goes.
        data: &'a mut [u8],
    },
    /// The guest writes memory that is not there, or that is read-only.
    MemoryWrite {
        /// Guest-physical address.
        address: u64,
        /// What it writes.
        data: &'a [u8],
    },
    /// Nothing happened: a signal, or somebody wants this thread back.
    Interrupted,
    /// The guest waits for an interrupt. Only without KVM's interrupt controllers, as in the probe.
    Halted,
    /// The guest had a fault while it handled a fault while it handled a fault.
    TripleFault,
    /// KVM cannot go on with this guest; what it said.
    Stuck(Stuck),
}

/// Why KVM cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// `KVM_EXIT_INTERNAL_ERROR`: details are to be read from the vCPU.
    Internal,
    /// The processor refused the guest's state.
    Entry {
        /// The processor's reason.
        reason: u64,
    },
    /// The host could not give memory.
    Memory {
        /// Guest-physical address.
        address: u64,
    },
    /// Another exit, which this machine never asks for.
    Other(String),
}

/// Translates an exit. `Err` is an error of the system call that says nothing about the guest.
pub(super) fn translate(
    exit: Result<VcpuExit<'_>, kvm_ioctls::Error>,
) -> std::result::Result<Returned<'_>, kvm_ioctls::Error> {
    Ok(match exit {
        Ok(VcpuExit::IoIn(port, data)) => Returned::PortRead { port, data },
        Ok(VcpuExit::IoOut(port, data)) => Returned::PortWrite { port, data },
        Ok(VcpuExit::MmioRead(address, data)) => Returned::MemoryRead { address, data },
        Ok(VcpuExit::MmioWrite(address, data)) => Returned::MemoryWrite { address, data },
        Ok(VcpuExit::Hlt) => Returned::Halted,
        Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Returned::Interrupted,
        Ok(VcpuExit::Shutdown) => Returned::TripleFault,
        Ok(VcpuExit::InternalError) => Returned::Stuck(Stuck::Internal),
        Ok(VcpuExit::FailEntry(reason, _)) => Returned::Stuck(Stuck::Entry { reason }),
        Ok(VcpuExit::MemoryFault { gpa, .. }) => Returned::Stuck(Stuck::Memory { address: gpa }),
        Ok(other) => Returned::Stuck(Stuck::Other(format!("{other:?}"))),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Returned::Interrupted,
        Err(error) => return Err(error),
    })
}

#[cfg(test)]
mod tests {
    use kvm_ioctls::{Error, VcpuExit};

    use super::{Returned, Stuck, translate};

    #[test]
    fn signals_are_no_errors() {
        for errno in [libc::EINTR, libc::EAGAIN] {
            assert!(matches!(translate(Err(Error::new(errno))), Ok(Returned::Interrupted)));
        }
        assert_eq!(translate(Err(Error::new(libc::EFAULT))).unwrap_err().errno(), libc::EFAULT);
    }

    #[test]
    fn exits_that_nobody_asked_for_are_told_by_name() {
        let Ok(Returned::Stuck(Stuck::Other(name))) = translate(Ok(VcpuExit::Hyperv)) else { panic!("not stuck") };
        assert_eq!(name, "Hyperv");
        assert!(matches!(translate(Ok(VcpuExit::Shutdown)), Ok(Returned::TripleFault)));
    }
}
