//! The cable out and in again, a tap that goes, save and restore, reset.

use std::os::fd::OwnedFd;

use super::station::{Station, config, pattern, wire};
use crate::virtio::driver::board::Board;
use crate::virtio::io::{INTERRUPT_CONFIG, INTERRUPT_USED};
use crate::virtio::net::header::Header;
use crate::virtio::net::{Config, Net};
use crate::virtio::{Device, Interest};

fn is_up(board: &Board<Net>) -> bool {
    let mut status = [0; 2];
    board.device.read_config(6, &mut status);
    status == [1, 0]
}

#[test]
fn a_pulled_cable_is_told_to_the_guest_and_lets_nothing_through() {
    let mut station = Station::new();
    station.offer(60, 1536);
    let link = station.board.device.link();
    station.board.run().unwrap();
    station.board.interrupt.acknowledge(INTERRUPT_CONFIG | INTERRUPT_USED);
    link.disconnect().unwrap();
    station.board.run().unwrap();
    assert_eq!(station.board.interrupt.status(), INTERRUPT_CONFIG);
    assert!(!is_up(&station.board) && !link.is_connected());
    station.put(&Header::default(), &pattern(100));
    station.send(&Header::default(), &pattern(100));
    assert!(station.frames().is_empty());
    assert_eq!(station.arrived(), None);
    link.connect().unwrap();
    assert!(station.frames().is_empty(), "what came while the cable was out is lost");
    assert!(is_up(&station.board));
    station.put(&Header::default(), &pattern(101));
    assert_eq!(station.frames()[0].bytes, pattern(101));
    station.send(&Header::default(), &pattern(102));
    assert_eq!(station.arrived().unwrap().1, pattern(102));
}

#[test]
fn a_cable_that_is_pulled_and_plugged_in_before_anyone_looks_changes_nothing() {
    let mut station = Station::new();
    station.board.run().unwrap();
    station.board.interrupt.acknowledge(INTERRUPT_CONFIG);
    let link = station.board.device.link();
    link.disconnect().unwrap();
    link.connect().unwrap();
    station.board.run().unwrap();
    assert_eq!(station.board.interrupt.status() & INTERRUPT_CONFIG, 0);
}

#[test]
fn a_tap_whose_interface_is_gone_is_a_pulled_cable_and_the_device_rests() {
    let mut station = Station::new();
    station.offer(60, 1536);
    // A tap reports EPOLLERR then.
    let gone = Interest { closed: true, readable: true, ..Interest::default() };
    station.board.device.source_ready(0, gone, &mut station.board.io).unwrap();
    assert!(!is_up(&station.board));
    station.put(&Header::default(), &pattern(100));
    assert!(station.frames().is_empty());
    station.board.device.link().connect().unwrap();
    station.board.run().unwrap();
    assert!(!is_up(&station.board));
}

#[test]
fn a_restored_device_tells_the_guest_what_has_changed() {
    let mut station = Station::new();
    let link = station.board.device.link();
    station.board.run().unwrap();
    link.disconnect().unwrap();
    station.board.run().unwrap();
    let state = station.board.device.save().unwrap();
    let (tap, wire) = wire();
    let mut device = Net::new(config(), tap).unwrap();
    device.restore(&state).unwrap();
    assert!(device.restore(&[7]).is_err());
    station.wire = wire;
    station.board = station.board.replace(device);
    assert!(!is_up(&station.board));
    station.board.run().unwrap();
    assert!(is_up(&station.board), "the owner of the new one has not pulled the cable");
    station.offer(60, 1536);
    station.put(&Header::default(), &pattern(100));
    assert_eq!(station.frames().len(), 1);
}

#[test]
fn a_device_that_was_reset_in_mid_flight_serves_the_next_driver() {
    let mut station = Station::new();
    station.offer(10, 1536);
    station.put(&Header::default(), &pattern(100));
    assert!(station.frames().is_empty());
    let features = station.board.io.features;
    let board = station.board.reset();
    let (_, unused) = wire();
    let wire = std::mem::replace(&mut station.wire, unused);
    let mut station = Station::with_device(board.device, wire, features);
    station.offer(60, 1536);
    assert_eq!(station.frames()[0].bytes, pattern(100));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let tap = || -> OwnedFd { wire().0 };
    let group = Config { mac: [1, 0, 0, 0, 0, 1], ..config() };
    assert!(Net::new(group, tap()).unwrap_err().to_string().contains("group"));
    let tiny = Config { mtu: 67, ..config() };
    assert!(Net::new(tiny, tap()).unwrap_err().to_string().contains("67"));
}
