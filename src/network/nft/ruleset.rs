//! Our tables, as text would have them:
//!
//! ```text
//! table inet sbx {
//!   comment "sbx 1 sbx0 172.17.0.0/16 fd…::/64"          what it was made for; anything else is made anew
//!   map published4    { type inet_proto . inet_service : ipv4_addr . inet_service }
//!   map published4_on { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   map published6, published6_on                         one element for each port; its comment is the container id
//!   chain publish     { dnat ip to ip daddr . meta l4proto . th dport map @published4_on … }
//!   chain prerouting  { type nat hook prerouting priority dstnat
//!                       iifname "sbx0" return; fib daddr type local jump publish }
//!   chain output      { type nat hook output priority -100
//!                       ip daddr 127.0.0.0/8 return; ip6 daddr ::1 return; fib daddr type local jump publish }
//!   chain postrouting { type nat hook postrouting priority srcnat
//!                       ip saddr 172.17.0.0/16 oifname != "sbx0" masquerade … }
//!   chain forward     { type filter hook forward priority filter
//!                       ct state established,related accept; iifname "sbx0" accept
//!                       oifname "sbx0" ct status dnat accept; oifname "sbx0" drop }
//! }
//! ```
//!
//! Ports are elements, not rules: a lookup costs the same with a thousand of them, and adding or removing those of one
//! container is one atomic batch that touches nobody else's. What loopback, a container or the host itself sends to
//! 127/8 or ::1 is not translated but served by the proxy behind the reserved socket, so `route_localnet` stays off
//! and a port published on 127.0.0.1 does not exist for a neighbour. Whatever reaches a container was translated by
//! one of our elements, belongs to a connection, or is dropped: a neighbour with a route to the subnet gets nowhere.

use ipnet::IpNet;

use crate::Definition;
use crate::nft::expression::{Base, Compare, Connection, Expressions, Meta, REG_1, Verdict, slot};
use crate::nft::message::{Hook, SetType, new_chain, new_rule, new_set, new_table};

/// Changed with the rules below: a table that carries another number is replaced.
const VERSION: u32 = 1;

/// nft's numbers of data types; a concatenation is six bits for each.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;

const fn concat(types: &[u32]) -> u32 {
    let (mut number, mut index) = (0, 0);
    while index < types.len() {
        number = number << 6 | types[index];
        index += 1;
    }
    number
}

const TARGET4: Option<(u32, u32)> = Some((concat(&[TYPE_IPV4, TYPE_PORT]), 8));
const TARGET6: Option<(u32, u32)> = Some((concat(&[TYPE_IPV6, TYPE_PORT]), 20));

/// Ports on every address of the host, and on one; each part of a key is padded to 4 bytes.
pub(crate) const PUBLISHED4: SetType =
    SetType { name: "published4", key: (concat(&[TYPE_PROTOCOL, TYPE_PORT]), 8), data: TARGET4 };
pub(crate) const PUBLISHED4_ON: SetType =
    SetType { name: "published4_on", key: (concat(&[TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT]), 12), data: TARGET4 };
pub(crate) const PUBLISHED6: SetType =
    SetType { name: "published6", key: (concat(&[TYPE_PROTOCOL, TYPE_PORT]), 8), data: TARGET6 };
pub(crate) const PUBLISHED6_ON: SetType =
    SetType { name: "published6_on", key: (concat(&[TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT]), 24), data: TARGET6 };

/// Every map that holds ports.
pub(crate) const PORT_MAPS: [SetType; 4] = [PUBLISHED4, PUBLISHED4_ON, PUBLISHED6, PUBLISHED6_ON];

const CT_ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const CT_STATUS_DNAT: u32 = 32;

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;

/// What identifies the tables that belong to a network.
pub(crate) fn fingerprint(network: &Definition) -> String {
    let subnets: Vec<String> = network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
    format!("sbx {VERSION} {} {}", network.interface, subnets.join(" "))
}

/// The messages that make the inet table.
pub(crate) fn inet(network: &Definition) -> Vec<Vec<u8>> {
    let bridge = network.interface.as_str();
    let mut messages = vec![new_table(&fingerprint(network))];
    messages.extend(PORT_MAPS.iter().zip(1..).map(|(set, number)| new_set(*set, number)));
    messages.extend(publish());
    messages.extend(destination_nat(bridge));
    messages.extend(source_nat(network, bridge));
    messages.extend(forward(bridge));
    messages
}

