//! Disks as good and bad drivers use them.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Access, Blk, BlkConfig, Extent, Limits};
use crate::virtio::chain::RING_FEATURES;
use crate::virtio::driver::{Buffer, Driver, Hostile, attack};
use crate::virtio::io::INTERRUPT_CONFIG;
use crate::virtio::{Device, DeviceError};

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const FAILED: u8 = 1;
const UNSUPPORTED: u8 = 2;

fn config(access: Access) -> BlkConfig {
    BlkConfig { name: "disk".into(), serial: "sbx-0123".into(), access, block_size: 512, limits: Limits::default() }
}

/// A file of so many sectors, each filled with a number of its own.
fn file(sectors: u8, first: u8) -> File {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..sectors {
        file.write_all(&[first + sector; 512]).unwrap();
    }
    file
}

fn whole(file: &File) -> Extent {
    Extent::whole(file.try_clone().unwrap()).unwrap()
}

fn sector(file: &File, number: u64) -> u8 {
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, number * 512).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a mixed sector");
    bytes[0]
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

struct Machine {
    device: Blk,
    driver: Driver,
}

impl Machine {
    fn new(config: BlkConfig, extents: Vec<Extent>) -> Self {
        let mut device = Blk::new(config, extents).unwrap();
        let features = device.features() & !RING_FEATURES;
        let driver = Driver::new(&mut device, features);
        Self { device, driver }
    }

    fn ask(&mut self, buffers: &[Buffer<'_>]) -> Result<(Vec<u8>, u32), DeviceError> {
        self.driver.ask(&mut self.device, 0, buffers)
    }

    /// A request with data of the driver; gives the status.
    fn send(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let header = header(kind, sector);
        let (answer, length) = self.ask(&[Buffer::Bytes(&header), Buffer::Bytes(data), Buffer::Room(1)]).unwrap();
        assert_eq!(length, 1);
        answer[0]
    }

    /// A request for so many bytes; gives the data (none where it failed) and the status.
    fn get(&mut self, kind: u32, sector: u64, length: u32) -> (Vec<u8>, u8) {
        let header = header(kind, sector);
        let (mut answer, used) = self.ask(&[Buffer::Bytes(&header), Buffer::Room(length), Buffer::Room(1)]).unwrap();
        let status = answer.pop().unwrap();
        if status == OK {
            assert_eq!(used, length + 1);
        } else {
            assert_eq!(used, u32::from(length == 0), "a length was claimed that was not written");
        }
        (if status == OK { answer } else { Vec::new() }, status)
    }

    fn sectors(&mut self, first: u64, count: u32) -> Vec<u8> {
        let (data, status) = self.get(READ, first, count * 512);
        assert_eq!(status, OK);
        data.chunks(512).map(|sector| sector[0]).collect()
    }
}

#[test]
fn extents_are_one_disk() {
    let (one, two) = (Arc::new(file(8, 10)), file(2, 50));
    let part =
        |first: u64, sectors: u64| Extent::File { file: Arc::clone(&one), offset: first * 512, length: sectors * 512 };
    let head = [[1; 512], [2; 512]].concat();
    let extents =
        vec![Extent::Bytes(head.into()), part(6, 2), Extent::Zeroes(1024), Extent::Zeroes(0), whole(&two), part(0, 1)];
    let mut machine = Machine::new(config(Access::ReadOnly), extents);
    assert_eq!(machine.sectors(0, 9), [1, 2, 16, 17, 0, 0, 50, 51, 10]);
    for (first, expected) in [1, 2, 16, 17, 0, 0, 50, 51, 10].into_iter().enumerate() {
        assert_eq!(machine.sectors(first as u64, 1), [expected]);
    }
    assert_eq!(machine.get(READ, 8, 1024).1, FAILED);
    let mut capacity = [0; 8];
    machine.device.read_config(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 9);
}

#[test]
fn writes_reach_the_right_extent_and_nothing_beside_it() {
    let (one, two) = (Arc::new(file(8, 10)), Arc::new(file(4, 50)));
    let extents = vec![
        Extent::File { file: Arc::clone(&one), offset: 1024, length: 1024 },
        Extent::File { file: Arc::clone(&two), offset: 512, length: 1024 },
    ];
    let mut machine = Machine::new(config(Access::ReadWrite), extents);
    assert_eq!(machine.send(WRITE, 1, &[[7; 512], [8; 512]].concat()), OK);
    assert_eq!(machine.sectors(0, 4), [12, 7, 8, 52]);
    assert_eq!((0..8).map(|at| sector(&one, at)).collect::<Vec<_>>(), [10, 11, 12, 7, 14, 15, 16, 17]);
    assert_eq!((0..4).map(|at| sector(&two, at)).collect::<Vec<_>>(), [50, 8, 52, 53]);
    assert_eq!(machine.send(FLUSH, 0, &[]), OK);
    let counters = machine.device.counters();
    assert_eq!(counters.written_bytes.load(Ordering::Relaxed), 1024);
    assert_eq!(counters.flushes.load(Ordering::Relaxed), 1);
    assert_eq!(counters.failures.load(Ordering::Relaxed), 0);
}

#[test]
fn a_read_only_disk_is_read_only_whatever_the_driver_says() {
    // The file itself could be written: the device is what stands in the way.
    let file = file(8, 10);
    let mut machine = Machine::new(config(Access::ReadOnly), vec![whole(&file)]);
    assert_eq!(machine.device.features() & (1 << 13 | 1 << 14), 0);
    assert_ne!(machine.device.features() & (1 << 5), 0);
    assert_eq!(machine.send(WRITE, 0, &[0xff; 512]), FAILED);
    assert_eq!(machine.send(DISCARD, 0, &segment(0, 8, 0)), FAILED);
    assert_eq!(machine.send(WRITE_ZEROES, 0, &segment(0, 8, 0)), FAILED);
    assert_eq!(machine.send(WRITE_ZEROES, 0, &segment(0, 8, 1)), FAILED);
    assert_eq!(machine.send(FLUSH, 0, &[]), OK);
    assert_eq!((0..8).map(|at| sector(&file, at)).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 15, 16, 17]);
}

