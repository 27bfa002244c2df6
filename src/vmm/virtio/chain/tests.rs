//! Chains as drivers should and should not make them.

use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use proptest::prelude::*;
use virtio_queue::QueueT;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::{Again, Chain, MAX_DESCRIPTORS, RING_FEATURES, Turn, serve};
use crate::virtio::driver::{Buffer, Driver, NEXT, SECOND, WRITE, drain, pipe};
use crate::virtio::io::INTERRUPT_USED;
use crate::virtio::{Device, DeviceError, Interest, Io};

const INDIRECT: u16 = 4;
const SIZE: u16 = 16;
const MEMORY_END: u64 = 4 << 20;

/// A device that answers each request with what it asks, backwards.
struct Echo {
    again: Again,
    turns: usize,
}

impl Echo {
    fn new() -> Self {
        Self { again: Again::new().unwrap(), turns: 0 }
    }

    fn turn(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.turns += 1;
        serve(io, 0, &self.again, |chain| {
            let mut bytes = vec![0; chain.reader.left()];
            chain.reader.read_exact(&mut bytes)?;
            bytes.reverse();
            chain.writer.write_all(&bytes)?;
            Ok(Turn::Done)
        })
    }
}

impl Device for Echo {
    fn kind(&self) -> u32 {
        42
    }

    fn name(&self) -> &'static str {
        "echo"
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &[SIZE]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn queue_ready(&mut self, _queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        self.turn(io)
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.again.watch(io, 0)
    }

    fn source_ready(&mut self, _token: u64, _ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        self.again.hear();
        self.turn(io)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn driver() -> Driver {
    Driver::new(&mut Echo::new(), 0)
}

/// Takes the next chain; the memory outlives it here.
fn next(driver: &mut Driver) -> Result<Option<Chain<'_>>, DeviceError> {
    Chain::next(&mut driver.io.queues[0], &driver.io.memory)
}

fn refusal(driver: &mut Driver) -> String {
    next(driver).map(drop).unwrap_err().to_string()
}

#[test]
fn a_request_is_read_and_answered_over_any_number_of_buffers() {
    let mut device = Echo::new();
    let mut driver = Driver::new(&mut device, 0);
    let buffers = [
        Buffer::Bytes(b"ab"),
        Buffer::Bytes(b""),
        Buffer::Bytes(b"cde"),
        Buffer::Room(1),
        Buffer::Room(0),
        Buffer::Room(9),
    ];
    let (answer, length) = driver.ask(&mut device, 0, &buffers).unwrap();
    assert_eq!((&answer[..5], length), (&b"edcba"[..], 5));
    assert_eq!(driver.interrupt.status(), INTERRUPT_USED);
    assert!(driver.used(0).is_empty());
}

#[test]
fn an_indirect_table_is_a_chain() {
    let mut driver = driver();
    driver.io.memory.write_slice(b"xyz", GuestAddress(0x20_0000)).unwrap();
    let table =
        [Descriptor::new(0x20_0000, 3, NEXT, 2), Descriptor::new(1, 1, NEXT, 1), Descriptor::new(SECOND, 8, WRITE, 0)];
    for (index, descriptor) in table.into_iter().enumerate() {
        let at = GuestAddress(0x30_0000 + 16 * index as u64);
        driver.io.memory.write_obj(RawDescriptor::from(descriptor), at).unwrap();
    }
    driver.send_descriptors(0, &[(0x30_0000, 48, INDIRECT)]);
    let mut chain = next(&mut driver).unwrap().unwrap();
    let mut bytes = [0; 3];
    chain.reader.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes, chain.writer.left()), (b"xyz", 8));
}

#[test]
fn a_chain_that_does_not_end_is_refused() {
    let looping = |driver: &mut Driver| {
        driver.write_descriptor(0, 0, Descriptor::new(0x20_0000, 1, NEXT, 1));
        driver.write_descriptor(0, 1, Descriptor::new(0x20_0000, 1, NEXT, 0));
    };
    let itself = |driver: &mut Driver| driver.write_descriptor(0, 0, Descriptor::new(0x20_0000, 0, NEXT, 0));
    let off_the_table = |driver: &mut Driver| driver.write_descriptor(0, 0, Descriptor::new(0x20_0000, 1, NEXT, SIZE));
    for make in [looping as fn(&mut Driver), itself, off_the_table] {
        let mut driver = driver();
        make(&mut driver);
        driver.make_available(0, 0);
        assert!(refusal(&mut driver).contains("does not end"));
    }
}