fn rule(chain: &str, fill: impl FnOnce(&mut Expressions<'_>)) -> Vec<u8> {
    new_rule(chain, "", fill)
}

fn base_chain(name: &str, kind: &'static str, number: u32, priority: i32) -> Vec<u8> {
    new_chain(name, Some(Hook { kind, number, priority }))
}

/// The maps, the more specific first.
fn publish() -> Vec<Vec<u8>> {
    // The port follows the address: a slot for IPv4, four for IPv6.
    let (ipv4, ipv6) = (libc::NFPROTO_IPV4 as u32, libc::NFPROTO_IPV6 as u32);
    let everywhere = |map: SetType, family, port| {
        rule("publish", move |rule| {
            rule.meta(Meta::Protocol, REG_1).payload(Base::Transport, 2, 2, slot(1)).map(map.name);
            rule.translate_destination(family, port);
        })
    };
    let on_address = |map: SetType, family: u32, (offset, length): (u32, u32), port| {
        rule("publish", move |rule| {
            rule.meta(Meta::Family, REG_1).compare(Compare::Equal, &[family as u8]);
            rule.payload(Base::Network, offset, length, REG_1);
            rule.meta(Meta::Protocol, slot(length / 4)).payload(Base::Transport, 2, 2, slot(length / 4 + 1));
            rule.map(map.name).translate_destination(family, port);
        })
    };
    vec![
        new_chain("publish", None),
        on_address(PUBLISHED4_ON, ipv4, (16, 4), slot(1)),
        everywhere(PUBLISHED4, ipv4, slot(1)),
        on_address(PUBLISHED6_ON, ipv6, (24, 16), slot(4)),
        everywhere(PUBLISHED6, ipv6, slot(4)),
    ]
}

fn destination_nat(bridge: &str) -> Vec<Vec<u8>> {
    vec![
        base_chain("prerouting", "nat", PREROUTING, PRIORITY_DSTNAT),
        // A container that asks the host is served by the proxy: no hairpin, and its own port works too.
        rule("prerouting", |rule| {
            rule.meta(Meta::InputName, REG_1).compare(Compare::Equal, &interface_name(bridge));
            rule.verdict(Verdict::Return);
        }),
        rule("prerouting", |rule| rule.destination_is_local().verdict(Verdict::Jump("publish"))),
        base_chain("output", "nat", OUTPUT, PRIORITY_DSTNAT),
        rule("output", |rule| {
            rule.meta(Meta::Family, REG_1).compare(Compare::Equal, &[libc::NFPROTO_IPV4 as u8]);
            rule.payload(Base::Network, 16, 1, REG_1).compare(Compare::Equal, &[127]).verdict(Verdict::Return);
        }),
        rule("output", |rule| {
            rule.meta(Meta::Family, REG_1).compare(Compare::Equal, &[libc::NFPROTO_IPV6 as u8]);
            let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
            rule.payload(Base::Network, 24, 16, REG_1).compare(Compare::Equal, &loopback).verdict(Verdict::Return);
        }),
        rule("output", |rule| rule.destination_is_local().verdict(Verdict::Jump("publish"))),
    ]
}

fn source_nat(network: &Definition, bridge: &str) -> Vec<Vec<u8>> {
    let mut messages = vec![base_chain("postrouting", "nat", POSTROUTING, PRIORITY_SRCNAT)];
    messages.extend(network.subnets.iter().map(|subnet| {
        rule("postrouting", |rule| {
            source_in(rule, subnet.subnet);
            rule.meta(Meta::OutputName, REG_1).compare(Compare::Different, &interface_name(bridge));
            rule.masquerade();
        })
    }));
    messages
}

/// `ip saddr NET` or `ip6 saddr NET`.
fn source_in(rule: &mut Expressions<'_>, net: IpNet) {
    let (family, offset, address, mask) = match net {
        IpNet::V4(net) => (libc::NFPROTO_IPV4, 12, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        IpNet::V6(net) => (libc::NFPROTO_IPV6, 8, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
    };
    rule.meta(Meta::Family, REG_1).compare(Compare::Equal, &[family as u8]);
    let whole = usize::from(net.prefix_len() / 8);
    if net.prefix_len().is_multiple_of(8) && whole > 0 {
        rule.payload(Base::Network, offset, whole as u32, REG_1).compare(Compare::Equal, &address[..whole]);
    } else {
        rule.payload(Base::Network, offset, address.len() as u32, REG_1).mask(&mask);
        rule.compare(Compare::Equal, &address);
    }
}

fn forward(bridge: &str) -> Vec<Vec<u8>> {
    let name = interface_name(bridge);
    vec![
        base_chain("forward", "filter", FORWARD, PRIORITY_FILTER),
        rule("forward", |rule| {
            rule.connection_has(Connection::State, CT_ESTABLISHED_OR_RELATED).verdict(Verdict::Accept);
        }),
        rule("forward", |rule| {
            rule.meta(Meta::InputName, REG_1).compare(Compare::Equal, &name).verdict(Verdict::Accept);
        }),
        rule("forward", |rule| {
            rule.meta(Meta::OutputName, REG_1).compare(Compare::Equal, &name);
            rule.connection_has(Connection::Status, CT_STATUS_DNAT).verdict(Verdict::Accept);
        }),
        rule("forward", |rule| {
            rule.meta(Meta::OutputName, REG_1).compare(Compare::Equal, &name).verdict(Verdict::Drop);
        }),
    ]
}

/// An interface name as the kernel compares it: padded with NUL to 16 bytes.
pub(crate) fn interface_name(name: &str) -> [u8; libc::IFNAMSIZ] {
    let mut padded = [0; libc::IFNAMSIZ];
    for (byte, letter) in padded[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    padded
}