#[test]
fn what_lies_off_the_disk_is_refused() {
    let file = file(8, 10);
    let mut machine = Machine::new(config(Access::ReadWrite), vec![whole(&file)]);
    for (first, bytes) in
        [(8, 512), (7, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (1 << 55, 512), (0, 4608), (0, 100)]
    {
        assert_eq!(machine.get(READ, first, bytes).1, FAILED, "read {bytes} at {first}");
        assert_eq!(machine.send(WRITE, first, &vec![1; bytes as usize]), FAILED, "write {bytes} at {first}");
    }
    assert_eq!(machine.get(READ, 8, 0), (vec![], OK));
    assert_eq!(machine.send(WRITE, 0, &[]), OK);
    assert_eq!((file.metadata().unwrap().len(), sector(&file, 7)), (4096, 17));
}

#[test]
fn a_request_of_more_bytes_than_were_offered_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    let mut machine = Machine::new(config(Access::ReadOnly), vec![whole(&file)]);
    // Thirty-two buffers of 1 MiB in the same memory: one page more than 254 of 128 KiB.
    let header = header(READ, 0);
    let mut descriptors = vec![(0x10_0000, header.len() as u32, 0)];
    vm_memory::Bytes::write_slice(&machine.driver.io.memory, &header, vm_memory::GuestAddress(0x10_0000)).unwrap();
    descriptors.extend([(0x20_0000, 1 << 20, 2); 32]);
    descriptors.push((0x10_1000, 1, 2));
    machine.driver.send_descriptors(0, &descriptors);
    machine.driver.run(&mut machine.device, 0).unwrap();
    assert_eq!(machine.driver.used(0).len(), 1);
    assert_eq!(machine.driver.bytes(0x10_1000, 1), [FAILED]);
}

