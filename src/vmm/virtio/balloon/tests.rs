//! Balloons as good and bad drivers blow them up.

use std::sync::Arc;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use super::{
    Balloon, BalloonConfig, BalloonControl, FEATURE_DEFLATE_ON_OOM, FEATURE_PAGE_POISON, FEATURE_REPORTING,
    FEATURE_STATISTICS, runs,
};
use crate::virtio::driver::{Buffer, Driver, Hostile, SECOND, attack};
use crate::virtio::io::{INTERRUPT_CONFIG, INTERRUPT_USED};
use crate::virtio::{Device, DeviceError};

const ALL: u64 = FEATURE_STATISTICS | FEATURE_REPORTING;
const STATISTICS: usize = 2;
const REPORTING: usize = 3;
const BASE: u64 = 2 << 20;

fn balloon() -> (Balloon, BalloonControl) {
    Balloon::new(BalloonConfig { name: "balloon".into(), target: 0, deflate_on_oom: true }).unwrap()
}

fn numbers(pages: &[u32]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_le_bytes()).collect()
}

/// Fills pages of memory, and says later which of them still have their content.
fn fill(driver: &Driver, pages: &[u64]) {
    for page in pages {
        driver.io.memory.write_slice(&[0xaa; 4096], GuestAddress(*page)).unwrap();
    }
}

fn kept(driver: &Driver, pages: &[u64]) -> Vec<bool> {
    pages.iter().map(|page| driver.bytes(*page, 4096) == [0xaa; 4096]).collect()
}

fn is_zero(driver: &Driver, page: u64) -> bool {
    driver.bytes(page, 4096) == [0; 4096]
}

#[test]
fn pages_that_follow_each_other_are_one_run() {
    assert_eq!(runs(vec![]), []);
    assert_eq!(
        runs(vec![1, 2, 3, 5, u32::MAX]),
        [(GuestAddress(4096), 3 * 4096), (GuestAddress(5 * 4096), 4096), (GuestAddress(0xffff_ffff << 12), 4096)]
    );
}

#[test]
fn what_is_inflated_is_given_back_and_nothing_else() {
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, ALL);
    let pages = [BASE, BASE + 4096, BASE + 8192, SECOND];
    fill(&driver, &pages);
    let given = numbers(&[(BASE >> 12) as u32 + 1, (SECOND >> 12) as u32, (BASE >> 12) as u32 + 1]);
    driver.ask(&mut device, 0, &[Buffer::Bytes(&given)]).unwrap();
    assert_eq!(kept(&driver, &pages), [true, false, true, false]);
    assert!(is_zero(&driver, SECOND));
    assert_eq!((control.released(), control.last_failure()), (8192, None));
    driver.ask(&mut device, 1, &[Buffer::Bytes(&given)]).unwrap();
    fill(&driver, &pages);
    assert_eq!(kept(&driver, &pages), [true; 4]);
}

#[test]
fn what_is_no_memory_cannot_be_inflated() {
    let too_many = vec![0; 4 * 4097];
    for bytes in [&numbers(&[(4 << 20 >> 12)])[..], &numbers(&[u32::MAX]), &[1, 2, 3], &too_many] {
        let (mut device, control) = balloon();
        let mut driver = Driver::new(&mut device, ALL);
        driver.send(0, &[Buffer::Bytes(bytes)]);
        let error = driver.kick(&mut device, 0).unwrap_err();
        assert!(matches!(error, DeviceError::Driver(_)), "{error}");
        assert_eq!(control.released(), 0);
    }
}

#[test]
fn free_pages_that_are_reported_are_given_back_as_whole_pages() {
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, ALL);
    let pages = [BASE, BASE + 4096, BASE + 8192, BASE + 12288, SECOND];
    fill(&driver, &pages);
    // The second and third page whole, of the first and the fourth only a part; a piece smaller than a page.
    driver.send_descriptors(REPORTING, &[(BASE + 100, 3 * 4096 + 50, 2), (SECOND + 1, 4096, 2)]);
    driver.run(&mut device, REPORTING).unwrap();
    assert_eq!(driver.used(REPORTING).len(), 1);
    assert_eq!(kept(&driver, &pages), [true, false, false, true, true]);
    assert_eq!(control.released(), 8192);
}