#[test]
fn a_head_outside_of_the_table_is_refused() {
    for head in [SIZE, u16::MAX] {
        let mut driver = driver();
        driver.make_available(0, head);
        assert!(refusal(&mut driver).contains("does not end"), "{head}");
    }
}

#[test]
fn more_heads_than_the_queue_has_are_refused() {
    let mut driver = driver();
    let index = GuestAddress(driver.io.queues[0].avail_ring() + 2);
    driver.io.memory.write_obj(SIZE + 1, index).unwrap();
    assert!(matches!(next(&mut driver), Err(DeviceError::Queue(_))));
}

#[test]
fn what_is_not_memory_is_refused() {
    for (start, length) in [
        (MEMORY_END, 1),
        (MEMORY_END - 1, 2),
        (0, u32::MAX),
        (u64::MAX, 1),
        (u64::MAX - 7, 8),
        (u64::MAX, u32::MAX),
        (SECOND - 1, 2),
    ] {
        for flags in [0, WRITE] {
            let mut driver = driver();
            driver.send_descriptors(0, &[(start, length, flags)]);
            assert!(matches!(next(&mut driver), Err(DeviceError::Memory(_))), "{start:#x} {length:#x}");
        }
    }
    // No byte at no address is no byte outside of memory.
    let mut driver = driver();
    driver.send_descriptors(0, &[(u64::MAX, 0, 0)]);
    assert_eq!(next(&mut driver).unwrap().unwrap().reader.left(), 0);
}

#[test]
fn what_is_written_comes_after_what_is_read() {
    let mut driver = driver();
    driver.send_descriptors(0, &[(0x20_0000, 1, WRITE), (0x20_0000, 1, 0)]);
    assert!(refusal(&mut driver).contains("a readable buffer after a writable one"));
}

#[test]
fn tables_that_break_the_rules_are_refused() {
    for (table, length, entry) in [
        // Not whole descriptors, no descriptor at all, outside of memory, a table in a table.
        (0x30_0000, 24, Descriptor::new(0x20_0000, 1, 0, 0)),
        (0x30_0000, 0, Descriptor::new(0x20_0000, 1, 0, 0)),
        (MEMORY_END, 16, Descriptor::new(0x20_0000, 1, 0, 0)),
        (u64::MAX - 15, 16, Descriptor::new(0x20_0000, 1, 0, 0)),
        (0x30_0000, 16, Descriptor::new(0x30_0000, 16, INDIRECT, 0)),
    ] {
        let mut driver = driver();
        driver.io.memory.write_obj(RawDescriptor::from(entry), GuestAddress(0x30_0000)).unwrap();
        driver.send_descriptors(0, &[(table, length, INDIRECT)]);
        assert!(refusal(&mut driver).contains("does not end"), "{table:#x} {length}");
    }
}

#[test]
fn a_table_has_a_limit() {
    for (entries, good) in [(MAX_DESCRIPTORS, true), (MAX_DESCRIPTORS + 1, false)] {
        let mut driver = driver();
        for index in 0..entries {
            let flags = if index + 1 < entries { NEXT } else { 0 };
            let descriptor = Descriptor::new(0x20_0000, 1, flags, index as u16 + 1);
            let at = GuestAddress(0x30_0000 + 16 * index as u64);
            driver.io.memory.write_obj(RawDescriptor::from(descriptor), at).unwrap();
        }
        driver.send_descriptors(0, &[(0x30_0000, entries as u32 * 16, INDIRECT)]);
        match next(&mut driver) {
            Ok(Some(chain)) => assert!(good && chain.reader.left() == entries),
            Ok(None) => panic!("the chain is there"),
            Err(error) => assert!(!good && error.to_string().contains("more descriptors"), "{error}"),
        }
    }
}

