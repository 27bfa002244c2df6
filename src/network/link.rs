//! Links, addresses and routes of the network namespace we run in (rtnetlink(7)).
//!
//! Requests are built with typed messages; answers are read attribute by attribute, so that a newer kernel that
//! answers with more than a codec knows does not stop a container from starting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::attributes::{attributes, find, native32, text};
use crate::netlink::{Conversation, HEADER};
use crate::{Endpoint, Error, MacAddress, Result};

/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTN_UNICAST: u8 = 1;

/// An interface.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth`, `tun` (also of taps), …; empty for hardware.
    pub(crate) kind: String,
    pub(crate) up: bool,
    /// `struct rtnl_link_stats64`, where it was asked for.
    pub(crate) stats: Option<Vec<u8>>,
}

/// An address range that the host uses, and by which interface.
#[derive(Clone, Debug)]
pub(crate) struct Occupied {
    pub(crate) net: IpNet,
    pub(crate) interface: u32,
}

fn encode(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    debug_assert!(bytes.len() > HEADER);
    bytes
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let header = payload.get(..LINK_HEADER)?;
    let mut link = Link {
        index: native32(&header[4..8])?,
        name: String::new(),
        kind: String::new(),
        up: native32(&header[8..12])? & libc::IFF_UP as u32 != 0,
        stats: None,
    };
    for (kind, value) in attributes(&payload[LINK_HEADER..]) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINKINFO => link.kind = find(value, IFLA_INFO_KIND).map(text).unwrap_or_default(),
            IFLA_STATS64 => link.stats = Some(value.to_vec()),
            _ => {}
        }
    }
    Some(link)
}

/// Whether the counters of an interface are wanted too; reading them walks every processor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counters {
    Read,
    Skip,
}

/// Finds an interface by name.
pub(crate) fn find_link(netlink: &mut Conversation, name: &str, counters: Counters) -> Result<Option<Link>> {
    let mut message = named(name);
    if counters == Counters::Skip {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    }
    let step = format!("look the interface {name} up");
    let replies = match netlink.get(&step, encode(RouteNetlinkMessage::GetLink(message), 0)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(None),
        other => other?,
    };
    Ok(replies.iter().find_map(|reply| parse_link(&reply.payload)))
}

/// Names of all interfaces that could be a container's link: veths and taps.
pub(crate) fn links_of_containers(netlink: &mut Conversation) -> Result<Vec<String>> {
    let mut names = links(netlink, InfoKind::Veth, "veth")?;
    names.extend(links(netlink, InfoKind::Tun, "tun")?);
    Ok(names)
}

/// Names of all interfaces of a kind.
fn links(netlink: &mut Conversation, kind: InfoKind, name: &str) -> Result<Vec<String>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let replies = netlink.dump("list the interfaces", &encode(RouteNetlinkMessage::GetLink(message), 0))?;
    let links = replies.iter().filter_map(|reply| parse_link(&reply.payload));
    // A kernel that does not know the kind lists all interfaces.
    Ok(links.filter(|link| link.kind == name).map(|link| link.name).collect())
}

/// Makes a bridge, down, with a fixed MAC address: one that follows its ports would change with every container.
pub(crate) fn create_bridge(netlink: &mut Conversation, name: &str, mac: MacAddress, mtu: u32) -> Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let request = encode(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
    match netlink.execute(&format!("make the bridge {name}"), &[request]) {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Err(Error::KernelFeature {
            feature: "network bridges (CONFIG_BRIDGE)",
            remedy: "load the module bridge, or use --network none or host",
        }),
        other => other,
    }
}

/// Brings an interface up.
pub(crate) fn set_up(netlink: &mut Conversation, link: &Link) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let step = format!("bring the interface {} up", link.name);
    netlink.execute(&step, &[encode(RouteNetlinkMessage::SetLink(message), 0)])
}

