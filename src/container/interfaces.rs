//! The interfaces inside the container's network namespace: up, with addresses and default routes (rtnetlink(7)).
//!
//! The creator has put each link there under its final name; this runs in the child, which is in the namespace.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Error, Step};
use crate::netlink::Conversation;
use crate::plan::Interface;

/// Brings the loopback interface and `interfaces` up and gives them what the plan says.
pub(crate) fn configure(interfaces: &[Interface]) -> Result<(), Error> {
    let mut route = Conversation::open().step(|| "open a netlink socket".into())?;
    route.up(1).step(|| "bring lo up".into())?;
    for interface in interfaces {
        let name = &interface.name;
        let index = nix::net::if_::if_nametoindex(name.as_str()).step(|| format!("find interface {name}"))?;
        for address in &interface.addresses {
            let (ip, prefix) = parse_address(address)?;
            add_address(&mut route, index, ip, prefix).step(|| format!("give {name} the address {address}"))?;
        }
        route.up(index).step(|| format!("bring {name} up"))?;
        for gateway in &interface.gateways {
            let address = gateway.parse().map_err(|_| Error::new(format!("gateway {gateway}"), "not an address"))?;
            add_default_route(&mut route, index, address).step(|| format!("route by {gateway}"))?;
        }
    }
    Ok(())
}

fn parse_address(text: &str) -> Result<(IpAddr, u8), Error> {
    text.split_once('/')
        .and_then(|(ip, prefix)| Some((ip.parse().ok()?, prefix.parse().ok()?)))
        .ok_or_else(|| Error::new(format!("address {text}"), "not of the form address/prefix"))
}

fn add_address(route: &mut Conversation, index: u32, ip: IpAddr, prefix: u8) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Address(ip));
    match ip {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            message.attributes.push(AddressAttribute::Local(ip));
            let low_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            if prefix < 31 {
                message.attributes.push(AddressAttribute::Broadcast((u32::from(v4) | low_bits).into()));
            }
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // Addresses are allocated: nobody else has this one, so that it need not be probed for a second.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    route.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn add_default_route(route: &mut Conversation, index: u32, gateway: IpAddr) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.address_family = if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(RouteAttribute::Gateway(match gateway {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }));
    message.attributes.push(RouteAttribute::Oif(index));
    route.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}
