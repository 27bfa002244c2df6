//! Capability names, sets as bits, and the steps that put them on around a change of user.
//!
//! Everything that can fail for reasons of input, or that allocates, happens in [`CapSets::from_plan`]. The steps
//! are single system calls on bits and are safe between `clone` and `execve`. Their order is:
//!
//! ```text
//!   drop_bounding(&sets.bounding)      while CAP_SETPCAP is still effective
//!   keep_over_setuid()                 permitted survives the next line
//!   setgroups, setgid, setuid          the kernel clears effective and ambient here
//!   forget_over_setuid()               execve clears it too; the user's program must not see it
//!   set(&sets)                         effective, permitted, inheritable
//!   raise_ambient(&sets)               ambient must be permitted and inheritable already
//!   seccomp filter, execve
//! ```

mod sys;

use nix::errno::Errno;

use crate::plan;

/// Names of all capabilities, at the index that is their number (capabilities(7), `linux/capability.h`).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Bits that the kernel can hold in a set (`_LINUX_CAPABILITY_U32S_3` words of 32 bits).
const BITS: u8 = 64;

/// Why capability sets cannot be made from a plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kernel has it.
    #[error("unknown capability {name:?} in the {set} set; names look like \"CAP_CHOWN\" (capabilities(7))")]
    Unknown {
        /// As the plan has it.
        name: String,
        /// `bounding`, `effective`, …
        set: &'static str,
    },
    /// A newer kernel has it.
    #[error("the running kernel does not have capability {name} of the {set} set; it knows up to {last}")]
    NotInKernel {
        /// `CAP_BPF`.
        name: &'static str,
        /// `bounding`, `effective`, …
        set: &'static str,
        /// The last one that the kernel has.
        last: &'static str,
    },
    /// The creator may not have it itself.
    #[error("capability {0} is not held by sbx itself and cannot be given: leave it out, or run sbx with it")]
    NotHeld(String),
    /// `capset` would fail with EPERM.
    #[error("capability {name} is effective but not permitted; add it to the permitted set")]
    NotPermitted {
        /// `CAP_BPF`.
        name: &'static str,
    },
}

/// A set of capabilities: bit n is capability number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// The set with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bit n is capability number n.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether capability `number` is in the set.
    #[must_use]
    pub const fn contains(self, number: u8) -> bool {
        number < BITS && self.0 >> number & 1 == 1
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Names of the members in the order of their numbers. Bits that have no name here are left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..BITS).zip(NAMES).filter(move |(number, _)| self.contains(*number)).map(|(_, name)| name)
    }
}

/// The five sets of a process, checked against the running kernel (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in capabilities(7)")]
pub struct CapSets {
    pub bounding: CapSet,
    pub effective: CapSet,
    pub inheritable: CapSet,
    pub permitted: CapSet,
    /// Only what is also permitted and inheritable: the kernel refuses the rest, and with the empty inheritable set
    /// that containers get (CVE-2022-24769) that is everything. runc drops these with a warning.
    pub ambient: CapSet,
}

impl CapSets {
    /// Makes sets from names. Asks the running kernel which capabilities it has (one to seven calls of prctl(2)).
    ///
    /// # Errors
    /// A name that no kernel knows, a name that this kernel does not know yet, and an effective capability that is
    /// not permitted.
    pub fn from_plan(plan: &plan::Capabilities) -> Result<Self, Error> {
        Self::for_kernel(plan, last())
    }

    fn for_kernel(plan: &plan::Capabilities, last: u8) -> Result<Self, Error> {
        let inheritable = parse(&plan.inheritable, "inheritable", last)?;
        let permitted = parse(&plan.permitted, "permitted", last)?;
        let effective = parse(&plan.effective, "effective", last)?;
        if let Some(name) = effective.without(permitted).names().next() {
            return Err(Error::NotPermitted { name });
        }
        let ambient = parse(&plan.ambient, "ambient", last)?.common(permitted).common(inheritable);
        let bounding = parse(&plan.bounding, "bounding", last)?;
        Ok(Self { bounding, effective, inheritable, permitted, ambient })
    }
}

fn parse(names: &[String], set: &'static str, last: u8) -> Result<CapSet, Error> {
    let mut bits = 0;
    for name in names {
        let number = number(name).ok_or_else(|| Error::Unknown { name: name.clone(), set })?;
        if number > last {
            let name = NAMES[usize::from(number)];
            return Err(Error::NotInKernel { name, set, last: NAMES[usize::from(last)] });
        }
        bits |= 1 << number;
    }
    Ok(CapSet(bits))
}

