//! Who the server's thread is towards the host's file systems: the caller in the guest for what it creates, with the
//! thread's own capabilities in either case.
//!
//! The guest's kernel has checked permissions (virtio-fs mounts have `default_permissions`); the host is asked to act, and
//! who owns the result is decided by the thread's file system ids. Those, the umask and the working directory belong to the
//! thread alone after [`Identity::enter`], so that shares do not disturb each other.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::fchdir;

use super::sys;

/// Capability to keep set-user-id and set-group-id while writing (`CAP_FSETID`).
const FSETID: u64 = 1 << 4;

/// Who the thread is. Not `Sync`, and must stay on the thread that made it.
#[derive(Debug)]
pub(in super::super) struct Identity {
    user: Option<u32>,
    group: Option<u32>,
    mask: u32,
    capabilities: sys::Capabilities,
    /// Changing the user takes capabilities out of effect, and they have to be put back.
    restore: bool,
}

impl Identity {
    /// Makes ids, umask and working directory the thread's own. The working directory becomes `proc`, from where calls that
    /// know only paths reach descriptors by their number.
    pub(in super::super) fn enter(proc: BorrowedFd<'_>) -> Result<Self, Errno> {
        unshare(CloneFlags::CLONE_FS)?;
        fchdir(proc)?;
        umask(Mode::empty());
        let bits = sys::secure_bits()?;
        let keeps = bits & libc::SECBIT_NO_SETUID_FIXUP != 0
            || sys::set_secure_bits(bits | libc::SECBIT_NO_SETUID_FIXUP).is_ok();
        Ok(Self { user: None, group: None, mask: 0, capabilities: sys::capabilities()?, restore: !keeps })
    }

    /// From here on, what is created belongs to this user and group.
    ///
    /// # Errors
    /// `EPERM` where the thread may not act as them (a server without `CAP_SETUID`, `CAP_SETGID`, or an id that the user
    /// namespace does not have).
    pub(in super::super) fn act_as(&mut self, user: u32, group: u32) -> Result<(), Errno> {
        if self.group != Some(group) {
            self.group = None;
            sys::set_fs_id(libc::SYS_setfsgid, group)?;
            self.group = Some(group);
        }
        if self.user != Some(user) {
            self.user = None;
            sys::set_fs_id(libc::SYS_setfsuid, user)?;
            self.user = Some(user);
            if self.restore {
                sys::set_capabilities(self.capabilities)?;
            }
        }
        Ok(())
    }

    /// From here on, what is created is masked with the caller's umask, by the host's kernel: it knows whether a default
    /// access control list takes the mask's place.
    pub(in super::super) fn mask_with(&mut self, mask: u32) {
        let mask = mask & 0o777;
        if self.mask != mask {
            umask(Mode::from_bits_truncate(mask));
            self.mask = mask;
        }
    }

    /// Does something as one who may not keep set-user-id and set-group-id: the host's kernel then takes them away.
    pub(in super::super) fn without_fsetid<T>(&self, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if self.capabilities.effective & FSETID == 0 {
            return act();
        }
        let reduced = self.capabilities.effective & !FSETID;
        sys::set_capabilities(sys::Capabilities { effective: reduced, ..self.capabilities })?;
        let result = act();
        sys::set_capabilities(self.capabilities)?;
        result
    }
}