#[test]
fn the_queue_of_reports_moves_up_where_there_are_no_statistics() {
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, FEATURE_REPORTING);
    driver.send_descriptors(STATISTICS, &[(BASE, 4096, 2)]);
    driver.run(&mut device, STATISTICS).unwrap();
    assert_eq!(control.released(), 4096);
}

#[test]
fn shared_memory_is_given_back_too() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let region = |flags: i32, at: u64| {
        let mapping = MmapRegionBuilder::new(1 << 20)
            .with_file_offset(FileOffset::new(file.try_clone().unwrap(), 0))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(flags);
        Arc::new(GuestRegionMmap::new(mapping.build().unwrap(), GuestAddress(at)).unwrap())
    };
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, ALL);
    let (shared, private) = (16 << 20, 32 << 20);
    let regions = [region(libc::MAP_SHARED, shared), region(libc::MAP_PRIVATE, private)];
    driver.io.memory =
        regions.into_iter().fold(driver.io.memory.clone(), |memory, region| memory.insert_region(region).unwrap());
    fill(&driver, &[shared]);
    driver.send_descriptors(REPORTING, &[(shared, 8192, 2)]);
    driver.run(&mut device, REPORTING).unwrap();
    assert!(is_zero(&driver, shared));
    assert_eq!(control.released(), 8192, "{:?}", control.last_failure());
    // The private copy of a file's page goes, the file's page shows.
    std::os::unix::fs::FileExt::write_all_at(&file, &[5; 4096], 0).unwrap();
    fill(&driver, &[private]);
    driver.send_descriptors(REPORTING, &[(private, 4096, 2)]);
    driver.run(&mut device, REPORTING).unwrap();
    assert_eq!(driver.bytes(private, 4096), [5; 4096]);
}

#[test]
fn memory_that_is_read_only_here_cannot_be_given_back() {
    let mapping = MmapRegionBuilder::<()>::new(1 << 20)
        .with_mmap_prot(libc::PROT_READ)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let region = Arc::new(GuestRegionMmap::new(mapping.build().unwrap(), GuestAddress(16 << 20)).unwrap());
    for queue in [0, REPORTING] {
        let (mut device, control) = balloon();
        let mut driver = Driver::new(&mut device, ALL);
        driver.io.memory = GuestMemoryMmap::insert_region(&driver.io.memory, Arc::clone(&region)).unwrap();
        if queue == 0 {
            driver.send(0, &[Buffer::Bytes(&numbers(&[(16 << 20) >> 12]))]);
        } else {
            driver.send_descriptors(queue, &[(16 << 20, 4096, 2)]);
        }
        let error = driver.kick(&mut device, queue).unwrap_err();
        assert!(matches!(error, DeviceError::Driver(_)), "{error}");
        assert_eq!(control.released(), 0);
        assert_eq!(driver.io.memory.num_regions(), 3);
    }
}

#[test]
fn free_pages_with_a_content_are_left_alone() {
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, ALL | FEATURE_PAGE_POISON);
    device.write_config(12, &0xaaaa_aaaa_u32.to_le_bytes());
    fill(&driver, &[BASE]);
    driver.send_descriptors(REPORTING, &[(BASE, 4096, 2)]);
    driver.run(&mut device, REPORTING).unwrap();
    assert_eq!((kept(&driver, &[BASE]), control.released()), (vec![true], 0));
    // Zeroes are what comes back anyway.
    device.write_config(12, &[0; 4]);
    driver.send_descriptors(REPORTING, &[(BASE, 4096, 2)]);
    driver.run(&mut device, REPORTING).unwrap();
    assert!(is_zero(&driver, BASE));
}

#[test]
fn the_host_says_how_much_it_wants_and_hears_how_much_it_has() {
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, ALL);
    driver.report(&mut device, 0).unwrap();
    assert_eq!(driver.interrupt.status(), 0);
    control.set_target(1234).unwrap();
    driver.report(&mut device, 0).unwrap();
    assert_eq!(driver.interrupt.status(), INTERRUPT_CONFIG);
    let mut target = [0; 4];
    device.read_config(0, &mut target);
    assert_eq!(u32::from_le_bytes(target), 1234);
    device.write_config(4, &77_u32.to_le_bytes());
    assert_eq!(control.actual(), 77);
    // The wish is not the driver's to change.
    device.write_config(0, &[0; 4]);
    device.write_config(4, &[1, 2]);
    device.read_config(0, &mut target);
    assert_eq!((u32::from_le_bytes(target), control.actual()), (1234, 77));
    device.reset();
    device.read_config(0, &mut target);
    assert_eq!((u32::from_le_bytes(target), control.actual()), (1234, 0));
}