impl CapSets {
    /// What of these sets this process can give: a creator that lacks a capability cannot hand it on.
    ///
    /// Whoever asks for all capabilities, or for all but some (`--privileged`, `--cap-add ALL`), gets those that there are.
    ///
    /// # Errors
    /// A capability that was asked for by name and that this process may not have itself.
    pub fn that_can_be_given(self) -> Result<Self, Error> {
        let own = own_bounding();
        let lacking = self.permitted.without(own);
        if lacking == CapSet::default() {
            return Ok(self);
        }
        let asked_by_name = own.without(self.permitted).bits().count_ones() > own.bits().count_ones() / 2;
        if asked_by_name {
            return Err(Error::NotHeld(lacking.names().next().unwrap_or("?").to_owned()));
        }
        Ok(Self {
            bounding: self.bounding.common(own),
            effective: self.effective.common(own),
            inheritable: self.inheritable.common(own),
            permitted: self.permitted.common(own),
            ambient: self.ambient.common(own),
        })
    }
}

/// The bounding set of this process (prctl(2), PR_CAPBSET_READ).
fn own_bounding() -> CapSet {
    let held = |number: &u8| {
        crate::sys::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(*number)).is_ok_and(|held| held == 1)
    };
    (0..=last()).filter(held).fold(CapSet::default(), |set, number| CapSet(set.0 | 1 << number))
}

/// Number of a capability by its exact name (`CAP_CHOWN` is 0).
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    NAMES.iter().position(|known| *known == name).and_then(|index| u8::try_from(index).ok())
}

/// Name of capability `number`.
#[must_use]
pub fn name(number: u8) -> Option<&'static str> {
    NAMES.get(usize::from(number)).copied()
}

/// Number of the last capability that both the running kernel and [`NAMES`] know. Needs no `/proc`.
#[must_use]
pub fn last() -> u8 {
    // PR_CAPBSET_READ answers EINVAL for a number that the kernel does not know.
    let mut known = NAMES.len() - 1;
    while known > 0 && sys::bounding_has(known as u8).is_err() {
        known -= 1;
    }
    known as u8
}

