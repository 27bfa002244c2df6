//! Killed at any step, many at once: what is left, what is found, who is not disturbed.

use super::host::{container, host, id, open, published};
use super::lab::{Netns, in_new_netns, ip, nft};
use crate::netlink::Conversation;
use crate::{Endpoint, Fixed, Protocol, nft as tables};

#[test]
fn what_a_crash_left_at_any_step_is_reaped_and_the_living_stay() {
    in_new_netns(|| {
        let host = host();
        let network = &host.network;
        let port =
            |number: u16| [published(Protocol::Tcp, "0.0.0.0", number, 80), published(Protocol::Udp, "::", number, 80)];
        let (living, _keep) = container(network, 1);
        network.publish(&living, &port(1)).unwrap();
        // Killed after allocate, after connect, after publish; and with a namespace that outlives it.
        network.allocate(&id(2), Fixed::default()).unwrap();
        let (_, _kept) = container(network, 3);
        let (fourth, kept) = container(network, 4);
        network.publish(&fourth, &port(4)).unwrap();
        let live = |name: &str| id(1).starts_with(name);
        let reaped = network.reap(&live).unwrap();
        assert_eq!((reaped.links, reaped.leases, reaped.ports), (2, 6, 2));
        assert!(!kept.enter(|| ip("-o link")).contains("eth0"));
        assert_eq!(network.reap(&live).unwrap(), crate::Reaped::default());
        assert!(ip("-o link").contains(&living.link));
        assert_eq!(network.leases().unwrap().len(), 2);
        let left = tables::ports::list(&mut Conversation::netfilter().unwrap()).unwrap();
        assert!(left.len() == 2 && left.iter().all(|port| port.container == id(1)), "{left:?}");
    });
}

#[test]
fn a_stale_element_gives_way_to_the_holder_of_the_port() {
    in_new_netns(|| {
        let host = host();
        let (dead, _a) = container(&host.network, 1);
        let (alive, _b) = container(&host.network, 2);
        let ports = [published(Protocol::Tcp, "0.0.0.0", 80, 80), published(Protocol::Tcp, "0.0.0.0", 81, 81)];
        host.network.publish(&dead, &ports[..1]).unwrap();
        host.network.publish(&alive, &ports).unwrap();
        let left = tables::ports::list(&mut Conversation::netfilter().unwrap()).unwrap();
        assert!(left.len() == 2 && left.iter().all(|port| port.container == id(2)), "{left:?}");
        // The dead one's late clean-up touches nothing of it.
        host.network.unpublish(&id(1)).unwrap();
        assert_eq!(tables::ports::list(&mut Conversation::netfilter().unwrap()).unwrap().len(), 2);
    });
}

#[test]
fn flushed_rules_come_back() {
    in_new_netns(|| {
        let host = host();
        let (endpoint, _netns) = container(&host.network, 1);
        let ports = [published(Protocol::Tcp, "0.0.0.0", 80, 80)];
        host.network.publish(&endpoint, &ports).unwrap();
        let before = nft("list table inet sbx");
        nft("flush ruleset");
        host.network.publish(&endpoint, &ports).unwrap();
        assert_eq!(nft("list table inet sbx"), before);
        nft("flush ruleset");
        // Nothing to remove is fine without a table, too.
        host.network.unpublish(&endpoint.container).unwrap();
        host.network.reap(&|_| true).unwrap();
    });
}

#[test]
fn twenty_containers_at_once() {
    in_new_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let here = Netns::current();
        // The network itself is made by whoever comes first.
        std::thread::scope(|scope| {
            let start = |number: u64| {
                let (here, directory) = (&here, directory.path());
                scope.spawn(move || {
                    here.enter(|| {
                        let mut network = open(directory);
                        network.prepare().unwrap();
                        let netns = Netns::new();
                        let endpoint = network.allocate(&id(number), Fixed::default()).unwrap();
                        network.connect(&endpoint, netns.fd()).unwrap();
                        let port = 8000 + number as u16;
                        network.publish(&endpoint, &[published(Protocol::Tcp, "0.0.0.0", port, 80)]).unwrap();
                        if number.is_multiple_of(2) {
                            network.remove(&endpoint).unwrap();
                        }
                        (endpoint, netns)
                    })
                })
            };
            let threads: Vec<_> = (0..20).map(start).collect();
            let all: Vec<(Endpoint, Netns)> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let network = open(directory.path());
            assert_eq!(network.leases().unwrap().len(), 20);
            let mut macs: Vec<_> = all.iter().skip(1).step_by(2).map(|(endpoint, _)| endpoint.mac.0).collect();
            macs.sort_unstable();
            macs.dedup();
            assert_eq!(macs.len(), 10);
            assert_eq!(tables::ports::list(&mut Conversation::netfilter().unwrap()).unwrap().len(), 10);
            assert_eq!(ip("-o link").lines().filter(|line| line.contains("master sbx0")).count(), 10);
        });
    });
}
