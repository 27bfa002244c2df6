//! Whether KVM can run a kernel here. Asking the interface is not enough: some sandboxes have a `/dev/kvm` that answers
//! every question right and then interprets a kernel's instructions one by one, but not all of them. So real ring-0 code
//! runs for some milliseconds.

mod guest;

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::{Cap, Kvm};

use crate::error::Error;
use crate::kvm::{Kick, Returned, Start, Vcpu, Vm, prepare_kicks};
use crate::memory::{Memory, SMALLEST};
use crate::virtio::thread::panic_text;

/// The only version of KVM's interface since Linux 2.6.22.
const API_VERSION: i32 = 12;
/// What the machine needs of KVM, by the names of its documentation.
const NEEDED: [(Cap, &str); 11] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
];
/// An instruction takes some nanoseconds at most, even where the processor is QEMU's; interpreted by a kernel, 500 and
/// more.
const SLOWEST: Duration = Duration::from_nanos(200);
/// The loop is timed this often and the best counts: the host may have other things to do meanwhile.
const TRIES: usize = 3;
/// Longer than any machine takes for the probe's code.
const PATIENCE: Duration = Duration::from_secs(10);

/// What KVM here can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmFacts {
    /// The most processors of a machine.
    pub vcpus: usize,
    /// How long one ring-0 instruction takes.
    pub instruction: Duration,
}

/// Why no machine can run here, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// There is no KVM.
    #[error(
        "there is no /dev/kvm: the processor's virtualisation is switched off in the firmware, or this is itself a virtual \
         machine without nested virtualisation, or the module kvm_intel or kvm_amd is not loaded (modprobe it)"
    )]
    Missing,
    /// KVM may not be used.
    #[error("/dev/kvm may not be opened by this user: join the group that owns it (usually kvm), or run as root")]
    Forbidden,
    /// Another program has the processor's virtualisation.
    #[error("another hypervisor (VirtualBox, VMware) is using the processor's virtualisation: stop it")]
    Busy,
    /// It is something else.
    #[error("/dev/kvm speaks version {0} of its interface, not 12: it is not KVM as Linux has it")]
    Version(i32),
    /// It is too old, or for another processor.
    #[error("this kernel's KVM lacks {0}: Linux 5.10 or later on x86-64 has it")]
    Lacks(String),
    /// It only looks like KVM.
    #[error(
        "this /dev/kvm is emulated in software and cannot run a kernel ({0}): use a machine whose processor has vmx or \
         svm in /proc/cpuinfo"
    )]
    Emulated(String),
    /// A step failed.
    #[error("KVM: {0}")]
    Refused(#[from] Error),
}

/// Finds out whether a machine can run here, in some milliseconds. The process has the same threads afterwards.
pub fn kvm_usable() -> Result<KvmFacts, Obstacle> {
    let kvm = open()?;
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        best = best.min(run(&kvm)?);
        if best < SLOWEST {
            return Ok(KvmFacts { vcpus: kvm.get_max_vcpus(), instruction: best });
        }
    }
    Err(Obstacle::Emulated(format!("one instruction of a kernel takes {} ns", best.as_nanos())))
}

fn open() -> Result<Kvm, Obstacle> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Obstacle::Missing,
        libc::EACCES | libc::EPERM => Obstacle::Forbidden,
        _ => Obstacle::Refused(Error::host("open /dev/kvm")(error)),
    })?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(Obstacle::Version(version));
    }
    let lacking: Vec<&str> =
        NEEDED.iter().filter(|(cap, _)| !kvm.check_extension(*cap)).map(|(_, name)| *name).collect();
    if lacking.is_empty() { Ok(kvm) } else { Err(Obstacle::Lacks(lacking.join(", "))) }
}

/// Runs the guest's code once; how long one instruction took.
fn run(kvm: &Kvm) -> Result<Duration, Obstacle> {
    let vm = Vm::new(kvm).map_err(|error| match error {
        Error::Host { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => Obstacle::Busy,
        error => Obstacle::Refused(error),
    })?;
    let memory = Memory::empty(SMALLEST)?;
    memory.attach_ram(&vm)?;
    guest::write(memory.ram())?;
    let mut vcpu = Vcpu::new(&vm, 0, 1)?;
    vcpu.enter(Start::Linux { entry: guest::CODE })?;
    prepare_kicks().map_err(Error::host("prepare to interrupt the probe"))?;
    let kick = vcpu.kick();
    let (reply, answer) = channel();
    // On a thread of its own, for a software KVM may not come back by itself. The vCPU comes back with its result, since
    // the kick must not outlive it.
    let thread = thread::Builder::new()
        .name("probe".into())
        .spawn(move || {
            let result = step_through(&mut vcpu, &memory);
            // Nobody listens any more where the patience was at its end.
            let _late = reply.send(());
            (vcpu, result)
        })
        .map_err(Error::host("start the probe's thread"))?;
    if answer.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        kick.set();
        Kick::interrupt(&thread);
    }
    match thread.join() {
        Ok((_vcpu, result)) => result,
        Err(panic) => {
            let (thread, message) = ("probe".into(), panic_text(panic.as_ref()));
            Err(Obstacle::Refused(Error::Panic { thread, message }))
        }
    }
}

/// Lets the guest do one part after the other.
fn step_through(vcpu: &mut Vcpu, memory: &Memory) -> Result<Duration, Obstacle> {
    let mut before = Instant::now();
    let mut instruction = Duration::MAX;
    for (number, part) in (1_u8..).zip(&guest::PARTS) {
        let reason = match vcpu.run().map_err(Error::host("run the probe"))? {
            Returned::PortWrite { port: guest::PORT, data } if *data == [number] => None,
            Returned::Interrupted => Some(format!("it does not end within {} s", PATIENCE.as_secs())),
            Returned::Stuck(stuck) => Some(vcpu.fault(&stuck, memory.ram()).to_string()),
            other => {
                let what = format!("{other:?}");
                Some(vcpu.describe(format!("it came back with {what}"), memory.ram()).to_string())
            }
        };
        if let Some(reason) = reason {
            return Err(Obstacle::Emulated(format!("it fails at {}: {reason}", part.name)));
        }
        if number == guest::LOOP {
            instruction = before.elapsed() / (2 * guest::ROUNDS);
        }
        before = Instant::now();
    }
    Ok(instruction)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Obstacle, kvm_usable};

    /// Whether the processor's virtualisation is there, as Linux says it.
    fn real() -> bool {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        fs::exists("/dev/kvm").unwrap() && flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
    }

    #[test]
    fn the_probe_says_what_the_processor_says() {
        match kvm_usable() {
            Ok(facts) => {
                assert!(real(), "{facts:?} on a processor without vmx and svm");
                println!("usable: {facts:?}");
            }
            Err(obstacle) => {
                assert!(!real(), "{obstacle} on a processor with vmx or svm");
                println!("not usable: {obstacle}");
                let expected = if fs::exists("/dev/kvm").unwrap() {
                    matches!(obstacle, Obstacle::Emulated(_) | Obstacle::Forbidden)
                } else {
                    matches!(obstacle, Obstacle::Missing)
                };
                assert!(expected, "{obstacle:?}");
            }
        }
    }
}