/// Drops every capability that is not in `keep` from the bounding set, also those that have no name here.
/// Async-signal-safe.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP, if there was anything to drop.
pub fn drop_bounding(keep: &CapSet) -> Result<(), Errno> {
    for number in 0..BITS {
        match sys::bounding_has(number) {
            Ok(true) if !keep.contains(number) => sys::bounding_drop(number)?,
            Ok(_) => {}
            Err(Errno::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the permitted set survive a change from root to another user (PR_SET_KEEPCAPS). Async-signal-safe.
///
/// # Errors
/// `EPERM` where securebits lock it.
pub fn keep_over_setuid() -> Result<(), Errno> {
    sys::set_keep_caps(1)
}

/// Undoes [`keep_over_setuid`]. Async-signal-safe.
///
/// # Errors
/// `EPERM` where securebits lock it.
pub fn forget_over_setuid() -> Result<(), Errno> {
    sys::set_keep_caps(0)
}

/// Sets the effective, permitted and inheritable sets of the calling thread (capset(2)). The kernel takes what is
/// no longer permitted or inheritable out of the ambient set by itself. Async-signal-safe.
///
/// # Errors
/// `EPERM` where the permitted set would grow, or the inheritable set would exceed the bounding set.
pub fn set(sets: &CapSets) -> Result<(), Errno> {
    sys::capset(sets)
}

/// Makes the ambient set what the plan has: clears it, then raises one by one. Call it after [`set`].
/// Async-signal-safe.
///
/// # Errors
/// `EPERM` where securebits forbid it.
pub fn raise_ambient(sets: &CapSets) -> Result<(), Errno> {
    sys::ambient_clear()?;
    for number in 0..BITS {
        if sets.ambient.contains(number) {
            sys::ambient_raise(number)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn plan(permitted: &[&str]) -> plan::Capabilities {
        let names: Vec<String> = permitted.iter().map(|name| (*name).to_owned()).collect();
        plan::Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names,
            ..plan::Capabilities::default()
        }
    }

    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd` and `CapAmb` of the calling thread.
    fn current() -> [u64; 5] {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("read the status");
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| {
            let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
            u64::from_str_radix(line.expect("has the set"), 16).expect("is hexadecimal")
        })
    }

    /// Runs `steps` in a thread of its own: capabilities belong to threads.
    fn in_thread<T: Send>(steps: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(steps).join()).expect("the thread ends")
    }

    fn is_root() -> bool {
        let root = nix::unistd::geteuid().is_root() && current()[1] != 0;
        if !root {
            println!("SKIP: changing capabilities needs root");
        }
        root
    }

    #[test]
    fn names_and_numbers_match() {
        for (number, name) in (0..).zip(NAMES) {
            assert_eq!(super::number(name), Some(number));
            assert_eq!(super::name(number), Some(name));
        }
        assert_eq!(number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!((number("cap_chown"), number("CHOWN"), name(41)), (None, None, None));
        assert_eq!(CapSet::from_bits(0b10_0001).names().collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_KILL"]);
        assert!(!CapSet::from_bits(u64::MAX).contains(64));
    }

    #[test]
    fn the_last_capability_is_that_of_the_kernel() {
        let kernels = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("read it");
        let kernels: u8 = kernels.trim().parse().expect("is a number");
        assert_eq!(last(), kernels.min(40));
    }

    #[test]
    fn a_plan_becomes_sets_of_bits() {
        let sets = CapSets::from_plan(&plan(&["CAP_CHOWN", "CAP_KILL"])).expect("is good");
        assert_eq!((sets.effective.bits(), sets.permitted.bits(), sets.bounding.bits()), (0x21, 0x21, 0x21));
        assert_eq!((sets.inheritable.bits(), sets.ambient.bits()), (0, 0));
        let mut ambient = plan(&["CAP_CHOWN", "CAP_KILL"]);
        ambient.ambient = vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned(), "CAP_FOWNER".to_owned()];
        ambient.inheritable = vec!["CAP_KILL".to_owned(), "CAP_FOWNER".to_owned()];
        let sets = CapSets::from_plan(&ambient).expect("is good");
        assert_eq!(sets.ambient.names().collect::<Vec<_>>(), ["CAP_KILL"]);
    }

    #[test]
    fn a_plan_that_the_kernel_cannot_hold_is_refused_by_name() {
        let error = CapSets::from_plan(&plan(&["CAP_FOO"])).expect_err("is unknown").to_string();
        assert!(error.contains("\"CAP_FOO\" in the permitted set"), "{error}");
        let error = CapSets::for_kernel(&plan(&["CAP_BPF"]), 37).expect_err("is newer").to_string();
        assert!(error.contains("CAP_BPF") && error.contains("CAP_AUDIT_READ"), "{error}");
        let mut effective = plan(&["CAP_CHOWN"]);
        effective.effective.push("CAP_KILL".to_owned());
        let error = CapSets::from_plan(&effective).expect_err("is not permitted").to_string();
        assert!(error.contains("CAP_KILL is effective but not permitted"), "{error}");
    }

    #[test]
    fn the_steps_leave_another_user_with_exactly_the_sets() {
        if !is_root() {
            return;
        }
        let sets = CapSets::from_plan(&plan(&["CAP_CHOWN", "CAP_NET_BIND_SERVICE"])).expect("is good");
        let found = in_thread(|| {
            drop_bounding(&sets.bounding).expect("drop the bounding set");
            keep_over_setuid().expect("keep");
            sys::set_user_of_thread(65534).expect("become nobody");
            forget_over_setuid().expect("forget");
            set(&sets).expect("set");
            raise_ambient(&sets).expect("raise");
            current()
        });
        assert_eq!(found, [0, 0x401, 0x401, 0x401, 0]);
    }

    #[test]
    fn ambient_capabilities_are_raised_where_they_are_inheritable() {
        if !is_root() {
            return;
        }
        let mut inherited = plan(&["CAP_CHOWN", "CAP_KILL"]);
        inherited.inheritable = vec!["CAP_KILL".to_owned()];
        inherited.ambient = vec!["CAP_KILL".to_owned(), "CAP_CHOWN".to_owned()];
        let sets = CapSets::from_plan(&inherited).expect("is good");
        let found = in_thread(|| {
            drop_bounding(&sets.bounding).expect("drop the bounding set");
            set(&sets).expect("set");
            raise_ambient(&sets).expect("raise");
            current()
        });
        assert_eq!(found, [0x20, 0x21, 0x21, 0x21, 0x20]);
    }

    #[test]
    fn without_the_right_to_nothing_is_dropped_or_gained() {
        if !is_root() {
            return;
        }
        in_thread(|| {
            set(&CapSets::default()).expect("drop all");
            assert_eq!(drop_bounding(&CapSet::default()), Err(Errno::EPERM));
            let chown = CapSets::from_plan(&plan(&["CAP_CHOWN"])).expect("is good");
            assert_eq!(set(&chown), Err(Errno::EPERM));
            assert_eq!(drop_bounding(&CapSet::from_bits(u64::MAX)), Ok(()));
        });
    }
}
