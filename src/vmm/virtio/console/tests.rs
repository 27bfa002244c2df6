//! Consoles whose guest talks too much and whose host does not listen.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{Console, ConsoleConfig, FROM_GUEST, KEPT_BYTES, TO_GUEST};
use crate::virtio::driver::{Buffer, Driver, Hostile, attack, drain, pipe};
use crate::virtio::{Device, DeviceError};

use std::fs::File;

fn console(output: File, input: Option<File>) -> Console {
    Console::new(ConsoleConfig { name: "console".into() }, output, input).unwrap()
}

fn say(driver: &mut Driver, device: &mut Console, bytes: &[u8]) {
    driver.send(FROM_GUEST, &[Buffer::Bytes(bytes)]);
    driver.kick(device, FROM_GUEST).unwrap();
    assert_eq!(driver.used(FROM_GUEST).len(), 1, "the guest was made to wait");
}

#[test]
fn what_the_guest_says_comes_out() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    driver.ask(&mut device, FROM_GUEST, &[Buffer::Bytes(b"Linux "), Buffer::Bytes(b"version")]).unwrap();
    assert_eq!(drain(&reader), b"Linux version");
}

#[test]
fn a_reader_that_does_not_read_loses_lines_and_is_told_how_many_bytes() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    let line = [b'x'; 4096];
    // The pipe holds 64 KiB, the device as much.
    for _ in 0..40 {
        say(&mut driver, &mut device, &line);
    }
    let mut heard = drain(&reader);
    while driver.report(&mut device, 0).unwrap() > 0 {
        heard.extend(drain(&reader));
    }
    say(&mut driver, &mut device, b"end");
    heard.extend(drain(&reader));
    let text = String::from_utf8(heard).unwrap();
    let kept = text.chars().filter(|letter| *letter == 'x').count();
    let dropped = 40 * 4096 - kept;
    assert!(kept >= KEPT_BYTES && dropped > 0, "{kept}");
    assert!(text.ends_with(&format!("\r\n[{dropped} bytes of output were dropped]\r\nend")), "{}", &text[kept..]);
}

#[test]
fn a_reader_that_is_gone_is_forgotten() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    drop(reader);
    for _ in 0..100 {
        say(&mut driver, &mut device, &[b'x'; 4096]);
    }
    assert_eq!(driver.report(&mut device, 0).unwrap(), 1, "the first turn that starting asks for");
    assert_eq!(driver.report(&mut device, 0).unwrap(), 0, "a closed file is still watched");
}

#[test]
fn a_reader_that_goes_while_output_waits_is_forgotten() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    for _ in 0..20 {
        say(&mut driver, &mut device, &[b'x'; 4096]);
    }
    drop(reader);
    assert!(driver.report(&mut device, 0).unwrap() > 0);
    assert_eq!(driver.report(&mut device, 0).unwrap(), 0);
}

#[test]
fn output_to_a_file_needs_no_waiting() {
    let mut file = tempfile::tempfile().unwrap();
    let mut device = console(file.try_clone().unwrap(), None);
    let mut driver = Driver::new(&mut device, 0);
    for _ in 0..64 {
        say(&mut driver, &mut device, &[b'x'; 4096]);
    }
    assert_eq!(std::io::Seek::stream_position(&mut file).unwrap(), 64 * 4096);
}

#[test]
fn output_that_wants_an_answer_stops_the_device() {
    let (_reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    driver.send(FROM_GUEST, &[Buffer::Bytes(b"x"), Buffer::Room(1)]);
    assert!(matches!(driver.kick(&mut device, FROM_GUEST), Err(DeviceError::Driver(_))));
}

#[test]
fn the_largest_request_is_taken_in_part_and_counted() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    // Three megabytes in one chain.
    driver.send_descriptors(FROM_GUEST, &[(1 << 20, 1 << 20, 0), (1 << 20, 1 << 20, 0), (1 << 20, 1 << 20, 0)]);
    driver.kick(&mut device, FROM_GUEST).unwrap();
    let mut heard = drain(&reader).len();
    while driver.report(&mut device, 0).unwrap() > 0 {
        let text = drain(&reader);
        heard += text.len();
        if let Some(at) = text.iter().position(|byte| *byte == b'[') {
            let line = String::from_utf8_lossy(&text[at..]).into_owned();
            let spoken = heard - (text.len() - at) - 2;
            assert_eq!(line, format!("[{} bytes of output were dropped]\r\n", (3 << 20) - spoken));
            return;
        }
    }
    panic!("nobody said what was dropped");
}

