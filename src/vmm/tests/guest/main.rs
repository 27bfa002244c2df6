//! Machines that run. They need a KVM that can run a kernel, and are skipped with the reason where there is none; those
//! with Linux in them need its path in `SBX_KERNEL`, and a static build of this test's guest program.

mod all_devices;
mod devices;
mod initramfs;
mod kernel;
mod linux;
mod parties;
mod plugged;
mod random;
mod raw;
mod saved;

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sbx_vmm::log::Log;
use sbx_vmm::machine::{Builder, Exit, Machine, MachineConfig, Remote, pair};
use sbx_vmm::probe::kvm_usable;

/// Longer than anything takes here, also in an emulated machine that others use too.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a machine says on its serial port.
#[derive(Clone, Default)]
struct Output(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Output {
    fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until what was said is enough.
    fn wait(&self, what: &str, enough: impl Fn(&[u8]) -> bool) {
        let (bytes, changed) = &*self.0;
        let start = Instant::now();
        let mut bytes = bytes.lock().unwrap();
        while !enough(&bytes) {
            let left = PATIENCE.checked_sub(start.elapsed());
            let left = left.unwrap_or_else(|| panic!("no {what} in {:?}", String::from_utf8_lossy(&bytes)));
            bytes = changed.wait_timeout(bytes, left).unwrap().0;
        }
    }

    fn wait_for_text(&self, text: &str) {
        self.wait(text, |bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()));
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine on a thread.
struct Running {
    remote: Remote,
    output: Output,
    thread: JoinHandle<sbx_vmm::Result<Exit>>,
}

impl Running {
    fn start(builder: impl FnOnce() -> Builder, finish: impl FnOnce(Builder) -> Machine) -> Self {
        let (remote, socket) = pair().unwrap();
        let output = Output::default();
        let mut builder = builder();
        builder.serial(Box::new(output.clone())).unwrap();
        builder.control(socket);
        let machine = finish(builder);
        Self { remote, output, thread: thread::spawn(move || machine.run()) }
    }

    fn end(self) -> sbx_vmm::Result<Exit> {
        self.thread.join().unwrap()
    }

    fn stop(self) {
        self.remote.stop().unwrap();
        assert_eq!(self.thread.join().unwrap().unwrap(), Exit::Stopped);
    }
}

fn config(vcpus: usize, command_line: &str) -> MachineConfig {
    MachineConfig { memory: 128 << 20, vcpus, addresses: 0, command_line: command_line.into(), serial_limit: 1 << 20 }
}

fn log() -> Log {
    Log::new(|message| println!("vmm: {message}"))
}

/// Whether a guest can run here; says why not.
fn can_run() -> bool {
    match kvm_usable() {
        Ok(_) => true,
        Err(obstacle) => {
            println!("skipped: {obstacle}");
            false
        }
    }
}
