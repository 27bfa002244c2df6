//! Reserving ports on a real kernel.

use super::lab::in_new_netns;
use crate::{PortRequest, Protocol, ports};

#[test]
fn ports_are_reserved_like_docker_does() {
    in_new_netns(|| {
        let any = |protocol, host_ports| PortRequest { protocol, container_port: 80, host_address: None, host_ports };
        let held =
            ports::reserve(&[any(Protocol::Tcp, Some(8000..=8000)), any(Protocol::Udp, Some(8000..=8000))]).unwrap();
        assert_eq!(held.len(), 4, "both families, both protocols");
        let taken = |request| ports::reserve(&[request]).unwrap_err().to_string();
        assert_eq!(
            taken(any(Protocol::Tcp, Some(8000..=8000))),
            "Bind for 0.0.0.0:8000 failed: port is already allocated"
        );
        assert_eq!(
            taken(any(Protocol::Udp, Some(8000..=8000))),
            "Bind for 0.0.0.0:8000 failed: port is already allocated"
        );
        // One address of it is taken, too; and IPv6 alone takes the port from a request for both.
        let on = |address: &str, port| PortRequest {
            host_address: Some(address.parse().unwrap()),
            ..any(Protocol::Tcp, Some(port..=port))
        };
        assert_eq!(taken(on("127.0.0.1", 8000)), "Bind for 127.0.0.1:8000 failed: port is already allocated");
        let six = ports::reserve(&[on("::", 8001)]).unwrap();
        assert_eq!(
            taken(any(Protocol::Tcp, Some(8001..=8001))),
            "Bind for [::]:8001 failed: port is already allocated"
        );
        assert_eq!(six.len(), 1);
        // A range gives the first that is free on both families.
        let range = ports::reserve(&[any(Protocol::Tcp, Some(8000..=8002))]).unwrap();
        assert!(range.iter().all(|reserved| reserved.published.host_port == 8002));
        let full = taken(any(Protocol::Tcp, Some(8000..=8002)));
        assert_eq!(full, "Bind for 0.0.0.0:8002 failed: all ports of 8000-8002 are already allocated");
        let foreign = taken(on("192.0.2.77", 80));
        assert!(foreign.starts_with("Bind for 192.0.2.77:80 failed: cannot assign requested address"), "{foreign}");
        // A dead holder's port is free at once.
        drop(held);
        ports::reserve(&[any(Protocol::Tcp, Some(8000..=8000))]).unwrap();
    });
}

#[test]
fn random_ports_are_the_kernels_and_the_same_for_both_families() {
    in_new_netns(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50009").unwrap();
        let any = PortRequest { protocol: Protocol::Tcp, container_port: 80, host_address: None, host_ports: None };
        let held: Vec<_> = (0..10).map(|_| ports::reserve(std::slice::from_ref(&any)).unwrap()).collect();
        let mut numbers: Vec<u16> = held.iter().map(|pair| pair[0].published.host_port).collect();
        assert!(held.iter().all(|pair| pair.len() == 2 && pair[0].published.host_port == pair[1].published.host_port));
        numbers.sort_unstable();
        assert_eq!(numbers, (50000..=50009).collect::<Vec<_>>());
        let error = ports::reserve(&[any]).unwrap_err().to_string();
        assert!(error.ends_with("failed: all ports are allocated"), "{error}");
    });
}

#[test]
fn a_fixed_port_is_not_lost_to_a_range_before_it() {
    in_new_netns(|| {
        let on = |first, last, container_port| PortRequest {
            protocol: Protocol::Tcp,
            container_port,
            host_address: None,
            host_ports: Some(first..=last),
        };
        let held = ports::reserve(&[on(8000, 8001, 1), on(8000, 8000, 2)]).unwrap();
        let of =
            |port| held.iter().find(|reserved| reserved.published.container_port == port).unwrap().published.host_port;
        assert_eq!((of(1), of(2)), (8001, 8000));
    });
}