#[test]
fn input_waits_for_room_and_room_for_input() {
    let (_heard, output) = pipe();
    let (input, mut typed) = pipe();
    let mut device = console(output, Some(input));
    let mut driver = Driver::new(&mut device, 0);
    while driver.report(&mut device, 0).unwrap() > 0 {}
    typed.write_all(b"ls -l\n").unwrap();
    // No room: the input is not even watched, or this would go on for ever.
    assert_eq!(driver.report(&mut device, 0).unwrap(), 0);
    let first = driver.send(TO_GUEST, &[Buffer::Room(4)]);
    driver.kick(&mut device, TO_GUEST).unwrap();
    assert_eq!((driver.used(TO_GUEST), driver.answer(&first)), (vec![(first.head, 4)], b"ls -".to_vec()));
    let second = driver.send(TO_GUEST, &[Buffer::Room(4)]);
    driver.run(&mut device, TO_GUEST).unwrap();
    assert_eq!(driver.used(TO_GUEST), [(second.head, 2)]);
    let third = driver.send(TO_GUEST, &[Buffer::Room(4)]);
    driver.run(&mut device, TO_GUEST).unwrap();
    assert!(driver.used(TO_GUEST).is_empty());
    typed.write_all(b"x").unwrap();
    assert_eq!(driver.report(&mut device, 0).unwrap(), 1);
    assert_eq!((driver.used(TO_GUEST), driver.answer(&third)[0]), (vec![(third.head, 1)], b'x'));
    driver.send(TO_GUEST, &[Buffer::Room(4)]);
    drop(typed);
    driver.run(&mut device, TO_GUEST).unwrap();
    assert!(driver.used(TO_GUEST).is_empty(), "the end of the input is not input");
    assert_eq!(driver.report(&mut device, 0).unwrap(), 0);
}

#[test]
fn what_was_kept_is_restored_and_a_reset_loses_nothing() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    for _ in 0..17 {
        say(&mut driver, &mut device, &[b'x'; 4096]);
    }
    let saved = device.save().unwrap();
    device.reset();
    driver = Driver::new(&mut device, 0);
    assert_eq!(drain(&reader).len(), 16 * 4096);
    while driver.report(&mut device, 0).unwrap() > 0 {}
    assert_eq!(drain(&reader).len(), 4096);
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    device.restore(&saved).unwrap();
    let mut driver = Driver::new(&mut device, 0);
    while driver.report(&mut device, 0).unwrap() > 0 {}
    assert_eq!(drain(&reader), [b'x'; 4096]);
    assert!(device.restore(&[0xff; 20]).is_err());
}

#[test]
fn the_last_words_are_passed_on() {
    let (reader, writer) = pipe();
    let mut device = console(writer, None);
    let mut driver = Driver::new(&mut device, 0);
    for _ in 0..17 {
        say(&mut driver, &mut device, &[b'x'; 4096]);
    }
    assert_eq!(drain(&reader).len(), 16 * 4096);
    drop(device);
    assert_eq!(drain(&reader).len(), 4096);
}

#[test]
fn a_hostile_driver_does_no_harm() {
    let (ours, theirs): (OwnedFd, OwnedFd) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (ours, theirs) = (File::from(ours), File::from(theirs));
    let host = |random: u64| {
        drain(&ours);
        let bytes = vec![random as u8; (random >> 8) as usize % 5000];
        let mut polled = [nix::poll::PollFd::new(ours.as_fd(), nix::poll::PollFlags::POLLOUT)];
        if nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO).unwrap() > 0 {
            (&ours).write_all(&bytes).unwrap();
        }
    };
    let requests: [(usize, &[u8]); 2] = [(FROM_GUEST, b"Linux version 6.12"), (TO_GUEST, b"")];
    attack(&Hostile { requests: &requests, host: &host, ..Hostile::default() }, || {
        Box::new(console(theirs.try_clone().unwrap(), Some(theirs.try_clone().unwrap())))
    });
}
