//! The host side on a real kernel: a host with a bridge, containers, and what `ip` and `nft` say about it.

use std::path::Path;

use tempfile::TempDir;

use super::lab::{Netns, in_new_netns, ip, nft};
use crate::definition::NetworkOptions;
use crate::{Endpoint, Error, Fixed, Network, Protocol, Published};

pub(crate) struct Host {
    pub(crate) directory: TempDir,
    pub(crate) network: Network,
}

/// A host with the default network, in the calling thread's namespace.
pub(crate) fn host() -> Host {
    let directory = tempfile::tempdir().unwrap();
    let mut network = open(directory.path());
    network.prepare().unwrap();
    Host { directory, network }
}

pub(crate) fn open(directory: &Path) -> Network {
    Network::open(&directory.join("state"), &directory.join("run"), &NetworkOptions::default()).unwrap()
}

pub(crate) fn id(number: u64) -> String {
    // The link carries the first digits, so these differ there.
    format!("{number:012x}{}", "e".repeat(52))
}

/// A connected container whose interface is configured as the container would.
pub(crate) fn container(network: &Network, number: u64) -> (Endpoint, Netns) {
    let netns = Netns::new();
    let endpoint = network.allocate(&id(number), Fixed::default()).unwrap();
    network.connect(&endpoint, netns.fd()).unwrap();
    configure(&endpoint, &netns);
    (endpoint, netns)
}

pub(crate) fn configure(endpoint: &Endpoint, netns: &Netns) {
    netns.enter(|| {
        ip("link set eth0 up");
        for address in endpoint.addresses() {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(&format!("addr add {address} dev eth0 {nodad}"));
        }
        for gateway in endpoint.gateways() {
            ip(&format!("route add default via {gateway}"));
        }
    });
}

pub(crate) fn published(protocol: Protocol, host: &str, host_port: u16, container_port: u16) -> Published {
    Published { protocol, container_port, host_address: host.parse().unwrap(), host_port }
}

#[test]
fn prepare_makes_everything_once() {
    in_new_netns(|| {
        let mut host = host();
        let before = (ip("-o addr show sbx0"), nft("list table inet sbx"));
        assert!(before.0.contains("inet 172.17.0.1/16") && before.0.contains("inet6 fd"), "{}", before.0);
        let link = ip("-d link show sbx0");
        assert!(link.contains("02:42:ac:11:00:01") && link.contains("UP") && link.contains("bridge"), "{link}");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/sbx0/accept_ra").unwrap().trim(), "0");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap().trim(), "1");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/accept_ra").unwrap().trim(), "2");
        host.network.prepare().unwrap();
        // Another process, another handle.
        let mut again = open(host.directory.path());
        assert_eq!(again.definition(), host.network.definition());
        again.prepare().unwrap();
        assert_eq!((ip("-o addr show sbx0"), nft("list table inet sbx")), before);
    });
}

#[test]
fn nft_prints_our_rules() {
    in_new_netns(|| {
        let host = host();
        let (endpoint, _netns) = container(&host.network, 7);
        let ports = [
            published(Protocol::Tcp, "0.0.0.0", 8080, 80),
            published(Protocol::Udp, "192.0.2.2", 53, 5353),
            published(Protocol::Tcp, "::", 8080, 80),
            published(Protocol::Udp, "2001:db8::2", 53, 5353),
            published(Protocol::Tcp, "127.0.0.1", 9090, 90),
        ];
        host.network.publish(&endpoint, &ports).unwrap();
        let subnet6 = host.network.definition().ipv6().unwrap().0;
        let own6 = endpoint.ipv6.unwrap().addr();
        let id = id(7);
        let text = nft("list table inet sbx");
        let expected = format!(
            r#"table inet sbx {{
	comment "sbx 1 sbx0 172.17.0.0/16 {subnet6}"
	map published4 {{
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = {{ tcp . 8080 comment "{id}" : 172.17.0.2 . 80 }}
	}}

	map published4_on {{
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = {{ 192.0.2.2 . udp . 53 comment "{id}" : 172.17.0.2 . 5353 }}
	}}

	map published6 {{
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = {{ tcp . 8080 comment "{id}" : {own6} . 80 }}
	}}

	map published6_on {{
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
		elements = {{ 2001:db8::2 . udp . 53 comment "{id}" : {own6} . 5353 }}
	}}

	chain publish {{
		dnat ip to ip daddr . meta l4proto . th dport map @published4_on
		dnat ip to meta l4proto . th dport map @published4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_on
		dnat ip6 to meta l4proto . th dport map @published6
	}}

	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "sbx0" return
		fib daddr type local jump publish
	}}

	chain output {{
		type nat hook output priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		ip6 daddr ::1 return
		fib daddr type local jump publish
	}}

	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != "sbx0" masquerade
		ip6 saddr {subnet6} oifname != "sbx0" masquerade
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		iifname "sbx0" accept
		oifname "sbx0" ct status dnat accept
		oifname "sbx0" drop
	}}
}}
"#
        );
        assert_eq!(text, expected);
        host.network.unpublish(&id).unwrap();
        assert!(!nft("list table inet sbx").contains("elements"));
    });
}