/// Gives an interface an address that is usable at once; one that it has already is fine.
pub(crate) fn add_address(netlink: &mut Conversation, link: &Link, address: IpNet) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.index = link.index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = if address.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(net) => message.attributes.push(AddressAttribute::Broadcast(net.broadcast())),
        IpNet::V6(_) => {
            // Nobody else is on the bridge yet: there is no duplicate to detect.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    let request = encode(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    match netlink.execute(&format!("give {} the address {address}", link.name), &[request]) {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Makes the pair: the container's end is born in `netns` under its final name, the host's end is up and on the
/// bridge. One message, so there is no half of it to find after a crash.
pub(crate) fn create_veth(
    netlink: &mut Conversation,
    endpoint: &Endpoint,
    bridge: u32,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let mut peer = named(&endpoint.interface);
    peer.attributes.push(LinkAttribute::Address(endpoint.mac.0.to_vec()));
    peer.attributes.push(LinkAttribute::Mtu(endpoint.mtu));
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    one_queue(&mut peer);
    let mut message = named(&endpoint.link);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(endpoint.mtu));
    message.attributes.push(LinkAttribute::Controller(bridge));
    one_queue(&mut message);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let request = encode(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
    let step = format!("make the link {} to container {}", endpoint.link, endpoint.container);
    netlink.execute(&step, &[request])
}

/// Brings a tap up and puts it on the bridge, as [`create_veth`] does with the host's end.
pub(crate) fn put_on_bridge(netlink: &mut Conversation, endpoint: &Endpoint, bridge: u32) -> Result<()> {
    let mut message = named(&endpoint.link);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(endpoint.mtu));
    message.attributes.push(LinkAttribute::Controller(bridge));
    let step = format!("put the tap {} of container {} on the bridge", endpoint.link, endpoint.container);
    netlink.execute(&step, &[encode(RouteNetlinkMessage::SetLink(message), 0)])
}

/// The default is a queue, with its files in sysfs, for every processor that the machine could have. A veth neither
/// locks nor schedules by queue, so more than one buys nothing and makes the link slower to make and to delete.
fn one_queue(message: &mut LinkMessage) {
    message.attributes.push(LinkAttribute::NumTxQueues(1));
    message.attributes.push(LinkAttribute::NumRxQueues(1));
}

/// Deletes interfaces by name, both ends of a pair; returns when they are gone. Ones that are gone already are fine.
pub(crate) fn delete_link(netlink: &mut Conversation, name: &str) -> Result<()> {
    let request = encode(RouteNetlinkMessage::DelLink(named(name)), 0);
    match netlink.execute(&format!("delete the link {name}"), &[request]) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Deletes any number of interfaces at the price of one: the kernel's waiting for its readers is what takes the time,
/// and it waits once for a group.
pub(crate) fn delete_links(netlink: &mut Conversation, names: &[String]) -> Result<()> {
    if let [name] = names {
        return delete_link(netlink, name);
    }
    // Another process that does the same must not mean the same group. The kernel's default is 0.
    let group = 1 << 31 | std::process::id();
    let joining = names.iter().map(|name| {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::Group(group));
        encode(RouteNetlinkMessage::SetLink(message), 0)
    });
    let joining: Vec<Vec<u8>> = joining.collect();
    for part in joining.chunks(64) {
        match netlink.execute("gather links to delete", part) {
            Err(error) if error.errno() == Some(libc::ENODEV) => {}
            other => other?,
        }
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    let request = encode(RouteNetlinkMessage::DelLink(message), 0);
    match netlink.execute("delete the links of dead containers", &[request]) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// What the host uses: its addresses and its routes.
pub(crate) fn occupied(netlink: &mut Conversation) -> Result<Vec<Occupied>> {
    let mut occupied = addresses(netlink)?;
    occupied.extend(routes(netlink)?);
    Ok(occupied)
}

/// The host's own addresses, with their subnets.
pub(crate) fn addresses(netlink: &mut Conversation) -> Result<Vec<Occupied>> {
    let request = encode(RouteNetlinkMessage::GetAddress(AddressMessage::default()), 0);
    let replies = netlink.dump("list the host's addresses", &request)?;
    Ok(replies.iter().filter_map(|reply| parse_address(&reply.payload)).collect())
}

fn parse_address(payload: &[u8]) -> Option<Occupied> {
    let header = payload.get(..ADDRESS_HEADER)?;
    let body = &payload[ADDRESS_HEADER..];
    // On a point-to-point link IFA_ADDRESS is the other side.
    let address = parse_ip(find(body, IFA_LOCAL).or_else(|| find(body, IFA_ADDRESS))?)?;
    Some(Occupied { net: IpNet::new(address, header[1]).ok()?, interface: native32(&header[4..8])? })
}

/// Where the host sends packets to, default routes left out.
fn routes(netlink: &mut Conversation) -> Result<Vec<Occupied>> {
    let request = encode(RouteNetlinkMessage::GetRoute(RouteMessage::default()), 0);
    let replies = netlink.dump("list the host's routes", &request)?;
    Ok(replies.iter().filter_map(|reply| parse_route(&reply.payload)).collect())
}

fn parse_route(payload: &[u8]) -> Option<Occupied> {
    let header = payload.get(..ROUTE_HEADER)?;
    let body = &payload[ROUTE_HEADER..];
    if header[7] != RTN_UNICAST || header[1] == 0 {
        return None;
    }
    let destination = parse_ip(find(body, RTA_DST)?)?;
    let interface = find(body, RTA_OIF).and_then(native32).unwrap_or(0);
    Some(Occupied { net: IpNet::new(destination, header[1]).ok()?, interface })
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}