fn statistic(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let (mut device, control) = balloon();
    let mut driver = Driver::new(&mut device, ALL);
    let bytes = [statistic(4, 100), statistic(5, 200), statistic(99, 300)].concat();
    let request = driver.send(STATISTICS, &[Buffer::Bytes(&bytes)]);
    driver.run(&mut device, STATISTICS).unwrap();
    let (count, statistics) = control.statistics();
    assert_eq!((count, statistics.free, statistics.total, statistics.caches), (1, Some(100), Some(200), None));
    assert!(driver.used(STATISTICS).is_empty(), "the buffer stays with the device");
    control.ask_for_statistics().unwrap();
    driver.report(&mut device, 0).unwrap();
    assert_eq!(driver.used(STATISTICS), [(request.head, 0)]);
    assert_ne!(driver.interrupt.status() & INTERRUPT_USED, 0);
    driver.send(STATISTICS, &[Buffer::Bytes(&bytes[..15])]);
    driver.run(&mut device, STATISTICS).unwrap();
    let (count, statistics) = control.statistics();
    assert_eq!((count, statistics.free, statistics.total), (2, Some(100), None));
    // A second buffer makes the first come back.
    driver.send(STATISTICS, &[Buffer::Bytes(&[])]);
    driver.run(&mut device, STATISTICS).unwrap();
    assert_eq!(driver.used(STATISTICS).len(), 1);
}

#[test]
fn a_restored_balloon_still_has_the_buffer_for_statistics() {
    let (mut device, _) = balloon();
    let mut driver = Driver::new(&mut device, ALL);
    let request = driver.send(STATISTICS, &[Buffer::Bytes(&statistic(4, 1))]);
    driver.run(&mut device, STATISTICS).unwrap();
    device.write_config(4, &55_u32.to_le_bytes());
    let saved = device.save().unwrap();
    let (mut device, control) = balloon();
    device.restore(&saved).unwrap();
    assert_eq!(control.actual(), 55);
    control.ask_for_statistics().unwrap();
    device.start(&mut driver.io).unwrap();
    driver.report(&mut device, 0).unwrap();
    assert_eq!(driver.used(STATISTICS), [(request.head, 0)]);
    assert!(device.restore(&[1]).is_err());
}

#[test]
fn a_restored_machine_may_want_another_balloon() {
    let (device, _) = balloon();
    let saved = device.save().unwrap();
    let config = BalloonConfig { name: "balloon".into(), target: 9, deflate_on_oom: false };
    let (mut device, _) = Balloon::new(config).unwrap();
    assert_eq!(device.features() & FEATURE_DEFLATE_ON_OOM, 0);
    device.restore(&saved).unwrap();
    let mut driver = Driver::new(&mut device, ALL);
    driver.report(&mut device, 0).unwrap();
    assert_eq!(driver.interrupt.status(), INTERRUPT_CONFIG);
}

#[test]
fn a_hostile_driver_does_no_harm() {
    let pages = numbers(&[0x300, 0x301, 0x302, 0x800]);
    let statistics = [statistic(4, 100), statistic(5, 200)].concat();
    let requests: [(usize, &[u8]); 4] = [(0, &pages), (1, &pages), (STATISTICS, &statistics), (REPORTING, &[])];
    let handle = std::cell::RefCell::new(None::<BalloonControl>);
    let host = |random: u64| {
        if let Some(control) = handle.borrow().as_ref() {
            control.set_target(random as u32).unwrap();
            control.ask_for_statistics().unwrap();
        }
    };
    attack(&Hostile { requests: &requests, host: &host, ..Hostile::default() }, || {
        let (device, control) = balloon();
        *handle.borrow_mut() = Some(control);
        Box::new(device)
    });
}
