//! The interfaces inside the container's network namespace: up, with addresses and default routes (rtnetlink(7)).
//!
//! The creator has put each link there under its final name; this runs in the child, which is in the namespace.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{Error, Step};
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
            route.add_address(index, ip, prefix).step(|| format!("give {name} the address {address}"))?;
        }
        route.up(index).step(|| format!("bring {name} up"))?;
        for gateway in &interface.gateways {
            let address = gateway.parse().map_err(|_| Error::new(format!("gateway {gateway}"), "not an address"))?;
            route.add_default_route(index, address).step(|| format!("route by {gateway}"))?;
        }
    }
    Ok(())
}

fn parse_address(text: &str) -> Result<(IpAddr, u8), Error> {
    text.split_once('/')
        .and_then(|(ip, prefix)| Some((ip.parse().ok()?, prefix.parse().ok()?)))
        .ok_or_else(|| Error::new(format!("address {text}"), "not of the form address/prefix"))
}

/// A netlink socket whose requests are answered one by one.
struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = answer.payload {
                return error.code.map_or(Ok(()), |_| Err(error.to_io()));
            }
        }
    }

    fn up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    fn add_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> io::Result<()> {
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
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
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
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}
