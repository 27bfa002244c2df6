//! A container's place on the network from its first start to its removal, by the link that either mode has.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use sbx_sandbox::config::{Config, NetworkingConfig};
use sbx_sandbox::host_config::{HostConfig, PortBinding};
use sbx_sandbox::isolation::{Mode, Resolved};
use sbx_sandbox::spec::{ImageRecord, SCHEMA, SandboxSpec, Security};
use sbx_sandbox::timestamp::Timestamp;

use super::host::{configure, host, id};
use super::lab::{Netns, in_own_process, ip, nft};
use super::lan::{PATIENCE, ask_tcp, serve};
use super::tap::{EVERYTHING, no_taps, wire};
use crate::{Attachment, EtcFiles, Network};

fn spec(number: u64, network: &str) -> SandboxSpec {
    let binding = PortBinding { host_port: "8080".into(), ..PortBinding::default() };
    let host_config = HostConfig {
        network_mode: network.into(),
        port_bindings: BTreeMap::from([("80/tcp".into(), vec![binding])]),
        ..HostConfig::default()
    };
    SandboxSpec {
        schema: SCHEMA,
        id: id(number).parse().unwrap(),
        name: "web".into(),
        created: Timestamp::now(),
        isolation: Resolved { isolation: Mode::Vm, reason: "test".into() },
        image: ImageRecord::default(),
        config: Config { hostname: "web".into(), ..Config::default() },
        host_config,
        networking: NetworkingConfig::default(),
        mounts: Vec::new(),
        security: Security::default(),
        only_kept: false,
    }
}

/// What is there of the container outside of it, from `ask` of the published port to its link.
fn answered(here: &Netns, address: &str) -> Option<IpAddr> {
    ask_tcp(here, address, 8080, PATIENCE)
}

fn nothing_leads_there(network: &Network) {
    assert!(!nft("list table inet sbx").contains("elements"));
    assert!(!ip("-o link").contains("sbx000000000001"));
    assert!(network.stats(&id(1)).unwrap().is_none());
}

#[test]
fn an_attachment_lives_as_long_as_its_container() {
    if no_taps("an_attachment_lives_as_long_as_its_container") {
        return;
    }
    in_own_process("tests::attachment::an_attachment_lives_as_long_as_its_container", || {
        let mut host = host();
        let here = Netns::current();
        let mut attachment = Attachment::allocate(&spec(1, "bridge"), &mut host.network).unwrap();
        let network = &host.network;
        let endpoint = attachment.facts().endpoint.unwrap();
        assert_eq!(attachment.interfaces()[0].addresses, endpoint.addresses());
        assert_eq!(attachment.facts().ports.len(), 2, "{:?}", attachment.facts());
        let files = EtcFiles::of(&spec(1, "bridge"), network, &attachment).unwrap();
        assert!(files.hosts.contains("172.17.0.2\tweb") && files.hostname == "web\n", "{files:?}");
        nothing_leads_there(network);
        // Started three times: with a kernel of its own, on ours, and with its own again.
        for with_tap in [true, false, true] {
            attachment.settle().unwrap();
            let guest = if with_tap {
                let tap = attachment.connect_tap(network, EVERYTHING).unwrap().unwrap();
                wire(&endpoint, tap)
            } else {
                let container = Netns::new();
                attachment.connect_to(network, container.fd()).unwrap();
                container
            };
            configure(&endpoint, &guest);
            attachment.serve().unwrap();
            serve(&guest, "0.0.0.0", 80);
            // By the firewall, and by the proxy.
            assert_eq!(answered(&here, "172.17.0.1"), Some(IpAddr::V4(endpoint.gateway)));
            assert_eq!(answered(&here, "127.0.0.1"), Some(IpAddr::V4(endpoint.gateway)));
            let usage = attachment.usage(network).unwrap();
            assert!(usage["eth0"].rx_packets >= 6 && usage["eth0"].tx_packets >= 6, "{usage:?}");
            attachment.disconnect(network).unwrap();
            nothing_leads_there(network);
            assert!(attachment.usage(network).unwrap().is_empty());
            // Port and address are kept for the next start.
            let error = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert_eq!(network.leases().unwrap().len(), 2);
        }
        attachment.release(network).unwrap();
        assert!(network.leases().unwrap().is_empty());
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
        assert_eq!(ip("-o link").lines().count(), 2, "{}", ip("-o link"));
    });
}

#[test]
fn without_a_bridge_there_is_no_link() {
    in_own_process("tests::attachment::without_a_bridge_there_is_no_link", || {
        let mut host = host();
        for mode in ["none", "host"] {
            let mut attachment = Attachment::allocate(&spec(1, mode), &mut host.network).unwrap();
            assert!(attachment.connect_tap(&host.network, EVERYTHING).unwrap().is_none());
            attachment.serve().unwrap();
            assert!(attachment.interfaces().is_empty() && attachment.usage(&host.network).unwrap().is_empty());
            assert_eq!(attachment.facts(), Default::default());
            attachment.disconnect(&host.network).unwrap();
            attachment.release(&host.network).unwrap();
        }
        nothing_leads_there(&host.network);
    });
}
