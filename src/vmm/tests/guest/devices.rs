//! Linux with each of the devices, used by a program in it (`examples/guest_devices.rs`).

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sbx_vmm::machine::{Boot, Builder, Exit, Initrd};
use sbx_vmm::memory;
use sbx_vmm::virtio::Device;
use sbx_vmm::virtio::balloon::{Balloon, BalloonConfig};
use sbx_vmm::virtio::blk::{Access, Blk, BlkConfig, Counters, Extent, Limits};
use sbx_vmm::virtio::console::{Console, ConsoleConfig};
use sbx_vmm::virtio::pmem::{Pmem, PmemConfig};
use sbx_vmm::virtio::rng::{Rng, RngConfig};

use crate::{PATIENCE, Running, can_run, config, initramfs, log};

const PAGE: usize = 4096;

/// Page `number` of a disk, as the guest's program knows it.
fn expected(seed: u8, number: usize) -> [u8; PAGE] {
    let mut page = [seed; PAGE];
    page[..8].copy_from_slice(&(number as u64).to_le_bytes());
    page
}

fn pages(seed: u8, numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.flat_map(|number| expected(seed, number)).collect()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn empty(pages: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len((pages * PAGE) as u64).unwrap();
    file
}

fn disk(serial: &str, access: Access, extents: Vec<Extent>) -> Blk {
    let config =
        BlkConfig { name: serial.into(), serial: serial.into(), access, block_size: 512, limits: Limits::default() };
    Blk::new(config, extents).unwrap()
}

/// A disk of bytes and a file, and one of an empty file.
fn disks(written: &File) -> (Blk, Blk) {
    let rest = Arc::new(file(&pages(b'a', 8..1000)));
    let length = 992 * PAGE as u64;
    let extents = vec![Extent::Bytes(pages(b'a', 0..8).into()), Extent::File { file: rest, offset: 0, length }];
    let second = Extent::whole(written.try_clone().unwrap()).unwrap();
    (disk("first-disk", Access::ReadOnly, extents), disk("second-disk", Access::ReadWrite, vec![second]))
}

fn rng() -> Rng {
    Rng::new(RngConfig { name: "rng".into() }).unwrap()
}

/// Starts Linux with devices that `add` adds, where all that it takes is there.
fn linux(words: &str, add: impl FnOnce(&mut Builder)) -> Option<Running> {
    if !can_run() {
        return None;
    }
    let Some(path) = env::var_os("SBX_KERNEL") else {
        println!("skipped: SBX_KERNEL does not name a guest kernel");
        return None;
    };
    let archive = initramfs::archive(&initramfs::program("guest_devices")?);
    let kernel = File::open(path).unwrap();
    let config = config(2, &format!("console=ttyS0 quiet panic=-1 -- {words}"));
    Some(Running::start(
        || {
            let mut builder = Builder::new(config, log()).unwrap();
            add(&mut builder);
            builder
        },
        |builder| builder.boot(&Boot { kernel: &kernel, initrd: Some(Initrd::Bytes(&archive)) }).unwrap(),
    ))
}

fn add(builder: &mut Builder, device: impl Device + 'static) {
    builder.add_device(Box::new(device)).unwrap();
}

/// Waits for the guest to say that it is content, and to end.
fn expect(running: Running, words: &[&str]) -> String {
    let output = running.output.clone();
    assert_eq!(running.end().unwrap(), Exit::Reset);
    let said = output.text();
    for word in words {
        assert!(said.contains(&format!("guest: {word} ok")), "{said}");
    }
    said
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn disks_are_read_and_written() {
    let written = empty(256);
    let mut counters: Vec<Arc<Counters>> = Vec::new();
    let running = linux("disks", |builder| {
        let (first, second) = disks(&written);
        counters.extend([first.counters(), second.counters()]);
        add(builder, first);
        add(builder, second);
    });
    let Some(running) = running else { return };
    expect(running, &["disks"]);
    for number in (0..256).filter(|number| !(16..116).contains(number) && *number != 200) {
        let mut page = [0; PAGE];
        written.read_exact_at(&mut page, (number * PAGE) as u64).unwrap();
        assert_eq!(page, expected(b'b', number), "page {number}");
    }
    assert!(written.metadata().unwrap().blocks() <= 160 * 8, "the punched space was not given back");
    for counters in &counters {
        assert_eq!(counters.last_failure(), None);
        assert!(counters.read_bytes.load(Ordering::Relaxed) >= 1 << 20);
    }
    assert!(counters[1].flushes.load(Ordering::Relaxed) >= 2);
    assert_eq!(counters[0].written_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn regions_are_persistent_memory() {
    // Not a whole number of pages of 2 MiB: the rest is filled up.
    let (read, written) = (file(&pages(b'p', 0..300)), empty(256));
    let running = linux("regions", |builder| {
        let extent = |file, length: usize| memory::Extent { file, offset: 0, length: (length * PAGE) as u64 };
        let first = builder.map_region(&[extent(&read, 300)], memory::Access::ReadOnly).unwrap();
        let second = builder.map_region(&[extent(&written, 256)], memory::Access::ReadWrite).unwrap();
        let config = |name: &str, region: memory::Region| PmemConfig {
            name: name.into(),
            start: region.address.0,
            size: region.bytes,
        };
        add(builder, Pmem::read_only(config("pmem0", first)).unwrap());
        add(builder, Pmem::writable(config("pmem1", second), vec![written.try_clone().unwrap()]).unwrap());
    });
    let Some(running) = running else { return };
    expect(running, &["regions"]);
    for number in 0..256 {
        let mut page = [0; PAGE];
        written.read_exact_at(&mut page, (number * PAGE) as u64).unwrap();
        assert_eq!(page, expected(b'q', number), "page {number}");
    }
}

#[test]
fn random_bytes_come() {
    let Some(running) = linux("rng", |builder| add(builder, rng())) else { return };
    expect(running, &["rng"]);
}

#[test]
fn the_console_speaks_and_listens_and_never_stops_the_guest() {
    let (mut heard, output) = std::io::pipe().unwrap();
    let (input, mut said) = std::io::pipe().unwrap();
    let running = linux("console", |builder| {
        let files = [std::os::fd::OwnedFd::from(output), input.into()].map(File::from);
        let [output, input] = files;
        add(builder, Console::new(ConsoleConfig { name: "console".into() }, output, Some(input)).unwrap());
    });
    let Some(running) = running else { return };
    let mut text = Vec::new();
    while !text.ends_with(b"the guest speaks\r\n") {
        let mut byte = [0];
        assert_eq!(heard.read(&mut byte).unwrap(), 1, "{}", running.output.text());
        text.extend(byte);
    }
    said.write_all(b"the host speaks\n").unwrap();
    // Nobody reads what comes then, until the guest has said it all.
    running.output.wait_for_text("console has spoken");
    text.clear();
    while !text.ends_with(b"dropped]\r\n") {
        let mut bytes = [0; 4096];
        let count = heard.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{}", running.output.text());
        text.extend(&bytes[..count]);
    }
    said.write_all(b"the host has heard\n").unwrap();
    expect(running, &["console"]);
    let kept = text.iter().filter(|byte| **byte == b'x').count();
    assert!((1 << 16..300_000).contains(&kept), "{kept}");
    let lost = format!("[{} bytes of output were dropped]", 300_000 - kept);
    assert!(String::from_utf8_lossy(&text).contains(&lost), "{lost}");
}

#[test]
fn memory_goes_back_to_the_host() {
    let config = BalloonConfig { name: "balloon".into(), target: 0, deflate_on_oom: true };
    let (balloon, control) = Balloon::new(config).unwrap();
    let (_heard, output) = std::io::pipe().unwrap();
    let (input, mut said) = std::io::pipe().unwrap();
    let running = linux("balloon", |builder| {
        add(builder, balloon);
        let [output, input] = [std::os::fd::OwnedFd::from(output), input.into()].map(File::from);
        add(builder, Console::new(ConsoleConfig { name: "console".into() }, output, Some(input)).unwrap());
    });
    let Some(running) = running else { return };
    running.output.wait_for_text("balloon waits");
    control.set_target(8192).unwrap();
    running.output.wait_for_text("balloon is full");
    wait("the balloon has not all pages", || control.actual() == 8192);
    assert!(control.released() >= 32 << 20, "{} bytes came back", control.released());
    let (count, _) = control.statistics();
    control.ask_for_statistics().unwrap();
    wait("no statistics came", || control.statistics().0 > count);
    let statistics = control.statistics().1;
    let total = statistics.total.unwrap();
    assert!((64 << 20..128 << 20).contains(&total) && statistics.free.unwrap() < total, "{statistics:?}");
    control.set_target(0).unwrap();
    running.output.wait_for_text("balloon is empty");
    wait("the balloon keeps pages", || control.actual() == 0);
    running.output.wait_for_text("memory is free");
    let before = control.released();
    wait("free pages are not reported", || control.released() >= before + (24 << 20));
    assert_eq!(control.last_failure(), None);
    said.write_all(b"go on\n").unwrap();
    expect(running, &["balloon"]);
}

#[test]
fn devices_go_on_where_they_were_saved() {
    let written = empty(64);
    let add_all = |builder: &mut Builder| {
        let (first, second) = disks(&written);
        add(builder, first);
        add(builder, second);
        add(builder, rng());
    };
    let Some(running) = linux("churn", add_all) else { return };
    running.output.wait_for_text("churn 2\r\n");
    let file = tempfile::tempfile().unwrap();
    running.remote.pause().unwrap();
    running.remote.save(&file).unwrap();
    let before = running.output.text().lines().filter(|line| line.starts_with("churn")).count();
    running.stop();
    let saved = sbx_vmm::machine::SavedMachine::open(file).unwrap();
    let again = Running::start(
        || {
            let mut builder = Builder::restore(saved, log()).unwrap();
            add_all(&mut builder);
            builder
        },
        |builder| builder.resume().unwrap(),
    );
    again.output.wait_for_text(&format!("churn {}\r\n", before + 3));
    again.stop();
}
