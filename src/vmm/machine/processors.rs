//! The vCPUs' threads: they run the guest, answer what it asks of the bus, and stand still together when they are told.
//!
//! ```text
//!             all are told and kicked             all have parked
//!   running ────────────────────────▶ (pausing) ──────────────────▶ parked ──▶ stopped
//!      ▲                                                               │
//!      └───────────────────────────────────────────────────────────────┘
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vm_memory::GuestMemoryMmap;

use crate::error::{Error, Result};
use crate::kvm::{Kick, Returned, Vcpu, prepare_kicks};
use crate::machine::events::{Event, Events};
use crate::machine::{Exit, STACK};
use crate::platform::{Bus, End};
use crate::virtio::thread::panic_text;

/// What the vCPUs shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Park,
    Run,
    Stop,
}

#[derive(Debug)]
struct State {
    want: Want,
    parked: usize,
    alive: usize,
}

/// Where vCPUs wait while they may not run.
#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, while_: impl FnMut(&mut State) -> bool) -> MutexGuard<'a, State> {
        self.changed.wait_while(state, while_).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it may run; `false` where it shall end.
    fn pass(&self, kick: &Kick) -> bool {
        let mut state = self.lock();
        state.parked += 1;
        self.changed.notify_all();
        let mut state = self.wait(state, |state| state.want == Want::Park);
        state.parked -= 1;
        // Under the lock: whoever kicks from now on, kicks after this.
        kick.clear();
        state.want == Want::Run
    }

    fn is_open(&self) -> bool {
        self.lock().want == Want::Run
    }
}

/// What a vCPU's thread works with.
struct Thread {
    vcpu: Arc<Mutex<Vcpu>>,
    kick: Arc<Kick>,
    gate: Arc<Gate>,
    bus: Arc<Bus>,
    memory: GuestMemoryMmap,
    events: Arc<Events>,
}

/// What is done on a thread of its own before the first instruction of the guest; the vCPU ends where it fails.
pub(super) type Enter = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// All vCPUs of a machine.
pub(super) struct Processors {
    vcpus: Vec<(Arc<Mutex<Vcpu>>, Arc<Kick>)>,
    threads: Vec<JoinHandle<()>>,
    gate: Arc<Gate>,
}

/// What vCPUs share.
pub(super) struct Environment {
    pub(super) bus: Arc<Bus>,
    pub(super) memory: GuestMemoryMmap,
    pub(super) events: Arc<Events>,
}

impl Processors {
    /// Starts a thread for each vCPU, which waits. Comes back when all wait, with `enter` done.
    pub(super) fn start(vcpus: Vec<Vcpu>, environment: &Environment, enter: &Enter) -> Result<Self> {
        prepare_kicks().map_err(Error::host("prepare to interrupt vCPUs"))?;
        let state = State { want: Want::Park, parked: 0, alive: vcpus.len() };
        let gate = Arc::new(Gate { state: Mutex::new(state), changed: Condvar::new() });
        let mut processors = Self { vcpus: Vec::new(), threads: Vec::new(), gate };
        for mut vcpu in vcpus {
            let (index, kick) = (vcpu.index(), Arc::new(vcpu.kick()));
            let vcpu = Arc::new(Mutex::new(vcpu));
            let thread = Thread {
                vcpu: vcpu.clone(),
                kick: kick.clone(),
                gate: processors.gate.clone(),
                bus: environment.bus.clone(),
                memory: environment.memory.clone(),
                events: environment.events.clone(),
            };
            let enter = enter.clone();
            let handle = thread::Builder::new()
                .stack_size(STACK)
                .name(format!("vcpu{index}"))
                .spawn(move || thread.body(&enter))
                .map_err(Error::host(format!("start the thread of vCPU {index}")))?;
            processors.vcpus.push((vcpu, kick));
            processors.threads.push(handle);
        }
        processors.wait_parked();
        Ok(processors)
    }

