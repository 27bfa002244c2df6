//! Machines with Linux.

use std::env;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sbx_vmm::machine::{Boot, Builder, Exit, Initrd, MachineConfig};

use crate::random::Random;
use crate::{Running, can_run, config, initramfs, log};

/// More than there are lines for.
const MANY: usize = 24;

/// Starts Linux, with the guest's program given its arguments, where all that it takes is there.
fn linux(config: impl Fn(String) -> MachineConfig, words: &str, devices: &[Arc<AtomicUsize>]) -> Option<Running> {
    if !can_run() {
        return None;
    }
    let Some(path) = env::var_os("SBX_KERNEL") else {
        println!("skipped: SBX_KERNEL does not name a guest kernel");
        return None;
    };
    let archive = initramfs::archive(&initramfs::init()?);
    let kernel = File::open(path).unwrap();
    let config = config(format!("console=ttyS0 quiet -- {words}"));
    Some(Running::start(
        || {
            let mut builder = Builder::new(config, log()).unwrap();
            for filled in devices {
                builder.add_device(Box::new(Random { filled: filled.clone() })).unwrap();
            }
            builder
        },
        |builder| builder.boot(&Boot { kernel: &kernel, initrd: Some(Initrd::Bytes(&archive)) }).unwrap(),
    ))
}

#[test]
fn linux_comes_up_to_its_first_program_and_ends_the_machine() {
    let Some(running) = linux(|line| config(1, &line), "", &[]) else { return };
    let output = running.output.clone();
    assert_eq!(running.end().unwrap(), Exit::Reset);
    let said = output.text();
    assert!(said.contains("init: 1 processors") && said.contains("init: done"), "{said}");
    println!("{said}");
}

#[test]
fn linux_has_all_processors_and_the_memory_above_the_hole() {
    let large = |line: String| MachineConfig { memory: 5 << 30, ..config(3, &line) };
    let Some(running) = linux(large, "", &[]) else { return };
    let output = running.output.clone();
    assert_eq!(running.end().unwrap(), Exit::Reset);
    assert!(output.text().contains("init: 3 processors"), "{}", output.text());
}

#[test]
fn more_devices_than_interrupt_lines_work_together() {
    let devices: Vec<Arc<AtomicUsize>> = (0..MANY).map(|_| Arc::default()).collect();
    let Some(running) = linux(|line| config(1, &line), "interrupts", &devices) else { return };
    let output = running.output.clone();
    assert_eq!(running.end().unwrap(), Exit::Reset);
    let said = output.text();
    // The driver asks each device for bytes when it finds it, and hears of them by an interrupt.
    for (index, filled) in devices.iter().enumerate() {
        assert!(filled.load(Ordering::SeqCst) > 0, "device {index} was not asked: {said}");
        let name = format!("virtio{index}");
        let line = said.lines().find(|line| line.split([' ', ',']).any(|word| word.trim() == name));
        let line = line.unwrap_or_else(|| panic!("{name} has no interrupt: {said}"));
        let count: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let sharing = line.matches("virtio").count();
        assert!(count >= sharing, "{count} interrupts for {sharing} devices: {line}");
    }
    println!("{said}");
}

#[test]
fn linux_goes_on_where_it_was_saved_and_finds_a_new_device() {
    let with_address = |line: String| MachineConfig { addresses: 3, ..config(2, &line) };
    let before: Arc<AtomicUsize> = Arc::default();
    let Some(running) = linux(with_address, "look-again 2 interrupts", &[before.clone(), before.clone()]) else {
        return;
    };
    running.output.wait_for_text("looking for");
    let file = tempfile::tempfile().unwrap();
    running.remote.pause().unwrap();
    running.remote.save(&file).unwrap();
    running.stop();
    let (old, new): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let saved = sbx_vmm::machine::SavedMachine::open(file).unwrap();
    let again = Running::start(
        || {
            let mut builder = Builder::restore(saved, log()).unwrap();
            for filled in [&old, &old, &new] {
                builder.add_device(Box::new(Random { filled: filled.clone() })).unwrap();
            }
            builder
        },
        |builder| builder.resume().unwrap(),
    );
    let output = again.output.clone();
    assert_eq!(again.end().unwrap(), Exit::Reset);
    let said = output.text();
    assert!(said.contains("virtio-mmio.2 is there") && said.contains("init: done"), "{said}");
    assert!(new.load(Ordering::SeqCst) > 0, "the new device was not asked: {said}");
}

#[test]
fn linux_ticks_on_after_a_restore() {
    let Some(running) = linux(|line| config(2, &line), "tick", &[]) else { return };
    running.output.wait_for_text("tick 5\r\n");
    let file = tempfile::tempfile().unwrap();
    running.remote.pause().unwrap();
    running.remote.save(&file).unwrap();
    let before = running.output.text().lines().filter(|line| line.starts_with("tick")).count();
    running.stop();
    let again = crate::saved::restored(&file);
    let later = format!("tick {}\r\n", before + 10);
    again.output.wait_for_text(&later);
    again.stop();
}
