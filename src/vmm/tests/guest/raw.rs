//! Machines whose kernel is a few instructions.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use sbx_vmm::machine::{Boot, Builder, Exit};
use sbx_vmm::memory::{Access, Extent};

use crate::{Running, can_run, config, kernel, log};

fn start(code: &[u8]) -> Running {
    let kernel = kernel::elf(code);
    Running::start(
        || Builder::new(config(1, ""), log()).unwrap(),
        |builder| builder.boot(&Boot { kernel: &kernel, initrd: None }).unwrap(),
    )
}

#[test]
fn a_kernel_says_something_and_switches_the_machine_off() {
    if !can_run() {
        return;
    }
    let running = start(&[kernel::say("hello"), kernel::power_off(7)].concat());
    let output = running.output.clone();
    assert_eq!(running.end().unwrap(), Exit::PowerOff(7));
    assert_eq!(output.text(), "hello");
}

#[test]
fn a_reset_ends_the_machine() {
    if !can_run() {
        return;
    }
    assert_eq!(start(&kernel::out(0x64, 0xfe)).end().unwrap(), Exit::Reset);
}

#[test]
fn a_triple_fault_is_told_with_its_instruction() {
    if !can_run() {
        return;
    }
    match start(&kernel::fault()).end().unwrap() {
        Exit::Crash(reason) => assert!(reason.contains("triple fault") && reason.contains("vCPU 0"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_owner_stops_a_machine_that_never_ends() {
    if !can_run() {
        return;
    }
    let running = start(&[0xeb, 0xfe]);
    running.stop();
}

#[test]
fn a_machine_whose_owner_is_gone_ends() {
    if !can_run() {
        return;
    }
    let Running { remote, thread, .. } = start(&[0xeb, 0xfe]);
    drop(remote);
    assert_eq!(thread.join().unwrap().unwrap(), Exit::Abandoned);
}

#[test]
fn a_paused_guest_does_nothing_until_it_is_resumed() {
    if !can_run() {
        return;
    }
    let running = start(&kernel::count());
    running.output.wait("number", |bytes| bytes.len() >= 40);
    running.remote.pause().unwrap();
    let before = running.output.bytes().len();
    // A second request is answered, so the first was not only accepted but done, and nothing came since.
    running.remote.pause().unwrap();
    assert_eq!(running.output.bytes().len(), before);
    running.remote.resume().unwrap();
    running.output.wait("more numbers", |bytes| bytes.len() >= before + 40);
    running.stop();
}

fn poke(access: Access) -> (Vec<u8>, File) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[3; 4096]).unwrap();
    let kernel = kernel::elf(&kernel::poke());
    let running = Running::start(
        || {
            let mut builder = Builder::new(config(1, ""), log()).unwrap();
            let region = builder.map_region(&[Extent { file: &file, offset: 0, length: 4096 }], access).unwrap();
            assert_eq!((region.address.0, region.bytes), (4 << 30, 2 << 20));
            builder
        },
        |builder| builder.boot(&Boot { kernel: &kernel, initrd: None }).unwrap(),
    );
    let output = running.output.clone();
    assert_eq!(running.end().unwrap(), Exit::PowerOff(0));
    (output.bytes(), file)
}

fn first_byte(file: &File) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    byte[0]
}

#[test]
fn a_read_only_region_shows_the_file_and_takes_no_writes() {
    if !can_run() {
        return;
    }
    let (said, file) = poke(Access::ReadOnly);
    assert_eq!(said, [3, 3]);
    assert_eq!(first_byte(&file), 3);
}

#[test]
fn a_writable_region_is_the_file() {
    if !can_run() {
        return;
    }
    let (said, file) = poke(Access::ReadWrite);
    assert_eq!(said, [3, 7]);
    assert_eq!(first_byte(&file), 7);
}