#[test]
fn our_table_is_what_nft_would_make_of_its_text() {
    in_new_netns(|| {
        let host = host();
        let ours = nft("--debug=netlink list table inet sbx");
        let directory = host.directory.path().join("table.nft");
        std::fs::write(&directory, nft("list table inet sbx")).unwrap();
        nft("delete table inet sbx");
        nft(&format!("-f {}", directory.display()));
        let theirs = nft("--debug=netlink list table inet sbx");
        let expressions = |text: &str| {
            text.lines().map(str::trim).filter(|line| line.starts_with('[')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(expressions(&ours).len() > 40, "{ours}");
        assert_eq!(expressions(&ours), expressions(&theirs));
    });
}

#[test]
fn other_tables_are_left_alone() {
    in_new_netns(|| {
        nft("add table inet other");
        nft("add chain inet other forward { type filter hook forward priority 0 ; policy accept ; }");
        nft("add rule inet other forward tcp dport 22 accept");
        let before = nft("list table inet other");
        let host = host();
        let (endpoint, _netns) = container(&host.network, 1);
        host.network.publish(&endpoint, &[published(Protocol::Tcp, "0.0.0.0", 80, 80)]).unwrap();
        host.network.reap(&|_| false).unwrap();
        assert_eq!(nft("list table inet other"), before);
    });
}

#[test]
fn a_table_of_another_version_is_replaced_and_keeps_its_ports() {
    in_new_netns(|| {
        let mut host = host();
        let (endpoint, _netns) = container(&host.network, 1);
        host.network.publish(&endpoint, &[published(Protocol::Tcp, "0.0.0.0", 80, 8080)]).unwrap();
        let current = nft("list table inet sbx");
        let old = current.replace("comment \"sbx 1 ", "comment \"sbx 0 ").replace("\t\tiifname \"sbx0\" return\n", "");
        assert_ne!(old, current);
        let path = host.directory.path().join("old.nft");
        std::fs::write(&path, old).unwrap();
        nft("delete table inet sbx");
        nft(&format!("-f {}", path.display()));
        host.network.prepare().unwrap();
        assert_eq!(nft("list table inet sbx"), current);
    });
}

#[test]
fn a_link_is_made_whole_and_goes_whole() {
    in_new_netns(|| {
        let host = host();
        let netns = Netns::new();
        let mac = "02:00:00:00:00:17".parse().unwrap();
        let fixed = Fixed { mac: Some(mac), ipv4: Some("172.17.3.4".parse().unwrap()), ..Fixed::default() };
        let endpoint = host.network.allocate(&id(0xabc), fixed).unwrap();
        assert_eq!(endpoint.link, "sbx000000000abc");
        host.network.connect(&endpoint, netns.fd()).unwrap();
        let outside = ip("-d link show sbx000000000abc");
        assert!(
            outside.contains("master sbx0") && outside.contains(",UP") && outside.contains("mtu 1500"),
            "{outside}"
        );
        let inside = netns.enter(|| ip("link show eth0"));
        assert!(inside.contains("link/ether 02:00:00:00:00:17") && inside.contains("mtu 1500"), "{inside}");
        assert!(!inside.contains(",UP"), "{inside}");
        assert_eq!(host.network.leases().unwrap().len(), 2);
        host.network.remove(&endpoint).unwrap();
        assert!(!ip("-o link").contains("sbx000000000abc"));
        assert!(!netns.enter(|| ip("-o link")).contains("eth0"));
        assert!(host.network.leases().unwrap().is_empty());
        // Everything again, when nothing is left.
        host.network.remove(&endpoint).unwrap();
    });
}

#[test]
fn the_counters_are_those_of_the_container() {
    in_new_netns(|| {
        let host = host();
        let (endpoint, netns) = container(&host.network, 1);
        let payload = [7_u8; 1000];
        netns.enter(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..50 {
                socket.send_to(&payload, (endpoint.gateway, 9)).unwrap();
            }
        });
        let stats = host.network.stats(&endpoint.container).unwrap().unwrap();
        assert!(stats.tx_bytes >= 50_000 && stats.tx_packets >= 50, "{stats:?}");
        assert!(stats.rx_bytes < 50_000, "{stats:?}");
        assert_eq!(host.network.stats(&id(9)).unwrap(), None);
    });
}

/// Another's bridge with an address out of the first of Docker's pools.
fn take_the_first_pool() {
    ip("link add taken type bridge");
    ip("addr add 172.17.5.1/24 dev taken");
    ip("link set taken up");
}

#[test]
fn a_configured_subnet_that_somebody_took_is_a_clear_error() {
    in_new_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let options = NetworkOptions { subnet: Some("172.17.0.0/16".parse().unwrap()), ..NetworkOptions::default() };
        let (state, run) = (directory.path().join("state"), directory.path().join("run"));
        let mut network = Network::open(&state, &run, &options).unwrap();
        take_the_first_pool();
        let error = network.prepare().unwrap_err();
        assert!(matches!(error, Error::SubnetConflict { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("172.17.0.0/16") && text.contains("172.17.5.1/24") && text.contains("bridge.json"),
            "{text}"
        );
        assert!(!ip("-o link").contains("sbx0"));
    });
}

#[test]
fn a_network_without_a_bridge_gives_way_to_the_host() {
    in_new_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let (mut network, mut another) = (open(directory.path()), open(directory.path()));
        let before = network.definition().clone();
        assert_eq!(before.ipv4().unwrap().0.to_string(), "172.17.0.0/16");
        take_the_first_pool();
        network.prepare().unwrap();
        let after = network.definition();
        assert_eq!(after.ipv4().unwrap().0.to_string(), "172.18.0.0/16");
        assert_eq!((&after.id, after.ipv6()), (&before.id, before.ipv6()));
        assert_eq!(&open(directory.path()).definition(), &after);
        assert!(ip("-o addr show sbx0").contains("172.18.0.1/16"));
        // Who opened the network before it moved learns of it.
        another.prepare().unwrap();
        assert_eq!(another.definition(), after);
        let endpoint = another.allocate(&id(1), Fixed::default()).unwrap();
        assert_eq!(endpoint.gateway.to_string(), "172.18.0.1");
        // Once there is a bridge, nothing moves it.
        ip("addr add 172.18.5.1/24 dev taken");
        network.prepare().unwrap();
        assert_eq!(network.definition(), another.definition());
    });
}