#[test]
fn the_serial_is_told() {
    let mut machine = Machine::new(config(Access::ReadOnly), vec![]);
    let (serial, status) = machine.get(GET_ID, 0, 20);
    assert_eq!((&serial[..], status), (&b"sbx-0123\0\0\0\0\0\0\0\0\0\0\0\0"[..], OK));
    let error = Blk::new(BlkConfig { serial: "x".repeat(21), ..config(Access::ReadOnly) }, vec![]).unwrap_err();
    assert!(error.to_string().contains("more than 20 bytes"), "{error}");
}

#[test]
fn what_is_discarded_gives_space_back_and_zeroes_are_zeroes() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![9; 1 << 20], 0).unwrap();
    let mut machine = Machine::new(config(Access::ReadWrite), vec![whole(&file)]);
    let before = file.metadata().unwrap().blocks();
    assert_eq!(machine.send(DISCARD, 0, &[segment(0, 512, 0), segment(1024, 512, 0)].concat()), OK);
    assert!(file.metadata().unwrap().blocks() < before, "no space was given back");
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    assert_eq!((sector(&file, 511), sector(&file, 512)), (0, 9));
    for (first, flags) in [(600, 0), (608, 1)] {
        assert_eq!(machine.send(WRITE_ZEROES, 0, &segment(first, 3, flags)), OK);
        let around: Vec<u8> = (first - 1..first + 4).map(|at| sector(&file, at)).collect();
        assert_eq!(around, [9, 0, 0, 0, 9]);
    }
    assert_eq!(machine.device.counters().clears.load(Ordering::Relaxed), 3);
}

#[test]
fn segments_that_break_the_rules_clear_nothing() {
    let file = file(8, 10);
    let mut machine = Machine::new(config(Access::ReadWrite), vec![whole(&file)]);
    let good = segment(0, 1, 0);
    for (kind, data, expected) in [
        (DISCARD, vec![], FAILED),
        (DISCARD, good[..15].to_vec(), FAILED),
        (DISCARD, [&good[..], &[0; 8]].concat(), FAILED),
        (DISCARD, segment(8, 1, 0), FAILED),
        (DISCARD, segment(0, 9, 0), FAILED),
        (DISCARD, segment(u64::MAX, u32::MAX, 0), FAILED),
        (DISCARD, [good.clone(), segment(7, 2, 0)].concat(), FAILED),
        (DISCARD, good.repeat(17), FAILED),
        (DISCARD, segment(0, 1, 1), UNSUPPORTED),
        (DISCARD, segment(0, 1, 2), UNSUPPORTED),
        (WRITE_ZEROES, good.repeat(2), FAILED),
        (WRITE_ZEROES, segment(0, 1, 4), UNSUPPORTED),
        (WRITE_ZEROES, segment(0, u32::MAX, 0), FAILED),
    ] {
        assert_eq!(machine.send(kind, 0, &data), expected, "{kind} {data:?}");
    }
    assert_eq!(machine.send(DISCARD, 0, &segment(3, 0, 0)), OK);
    assert_eq!((0..8).map(|at| sector(&file, at)).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 15, 16, 17]);
}

#[test]
fn what_the_device_does_not_know_is_unsupported() {
    let mut machine = Machine::new(config(Access::ReadWrite), vec![]);
    for kind in [2, 3, 14, 15, 16, 1 << 31, u32::MAX] {
        assert_eq!(machine.send(kind, 0, &[1; 512]), UNSUPPORTED, "{kind}");
    }
}

#[test]
fn a_request_without_header_or_status_stops_the_device() {
    let header = header(READ, 0);
    for buffers in [
        &[Buffer::Bytes(&header[..15]), Buffer::Room(513)][..],
        &[Buffer::Room(513)],
        &[Buffer::Bytes(&header)],
        &[Buffer::Bytes(&header), Buffer::Room(0)],
        &[Buffer::Bytes(&[])],
    ] {
        let mut machine = Machine::new(config(Access::ReadOnly), vec![whole(&file(1, 1))]);
        machine.driver.send(0, buffers);
        let error = machine.driver.kick(&mut machine.device, 0).unwrap_err();
        assert!(matches!(error, DeviceError::Driver(_)), "{error}");
        assert!(machine.driver.used(0).is_empty());
    }
}

