//! What each step costs; run it with `--nocapture` to see. On a slow disk, with `TMPDIR` on a tmpfs like `/run`.

use std::time::Instant;

use super::host::{host, id, open, published};
use super::lab::{Netns, in_new_netns};
use crate::{Fixed, Protocol};

#[test]
fn the_start_path_is_cheap() {
    in_new_netns(|| {
        let host = host();
        let mut lines = Vec::new();
        let netns: Vec<Netns> = (0..20).map(|_| Netns::new()).collect();
        for (netns, number) in netns.iter().zip(1..) {
            let mut at = Instant::now();
            let mut lap = || std::mem::replace(&mut at, Instant::now()).elapsed().as_micros();
            let mut network = open(host.directory.path());
            let opened = lap();
            network.prepare().unwrap();
            let prepared = lap();
            let endpoint = network.allocate(&id(number), Fixed::default()).unwrap();
            let allocated = lap();
            network.connect(&endpoint, netns.fd()).unwrap();
            let connected = lap();
            network.publish(&endpoint, &[published(Protocol::Tcp, "0.0.0.0", 8000 + number as u16, 80)]).unwrap();
            let published = lap();
            let nothing = network.reap(&|_| true).unwrap();
            let reaped = lap();
            assert_eq!(nothing, crate::Reaped::default());
            network.unpublish(&endpoint.container).unwrap();
            let unpublished = lap();
            network.disconnect(&endpoint.container).unwrap();
            let disconnected = lap();
            network.release(&endpoint.container).unwrap();
            lines.push([opened, prepared, allocated, connected, published, reaped, unpublished, disconnected, lap()]);
        }
        let median = |column: usize| {
            let mut values: Vec<u128> = lines.iter().map(|line| line[column]).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let names = ["open", "prepare", "allocate", "connect", "publish", "reap", "unpublish", "disconnect", "release"];
        for (name, column) in names.iter().zip(0..) {
            println!("{name:>12} {:>6} µs", median(column));
        }
        let start: u128 = (0..5).map(median).sum();
        println!("{:>12} {start:>6} µs", "start");
        assert!(start < 50_000, "the network part of a start took {start} µs");
    });
}