#[test]
fn a_name_that_is_taken_is_a_clear_error() {
    in_new_netns(|| {
        ip("link add sbx0 type veth peer name other");
        let directory = tempfile::tempdir().unwrap();
        let error = open(directory.path()).prepare().unwrap_err();
        assert!(matches!(error, Error::NotABridge { .. }), "{error}");
    });
}

#[test]
fn a_changed_configuration_is_a_clear_error() {
    in_new_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path());
        let options = NetworkOptions { subnet: Some("10.1.0.0/16".parse().unwrap()), ..NetworkOptions::default() };
        let (state, run) = (directory.path().join("state"), directory.path().join("run"));
        let error = Network::open(&state, &run, &options).unwrap_err().to_string();
        assert!(
            error.contains("172.17.0.0/16") && error.contains("10.1.0.0/16") && error.contains("bridge.json"),
            "{error}"
        );
        std::fs::write(state.join("networks/bridge.json"), "{\"SchemaVersion\":").unwrap();
        let error = Network::open(&state, &run, &NetworkOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Definition { .. }), "{error}");
    });
}

#[test]
fn a_container_that_starts_again_after_a_crash_finds_nothing_in_its_way() {
    in_new_netns(|| {
        let host = host();
        let (before, _kept) = container(&host.network, 1);
        let ports = [published(Protocol::Tcp, "0.0.0.0", 80, 80)];
        host.network.publish(&before, &ports).unwrap();
        host.network.clear(&id(1)).unwrap();
        assert!(host.network.leases().unwrap().is_empty());
        let (after, _new) = container(&host.network, 1);
        assert_ne!(after.ipv4, before.ipv4);
        // Even a link that is left does not stop it.
        let again = Netns::new();
        host.network.connect(&after, again.fd()).unwrap();
        assert!(again.enter(|| ip("-o link")).contains("eth0"));
        // Somebody else's eth0 does.
        let error = host.network.connect(&after, again.fd());
        assert!(error.is_ok(), "its own old end went with the old link");
        let taken = Netns::new();
        taken.enter(|| ip("link add eth0 type veth peer name other"));
        let error = host.network.connect(&after, taken.fd()).unwrap_err().to_string();
        assert!(error.contains("sbx000000000001") && error.contains("File exists"), "{error}");
    });
}

#[test]
fn thousands_of_ports_are_one_step() {
    in_new_netns(|| {
        let host = host();
        let (endpoint, _netns) = container(&host.network, 1);
        let ports: Vec<Published> = ["0.0.0.0", "::"]
            .iter()
            .flat_map(|host| (8000..10000).map(|port| published(Protocol::Tcp, host, port, port)))
            .collect();
        host.network.publish(&endpoint, &ports).unwrap();
        assert_eq!(nft("list map inet sbx published4").matches(" : ").count(), 2001);
        assert_eq!(nft("list map inet sbx published6").matches(" : ").count(), 2001);
        assert_eq!(host.network.reap(&|_| false).unwrap().ports, 4000);
        assert!(!nft("list table inet sbx").contains("elements"));
    });
}