#[test]
fn a_file_that_has_shrunk_is_an_error_of_the_host() {
    let file = file(8, 10);
    let mut machine = Machine::new(config(Access::ReadOnly), vec![whole(&file)]);
    file.set_len(1024).unwrap();
    assert_eq!(machine.sectors(0, 2), [10, 11]);
    assert_eq!(machine.get(READ, 2, 512).1, FAILED);
    let counters = machine.device.counters();
    assert_eq!(counters.failures.load(Ordering::Relaxed), 1);
    assert!(counters.last_failure().unwrap().starts_with("read: "), "{:?}", counters.last_failure());
}

#[test]
fn requests_that_wait_are_served_in_one_turn() {
    let mut machine = Machine::new(config(Access::ReadOnly), vec![whole(&file(8, 10))]);
    let requests: Vec<_> = (0..8)
        .map(|at| machine.driver.send(0, &[Buffer::Bytes(&header(READ, at)), Buffer::Room(512), Buffer::Room(1)]))
        .collect();
    machine.driver.kick(&mut machine.device, 0).unwrap();
    assert_eq!(machine.driver.used(0).len(), 8);
    for (at, request) in requests.iter().enumerate() {
        assert_eq!(machine.driver.answer(request)[..2], [10 + at as u8; 2]);
    }
}

#[test]
fn limits_hold_requests_back_and_let_them_pass_later() {
    let limits = Limits { read_operations: NonZeroU64::new(20), ..Limits::default() };
    let mut machine = Machine::new(BlkConfig { limits, ..config(Access::ReadOnly) }, vec![whole(&file(8, 10))]);
    for at in 0..6 {
        machine.driver.send(0, &[Buffer::Bytes(&header(READ, at)), Buffer::Room(512), Buffer::Room(1)]);
    }
    machine.driver.kick(&mut machine.device, 0).unwrap();
    let mut served = machine.driver.used(0).len();
    assert!(served < 6, "nothing was held back");
    let counters = machine.device.counters();
    assert!(counters.waits.load(Ordering::Relaxed) >= 1);
    // A kick is no way around.
    machine.driver.kick(&mut machine.device, 0).unwrap();
    assert_eq!(machine.driver.used(0).len(), 0);
    while served < 6 {
        assert!(machine.driver.report(&mut machine.device, 10_000).unwrap() > 0, "the device forgot its requests");
        served += machine.driver.used(0).len();
    }
    // Nor is a reset.
    for at in 0..6 {
        machine.driver.send(0, &[Buffer::Bytes(&header(READ, at)), Buffer::Room(512), Buffer::Room(1)]);
    }
    machine.device.reset();
    machine.driver.kick(&mut machine.device, 0).unwrap();
    assert!(machine.driver.used(0).len() < 6);
}

#[test]
fn a_driver_without_flush_has_its_writes_made_durable() {
    let file = file(8, 10);
    let mut device = Blk::new(config(Access::ReadWrite), vec![whole(&file)]).unwrap();
    let driver = Driver::new(&mut device, 0);
    let mut machine = Machine { device, driver };
    assert_eq!(machine.send(WRITE, 0, &[1; 512]), OK);
    assert_eq!(machine.device.counters().flushes.load(Ordering::Relaxed), 1);
}

#[test]
fn a_disk_that_makes_no_sense_is_refused_with_its_name() {
    let read_only = || File::open("/proc/self/exe").unwrap();
    let cases = [
        (Access::ReadOnly, vec![Extent::Zeroes(100)], "whole sectors"),
        (Access::ReadWrite, vec![Extent::Zeroes(512)], "files only"),
        (Access::ReadWrite, vec![Extent::File { file: Arc::new(read_only()), offset: 0, length: 512 }], "not open for"),
        (
            Access::ReadOnly,
            vec![Extent::File { file: Arc::new(file(1, 1)), offset: 512, length: 512 }],
            "has 512 bytes",
        ),
        (
            Access::ReadOnly,
            vec![Extent::File { file: Arc::new(file(1, 1)), offset: u64::MAX, length: 512 }],
            "has 512 bytes",
        ),
        (Access::ReadOnly, vec![Extent::Zeroes(u64::MAX), Extent::Zeroes(1)], "too long"),
        (
            Access::ReadOnly,
            vec![Extent::File { file: Arc::new(File::open("/dev/null").unwrap()), offset: 0, length: 512 }],
            "neither a regular file",
        ),
    ];
    for (access, extents, expected) in cases {
        let error = Blk::new(config(access), extents).unwrap_err().to_string();
        assert!(error.contains("the disk disk: ") && error.contains(expected), "{error}");
    }
    for block_size in [0, 256, 513, 8192] {
        assert!(Blk::new(BlkConfig { block_size, ..config(Access::ReadOnly) }, vec![]).is_err());
    }
    assert!(Extent::whole(File::open("/dev/null").unwrap()).is_err());
}

