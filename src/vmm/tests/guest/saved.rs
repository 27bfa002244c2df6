//! Machines that are saved and go on in another process' memory.

use std::fs::File;

use sbx_vmm::machine::{Boot, Builder, Exit, SavedMachine};

use crate::{Running, can_run, config, kernel, log};

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn counting() -> Running {
    let kernel = kernel::elf(&kernel::count());
    Running::start(
        || Builder::new(config(1, ""), log()).unwrap(),
        |builder| builder.boot(&Boot { kernel: &kernel, initrd: None }).unwrap(),
    )
}

pub(crate) fn restored(file: &File) -> Running {
    let saved = SavedMachine::open(file.try_clone().unwrap()).unwrap();
    Running::start(|| Builder::restore(saved, log()).unwrap(), |builder| builder.resume().unwrap())
}

#[test]
fn a_counting_guest_goes_on_where_it_was_saved() {
    if !can_run() {
        return;
    }
    let running = counting();
    running.output.wait("number", |bytes| bytes.len() >= 400);
    let file = tempfile::tempfile().unwrap();
    running.remote.pause().unwrap();
    running.remote.save(&file).unwrap();
    let mut all = running.output.bytes();
    let said = all.len();
    running.remote.resume().unwrap();
    running.output.wait("more numbers", |bytes| bytes.len() >= said + 40);
    running.stop();
    // Twice from the same file: what one restored machine does, the other does not see.
    for _ in 0..2 {
        let again = restored(&file);
        again.output.wait("number", |bytes| bytes.len() >= 400);
        let more = again.output.clone();
        again.stop();
        all.truncate(said);
        all.extend(more.bytes());
        let numbers = numbers(&all);
        assert!(numbers.len() >= 200);
        assert!(numbers.iter().zip(1..).all(|(number, expected)| *number == expected), "{numbers:?}");
    }
}

#[test]
fn what_one_machine_has_needed_is_there_when_the_next_one_begins() {
    if !can_run() {
        return;
    }
    let file = counting_file();
    let running = restored(&file);
    running.output.wait("number", |bytes| bytes.len() >= 40);
    let pid = i32::try_from(std::process::id()).unwrap();
    let needed = SavedMachine::open(file.try_clone().unwrap()).unwrap().working_set(pid).unwrap().unwrap();
    running.stop();
    let mut saved = SavedMachine::open(file).unwrap();
    saved.expect(needed);
    let again = Running::start(|| Builder::restore(saved, log()).unwrap(), |builder| builder.resume().unwrap());
    again.output.wait("number", |bytes| bytes.len() >= 400);
    let said = again.output.bytes();
    again.stop();
    // It may have been saved in the middle of a number.
    let counts = |skip: usize| numbers(&said[skip..]).windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!((0..4).any(counts), "{said:?}");
}

#[test]
fn a_machine_that_runs_is_saved_and_goes_on() {
    if !can_run() {
        return;
    }
    let running = counting();
    running.output.wait("number", |bytes| bytes.len() >= 40);
    let file = tempfile::tempfile().unwrap();
    running.remote.save(&file).unwrap();
    let said = running.output.bytes().len();
    running.output.wait("more numbers", |bytes| bytes.len() >= said + 400);
    let all = numbers(&running.output.bytes());
    assert!(all.iter().zip(1..).all(|(number, expected)| *number == expected), "{all:?}");
    running.stop();
}

#[test]
fn files_that_are_no_saved_machine_are_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let error = SavedMachine::open(file).err().unwrap().to_string();
    assert!(error.contains("none, or was not finished"), "{error}");
    assert!(SavedMachine::open(tempfile::tempfile().unwrap()).is_err());
}

#[test]
fn a_cut_off_file_is_refused() {
    if !can_run() {
        return;
    }
    let running = counting();
    running.output.wait("number", |bytes| bytes.len() >= 40);
    let file = tempfile::tempfile().unwrap();
    running.remote.save(&file).unwrap();
    running.stop();
    file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
    let saved = SavedMachine::open(file.try_clone().unwrap()).unwrap();
    let error = Builder::restore(saved, log()).err().unwrap().to_string();
    assert!(error.contains("saved machine: the file has"), "{error}");
    assert_eq!(restored_exit(&counting_file()), Exit::Stopped);
}

fn counting_file() -> File {
    let running = counting();
    running.output.wait("number", |bytes| bytes.len() >= 40);
    let file = tempfile::tempfile().unwrap();
    running.remote.save(&file).unwrap();
    running.stop();
    file
}

fn restored_exit(file: &File) -> Exit {
    let running = restored(file);
    running.output.wait("number", |bytes| bytes.len() >= 40);
    running.remote.stop().unwrap();
    running.end().unwrap()
}
