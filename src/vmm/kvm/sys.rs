//! What of KVM's interface cannot be had safely: memory slots, the fields of the shared `kvm_run` page, large XSAVE
//! areas, and taking a thread out of `KVM_RUN`.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{KVM_MEM_READONLY, KVMIO, Xsave, kvm_pre_fault_memory, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use crate::kvm::vm::Slot;

/// Shows memory of this process to the guest.
///
/// `host` must be the start of a mapping of `slot.bytes` bytes that stays for as long as the machine, or until [`unmap`]: RAM
/// belongs to the machine, mapped files are never unmapped (`crate::memory`), and registers go with their device, after
/// `unmap`.
pub(super) fn map(vm: &VmFd, slot: &Slot, host: *mut u8) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot: slot.number,
        flags: if slot.read_only { KVM_MEM_READONLY } else { 0 },
        guest_phys_addr: slot.guest,
        memory_size: slot.bytes,
        userspace_addr: host as u64,
    };
    // SAFETY: the caller gives memory that is mapped for as long as the machine (see above), and every access of ours to
    // it is volatile, so the guest's writes break no assumption of the compiler.
    unsafe { vm.set_user_memory_region(region) }
}

/// Takes memory away from the guest: no access of it reaches the memory after this.
pub(super) fn unmap(vm: &VmFd, slot: &Slot) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot: slot.number,
        flags: 0,
        guest_phys_addr: slot.guest,
        memory_size: 0,
        userspace_addr: 0,
    };
    // SAFETY: a region without bytes shows nothing of this process.
    unsafe { vm.set_user_memory_region(region) }
}

ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);

/// Makes the second-level page tables of a piece of guest memory, as far as the host has its pages.
pub(super) fn map_pages(vcpu: &VcpuFd, gpa: u64, size: u64) -> Result<(), kvm_ioctls::Error> {
    let mut range = kvm_pre_fault_memory { gpa, size, ..Default::default() };
    while range.size > 0 {
        // SAFETY: the kernel writes to the range, which lives, how far it came.
        let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), &mut range) };
        if result < 0 {
            let error = kvm_ioctls::Error::last();
            if !matches!(error.errno(), libc::EINTR | libc::EAGAIN) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Takes a vCPU's thread out of `KVM_RUN`, and keeps it from going in.
#[derive(Debug)]
pub struct Kick {
    immediate_exit: *const AtomicU8,
}

// SAFETY: the pointer is to a byte that is only accessed atomically, here and by KVM.
unsafe impl Send for Kick {}
// SAFETY: as above.
unsafe impl Sync for Kick {}

impl Kick {
    /// For a vCPU. The kick may not outlive it.
    pub(super) fn new(vcpu: &mut VcpuFd) -> Self {
        let byte = &raw mut vcpu.get_kvm_run().immediate_exit;
        Self { immediate_exit: byte.cast() }
    }

    /// From now on `KVM_RUN` returns at once, until [`Kick::clear`].
    pub fn set(&self) {
        // SAFETY: the page is mapped while the vCPU lives, which its owner outlives (see `new`); a byte has no alignment.
        unsafe { &*self.immediate_exit }.store(1, Ordering::SeqCst);
    }

    /// `KVM_RUN` runs the guest again.
    pub fn clear(&self) {
        // SAFETY: as in `set`.
        unsafe { &*self.immediate_exit }.store(0, Ordering::SeqCst);
    }

    /// Interrupts the thread, which may be in `KVM_RUN`. Comes after [`Kick::set`]: whether the thread is before the call
    /// or in it, it comes back.
    pub fn interrupt(thread: &impl JoinHandleExt) {
        // SAFETY: a handle that was not joined names a thread whose description is still there, even when it has ended.
        unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, signal()) };
    }
}

/// The signal that interrupts. The first real-time signals belong to the C library.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

extern "C" fn ignore(_: libc::c_int) {}

/// Makes the signal of [`Kick::interrupt`] harmless: a handler that does nothing, without restart of system calls.
pub fn prepare_kicks() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        // SAFETY: a zeroed `sigaction` is a valid one (no flags, empty mask).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as *const () as usize;
        // SAFETY: the action is valid and its handler touches nothing.
        if unsafe { libc::sigaction(signal(), &raw const action, ptr::null_mut()) } != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}

/// The words that KVM adds to an internal error.
pub(super) struct InternalError {
    /// `KVM_INTERNAL_ERROR_*`.
    pub(super) suberror: u32,
    /// Details; their meaning depends on the error.
    pub(super) data: Vec<u64>,
}

/// Reads the details of `KVM_EXIT_INTERNAL_ERROR`, which must be the exit that has just happened.
pub(super) fn internal_error(vcpu: &mut VcpuFd) -> InternalError {
    // SAFETY: every bit pattern is a value of this part of the union, which is plain numbers.
    let internal = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let count = (internal.ndata as usize).min(internal.data.len());
    InternalError { suberror: internal.suberror, data: internal.data[..count].to_vec() }
}

/// Reads the state of the extended registers, which may be larger than 4 KiB (AMX). `area` must have been made for the
/// size that `KVM_CAP_XSAVE2` says.
pub(super) fn xsave(vcpu: &VcpuFd, area: &mut Xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the only caller, `Vcpu::save`, makes the area as large as KVM says.
    unsafe { vcpu.get_xsave2(area) }
}

/// Writes the state of the extended registers. `area` must be at least as large as `KVM_CAP_XSAVE2` says.
pub(super) fn set_xsave(vcpu: &VcpuFd, area: &Xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the only caller, `Vcpu::restore`, has compared the size with what KVM says.
    unsafe { vcpu.set_xsave2(area) }
}