#[test]
fn a_restored_disk_may_have_grown_but_not_become_writable() {
    let saved = Blk::new(config(Access::ReadOnly), vec![]).unwrap().save().unwrap();
    let mut same = Blk::new(config(Access::ReadOnly), vec![]).unwrap();
    same.restore(&saved).unwrap();
    assert_eq!(Driver::new(&mut same, 0).interrupt.status(), 0);
    let mut grown = Blk::new(config(Access::ReadOnly), vec![whole(&file(8, 10))]).unwrap();
    grown.restore(&saved).unwrap();
    let mut driver = Driver::new(&mut grown, 0);
    assert_eq!(driver.interrupt.status(), INTERRUPT_CONFIG);
    let (answer, _) = driver.ask(&mut grown, 0, &[Buffer::Bytes(&header(READ, 7)), Buffer::Room(513)]).unwrap();
    assert_eq!((answer[0], answer[512]), (17, OK));
    let mut writable = Blk::new(config(Access::ReadWrite), vec![]).unwrap();
    let error = writable.restore(&saved).unwrap_err().to_string();
    assert!(error.contains("was ReadOnly and is ReadWrite"), "{error}");
    assert!(writable.restore(b"").is_err());
}

#[test]
fn a_reset_disk_serves_a_new_driver() {
    let mut machine = Machine::new(config(Access::ReadWrite), vec![whole(&file(8, 10))]);
    assert_eq!(machine.send(WRITE, 0, &[1; 512]), OK);
    machine.driver.send(0, &[Buffer::Bytes(b"short")]);
    assert!(machine.driver.kick(&mut machine.device, 0).is_err());
    machine.device.reset();
    machine.driver = Driver::new(&mut machine.device, 0);
    assert_eq!(machine.sectors(0, 2), [1, 11]);
}

#[test]
fn a_hostile_driver_does_no_harm() {
    let beside = vec![7; 4096];
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&beside, 0).unwrap();
        file.write_all_at(&beside, 4096 + (1 << 20)).unwrap();
        let limits = Limits { write_bytes: NonZeroU64::new(1 << 30), ..Limits::default() };
        let good = [
            header(READ, 0),
            header(WRITE, 3),
            header(READ, 2040),
            header(FLUSH, 0),
            header(GET_ID, 0),
            [header(DISCARD, 0), segment(0, 8, 0)].concat(),
            [header(WRITE_ZEROES, 0), segment(16, 8, 1)].concat(),
        ];
        let requests: Vec<(usize, &[u8])> = good.iter().map(|request| (0, &request[..])).collect();
        attack(&Hostile { requests: &requests, ..Hostile::default() }, || {
            let extent = Extent::File { file: Arc::clone(&file), offset: 4096, length: 1 << 20 };
            Box::new(Blk::new(BlkConfig { limits, ..config(access) }, vec![extent]).unwrap())
        });
        let mut bytes = vec![0; 4096];
        for offset in [0, 4096 + (1 << 20)] {
            file.read_exact_at(&mut bytes, offset).unwrap();
            assert_eq!(bytes, beside, "the disk was left");
        }
        assert_eq!(file.metadata().unwrap().len(), 8192 + (1 << 20));
        if access == Access::ReadOnly {
            assert_eq!(sector(&file, 100), 0, "a read-only disk was written");
        }
    }
}