#[test]
fn a_chain_has_less_than_four_gigabytes() {
    let mut driver = driver();
    let mut descriptors = Vec::new();
    for index in 0..1024_u64 {
        descriptors.push(Descriptor::new(0, 4 << 20, if index < 1023 { NEXT } else { 0 }, index as u16 + 1));
    }
    for (index, descriptor) in descriptors.into_iter().enumerate() {
        let at = GuestAddress(SECOND + 16 * index as u64);
        driver.io.memory.write_obj(RawDescriptor::from(descriptor), at).unwrap();
    }
    driver.send_descriptors(0, &[(SECOND, 1024 * 16, INDIRECT)]);
    assert!(refusal(&mut driver).contains("does not end"));
}

#[test]
fn a_request_too_short_names_both_lengths() {
    let mut driver = driver();
    driver.send(0, &[Buffer::Bytes(b"abc"), Buffer::Room(2)]);
    let mut chain = next(&mut driver).unwrap().unwrap();
    let error = chain.reader.read_object::<u32>().unwrap_err().to_string();
    assert!(error.contains("reads 4 bytes, 3 are left"), "{error}");
    let error = chain.writer.write_object(1_u32).unwrap_err().to_string();
    assert!(error.contains("writes 4 bytes, 2 are left"), "{error}");
    assert_eq!((chain.reader.left(), chain.writer.left(), chain.writer.written()), (3, 2, 0));
}

#[test]
fn files_are_read_and_written_in_place() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    let mut driver = driver();
    driver.send(0, &[Buffer::Bytes(b"ab"), Buffer::Bytes(b"cd"), Buffer::Room(3), Buffer::Room(4), Buffer::Room(9)]);
    let mut chain = next(&mut driver).unwrap().unwrap();
    // A limit that ends within a piece.
    assert_eq!(chain.reader.write_to_file_at(file.as_fd(), 1, 3).unwrap(), 3);
    assert_eq!(chain.reader.left(), 1);
    assert_eq!(chain.writer.read_from_file_at(file.as_fd(), 0, 5).unwrap(), 5);
    // The end of the file.
    assert_eq!(chain.writer.read_from_file_at(file.as_fd(), 8, 11).unwrap(), 2);
    assert_eq!(chain.writer.read_from_file_at(file.as_fd(), 10, 9).unwrap(), 0);
    assert_eq!((chain.writer.left(), chain.writer.written()), (9, 7));
    let error = chain.writer.read_from_file_at(file.as_fd(), u64::MAX, 1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW));
    assert_eq!(chain.writer.left(), 9);
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(drain_file(&mut file), b"0abc456789");
}

fn drain_file(file: &mut std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(file, &mut bytes).unwrap();
    bytes
}

#[test]
fn streams_are_read_and_written_in_place() {
    let (reader, writer) = pipe();
    let mut driver = driver();
    driver.send(0, &[Buffer::Bytes(b"hello"), Buffer::Bytes(b" you"), Buffer::Room(4), Buffer::Room(6)]);
    let mut chain = next(&mut driver).unwrap().unwrap();
    assert_eq!(chain.reader.write_to_stream(writer.as_fd(), 100).unwrap(), 9);
    assert_eq!(chain.writer.read_from_stream(reader.as_fd(), 7).unwrap(), 7);
    assert_eq!(drain(&reader), b"ou");
    assert_eq!(chain.writer.left(), 3);
    chain.writer.write_zeroes(100);
    assert_eq!(chain.writer.written(), 10);
}