    /// Lets the guest run.
    pub(super) fn resume(&self) {
        self.gate.lock().want = Want::Run;
        self.gate.changed.notify_all();
    }

    /// Comes back when no vCPU runs any more.
    pub(super) fn pause(&self) {
        self.call_back(Want::Park);
        self.wait_parked();
    }

    fn call_back(&self, want: Want) {
        let mut state = self.gate.lock();
        state.want = want;
        self.vcpus.iter().for_each(|(_, kick)| kick.set());
        drop(state);
        self.threads.iter().for_each(Kick::interrupt);
        self.gate.changed.notify_all();
    }

    fn wait_parked(&self) {
        let _all_parked = self.gate.wait(self.gate.lock(), |state| state.parked < state.alive);
    }

    /// The vCPUs, which must be paused.
    pub(super) fn paused(&self) -> impl Iterator<Item = MutexGuard<'_, Vcpu>> {
        self.vcpus.iter().map(|(vcpu, _)| vcpu.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all threads.
    pub(super) fn stop(&mut self) {
        self.call_back(Want::Stop);
        for thread in self.threads.drain(..) {
            // A thread's own panic was caught and told; there is nothing else that joining could say.
            let _told = thread.join();
        }
    }
}

impl Thread {
    fn body(self, enter: &Enter) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            enter()?;
            while self.gate.pass(&self.kick) {
                self.run()?;
            }
            Ok(())
        }));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.events.push(Event::Failed(error)),
            Err(panic) => {
                let thread = thread::current().name().unwrap_or_default().to_owned();
                self.events.push(Event::Failed(Error::Panic { thread, message: panic_text(panic.as_ref()) }));
            }
        }
        self.gate.lock().alive -= 1;
        self.gate.changed.notify_all();
    }

    /// Runs the guest until the gate closes or the machine ends.
    fn run(&self) -> Result<()> {
        let mut vcpu = self.vcpu.lock().unwrap_or_else(PoisonError::into_inner);
        while self.gate.is_open() {
            if let Some(exit) = self.until_interrupted(&mut vcpu)? {
                self.events.push(Event::Ended(exit));
                drop(vcpu);
                return self.wait_for_the_end();
            }
        }
        Ok(())
    }

    /// The machine has ended for this vCPU; it waits until all others know.
    fn wait_for_the_end(&self) -> Result<()> {
        let mut state = self.gate.lock();
        state.parked += 1;
        self.gate.changed.notify_all();
        let mut state = self.gate.wait(state, |state| state.want != Want::Stop);
        state.parked -= 1;
        Ok(())
    }

    fn until_interrupted(&self, vcpu: &mut Vcpu) -> Result<Option<Exit>> {
        loop {
            let exit = match vcpu.run().map_err(Error::host("run a vCPU (KVM_RUN)"))? {
                Returned::PortRead { port, data } => {
                    self.bus.read_port(port, data);
                    continue;
                }
                Returned::PortWrite { port, data } => match self.bus.write_port(port, data) {
                    None => continue,
                    Some(End::Reset) => Exit::Reset,
                    Some(End::PowerOff(status)) => Exit::PowerOff(status),
                },
                Returned::MemoryRead { address, data } => {
                    self.bus.read_memory(address, data);
                    continue;
                }
                Returned::MemoryWrite { address, data } => {
                    self.bus.write_memory(address, data);
                    continue;
                }
                Returned::Interrupted => return Ok(None),
                Returned::Halted => Exit::Crash(
                    vcpu.describe("it halted without an interrupt controller".into(), &self.memory).to_string(),
                ),
                Returned::TripleFault => Exit::Crash(vcpu.describe("a triple fault".into(), &self.memory).to_string()),
                Returned::Stuck(stuck) => Exit::Crash(vcpu.fault(&stuck, &self.memory).to_string()),
            };
            return Ok(Some(exit));
        }
    }
}
