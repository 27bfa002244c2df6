//! A card of the machine becomes an interface of a container. The card is one end of a veth pair, whose other end is what the
//! host would be.

use sbx_container::plan::{Capabilities, Interface};
use sbx_protocol::guest::{CreateRequest, Uplink};
use sbx_protocol::{Reply, Request};

use crate::support::{Agent, create_request, exec_request, id};

const CARD: [u8; 6] = [0x02, 0x5b, 0, 0, 0, 1];
const ADDRESS: [u8; 6] = [0x02, 0x42, 0xac, 0x11, 0, 2];

fn agent_with_card() -> Option<Agent> {
    let agent = Agent::start()?;
    agent.run(&["ip", "link", "add", "card0", "address", "02:5b:00:00:00:01", "type", "veth", "peer", "name", "far0"]);
    agent.run(&["ip", "address", "add", "10.99.0.1/24", "dev", "far0"]);
    agent.run(&["ip", "link", "set", "far0", "mtu", "1400", "up"]);
    Some(agent)
}

fn request(agent: &Agent) -> CreateRequest {
    let mut request = create_request(agent, 'a', &["sleep", "10000"]);
    request.uplinks = vec![Uplink { card: CARD, interface: "eth0".into(), address: ADDRESS, mtu: 1400 }];
    request.plan.interfaces = vec![Interface {
        name: "eth0".into(),
        addresses: vec!["10.99.0.2/24".into()],
        gateways: vec!["10.99.0.1".into()],
    }];
    request
}

#[test]
fn a_container_has_its_own_interface_and_reaches_what_is_beyond_the_card() {
    let Some(agent) = agent_with_card() else { return };
    let mut control = agent.control();
    control.create(request(&agent));
    control.start('a').unwrap();
    let script = "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip -4 -o address show dev eth0; ip route; ls /sys/class/net";
    let (code, said) = control.run(&agent, exec_request('a', &["sh", "-c", script]));
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("02:42:ac:11:00:02\n1400\n"), "{said}");
    assert!(said.contains("10.99.0.2/24"), "{said}");
    assert!(said.contains("default via 10.99.0.1 dev eth0"), "{said}");
    assert!(said.ends_with("eth0\nlo\n"), "only its own: {said}");
    let mut request = exec_request('a', &["arping", "-c", "1", "-w", "5", "-I", "eth0", "10.99.0.1"]);
    let raw = || vec!["CAP_NET_RAW".to_owned()];
    request.process.capabilities =
        Capabilities { bounding: raw(), effective: raw(), permitted: raw(), ..Capabilities::default() };
    let (code, said) = control.run(&agent, request);
    assert_eq!(code, 0, "{said}");

    let stats = match control.ask(&Request::Stats { container: id('a') }).unwrap() {
        Reply::Stats(stats) => stats,
        other => panic!("{other:?}"),
    };
    assert_eq!(stats.networks.keys().collect::<Vec<_>>(), ["eth0"]);
    assert!(stats.networks["eth0"].rx_packets > 0 && stats.networks["eth0"].tx_packets > 0, "{stats:?}");
    // The machine's own links have no address.
    assert_eq!(agent.run(&["ip", "-o", "address", "show", "dev", "card0"]), "");
}

#[test]
fn the_link_goes_with_the_container_and_comes_again() {
    let Some(agent) = agent_with_card() else { return };
    let mut control = agent.control();
    let links = || agent.run(&["ip", "-o", "link"]).lines().count();
    let mut first = request(&agent);
    control.create(first.clone());
    let running = links();
    first.furnishings.clear();
    for _ in 0..3 {
        control.start('a').unwrap();
        assert_eq!(control.run(&agent, exec_request('a', &["ip", "route"])).0, 0);
        control.tell(&Request::Kill { container: id('a'), signal: libc::SIGKILL });
        control.wait('a');
        assert_eq!(links(), running - 1, "the machine's end has gone, the bridge stays");
        control.create(first.clone());
        assert_eq!(links(), running);
    }
}