#[test]
fn a_turn_is_bounded_and_comes_again() {
    let mut device = Echo::new();
    let mut driver = Driver::new(&mut device, 0);
    // The request that starting asks for.
    assert_eq!(driver.report(&mut device, 0).unwrap(), 1);
    for _ in 0..SIZE {
        driver.send_descriptors(0, &[(0x20_0000, 0, 0)]);
    }
    driver.kick(&mut device, 0).unwrap();
    assert_eq!(driver.used(0).len(), usize::from(SIZE));
    let flags: u16 = driver.io.memory.read_obj(GuestAddress(driver.io.queues[0].used_ring())).unwrap();
    assert_eq!(flags, 1, "the driver need not kick: the device comes by itself");
    assert_eq!(device.turns, 2);
    driver.send_descriptors(0, &[(0x20_0000, 0, 0)]);
    assert_eq!(driver.report(&mut device, 0).unwrap(), 1);
    assert_eq!((driver.used(0).len(), device.turns), (1, 3));
    let flags: u16 = driver.io.memory.read_obj(GuestAddress(driver.io.queues[0].used_ring())).unwrap();
    assert_eq!((flags, driver.report(&mut device, 0).unwrap()), (0, 0));
}

#[test]
fn what_was_used_before_an_error_is_told() {
    let mut device = Echo::new();
    let mut driver = Driver::new(&mut device, 0);
    driver.send(0, &[Buffer::Bytes(b"a"), Buffer::Room(1)]);
    driver.send(0, &[Buffer::Bytes(b"abc"), Buffer::Room(1)]);
    assert!(driver.kick(&mut device, 0).is_err());
    assert_eq!((driver.used(0).len(), driver.interrupt.status()), (1, INTERRUPT_USED));
}

#[test]
fn with_event_idx_the_driver_is_interrupted_when_it_asked_to_be() {
    let mut device = Echo::new();
    let mut driver = Driver::new(&mut device, RING_FEATURES);
    driver.io.queues[0].set_event_idx(true);
    let used_event = GuestAddress(driver.io.queues[0].avail_ring() + 4 + 2 * u64::from(SIZE));
    // Only the third one.
    driver.io.memory.write_obj(2_u16, used_event).unwrap();
    for expected in [0, 0, INTERRUPT_USED] {
        driver.send_descriptors(0, &[(0x20_0000, 0, 0)]);
        driver.kick(&mut device, 0).unwrap();
        assert_eq!(driver.interrupt.status(), expected);
    }
}

#[test]
fn a_queue_that_is_not_ready_is_left_alone() {
    let mut device = Echo::new();
    let mut driver = Driver::new(&mut device, 0);
    driver.send_descriptors(0, &[(0x20_0000, 0, 0)]);
    driver.io.queues[0].set_ready(false);
    driver.kick(&mut device, 0).unwrap();
    assert!(driver.used(0).is_empty());
}

proptest! {
    /// Cut in any way, what goes in comes out, and the counts agree.
    #[test]
    fn splitting_keeps_every_byte(
        pieces in prop::collection::vec(0_usize..40, 1..8),
        cuts in prop::collection::vec(0_usize..60, 0..8),
    ) {
        let mut driver = driver();
        let bytes: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|at| at as u8).collect();
        let mut buffers = Vec::new();
        let mut rest = &bytes[..];
        for length in &pieces {
            let (piece, behind) = rest.split_at(*length);
            buffers.push(Buffer::Bytes(piece));
            rest = behind;
        }
        buffers.extend(pieces.iter().map(|length| Buffer::Room(*length as u32)));
        let request = driver.send(0, &buffers);
        let (seen, written) = {
            let mut chain = next(&mut driver).unwrap().unwrap();
            let (mut seen, mut written) = (Vec::new(), 0);
            for cut in cuts.iter().copied().chain([usize::MAX]) {
                let mut reader = chain.reader.split_to(cut);
                let mut part = vec![0; reader.left()];
                prop_assert_eq!(reader.read_some(&mut part), part.len());
                prop_assert_eq!(reader.left(), 0);
                let mut writer = chain.writer.split_to(cut);
                prop_assert_eq!(writer.left(), part.len());
                writer.write_all(&part).unwrap();
                written += writer.written();
                seen.extend(part);
            }
            prop_assert_eq!(chain.writer.written(), 0);
            (seen, written)
        };
        prop_assert_eq!(&seen, &bytes);
        prop_assert_eq!(written, bytes.len());
        prop_assert_eq!(driver.answer(&request), bytes);
    }
}
