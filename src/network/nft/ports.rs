//! The elements of published ports: from our nouns to the kernel's bytes and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::Conversation;
use crate::nft::message::{Element, SetType, batch, delete_elements, new_elements};
use crate::nft::ruleset::{PORT_MAPS, PUBLISHED4, PUBLISHED4_ON, PUBLISHED6, PUBLISHED6_ON};
use crate::nft::{ATTEMPTS, busy, elements, in_messages};
use crate::{Endpoint, Protocol, Published, Result};

/// A published port as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// Id of the container.
    pub(crate) container: String,
    pub(crate) protocol: Protocol,
    pub(crate) host_port: u16,
    /// The container's address.
    pub(crate) target: IpAddr,
}

/// Adds the ports of a container in one step. A port whose element is there already belonged to a container that was
/// killed before its elements were removed, for the socket that reserves the port is ours: it is replaced.
pub(crate) fn add(netlink: &mut Conversation, endpoint: &Endpoint, ports: &[Published]) -> Result<()> {
    let wanted: Vec<(SetType, Vec<Element>)> = PORT_MAPS
        .into_iter()
        .map(|map| (map, ports.iter().filter_map(|port| encode(map, endpoint, port)).collect()))
        .filter(|(_, elements): &(_, Vec<Element>)| !elements.is_empty())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let step = format!("publish the ports of container {}", endpoint.container);
    let mut stale: Vec<(SetType, Vec<Element>)> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut messages = Vec::new();
        for (map, old) in &stale {
            messages.extend(in_messages(old, |part| delete_elements(map.name, part)));
        }
        for (map, new) in &wanted {
            messages.extend(in_messages(new, |part| new_elements(map.name, part)));
        }
        match netlink.batch(&step, batch(None, messages)) {
            Err(error) if matches!(error.errno(), Some(libc::EEXIST)) => {}
            // What was to be replaced has gone meanwhile.
            Err(error) if !stale.is_empty() && error.errno() == Some(libc::ENOENT) => {}
            other => return other,
        }
        stale.clear();
        for (map, new) in &wanted {
            let mut old = elements(netlink, map.name)?;
            old.retain(|old| new.iter().any(|new| new.key == old.key));
            if !old.is_empty() {
                stale.push((*map, old));
            }
        }
    }
    Err(busy(&step))
}

/// Removes the elements of every container that `gone` names, in one step, and says what they were.
pub(crate) fn remove(netlink: &mut Conversation, gone: &dyn Fn(&str) -> bool) -> Result<Vec<Translation>> {
    const STEP: &str = "remove published ports";
    for _ in 0..ATTEMPTS {
        let (mut messages, mut removed) = (Vec::new(), Vec::new());
        for map in PORT_MAPS {
            let mut old = match elements(netlink, map.name) {
                // No table, no ports.
                Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
                other => other?,
            };
            // An element without a container is not of our making.
            old.retain(|element| !element.comment.is_empty() && gone(&element.comment));
            messages.extend(in_messages(&old, |part| delete_elements(map.name, part)));
            removed.extend(old.iter().filter_map(decode));
        }
        if messages.is_empty() {
            return Ok(removed);
        }
        match netlink.batch(STEP, batch(None, messages)) {
            // Somebody else removed one of them; see what is left.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            other => return other.map(|()| removed),
        }
    }
    Err(busy(STEP))
}

/// What is published for which container.
#[cfg(test)]
pub(crate) fn list(netlink: &mut Conversation) -> Result<Vec<Translation>> {
    let mut all = Vec::new();
    for map in PORT_MAPS {
        all.extend(elements(netlink, map.name)?.iter().filter_map(decode));
    }
    Ok(all)
}

/// The element of a port in a map; `None` where it belongs to another map, or to none: what is published on a
/// loopback address is the proxy's alone.
fn encode(map: SetType, endpoint: &Endpoint, port: &Published) -> Option<Element> {
    let home = match port.host_address {
        address if address.is_loopback() => return None,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => PUBLISHED4,
        IpAddr::V4(_) => PUBLISHED4_ON,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => PUBLISHED6,
        IpAddr::V6(_) => PUBLISHED6_ON,
    };
    if home.name != map.name {
        return None;
    }
    let mut key = match port.host_address {
        address if address.is_unspecified() => Vec::new(),
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    key.extend([port.protocol.number(), 0, 0, 0]);
    push_port(&mut key, port.host_port);
    let mut data = match port.host_address {
        IpAddr::V4(_) => endpoint.ipv4.addr().octets().to_vec(),
        // A network without IPv6 leaves these to the proxy.
        IpAddr::V6(_) => endpoint.ipv6?.addr().octets().to_vec(),
    };
    push_port(&mut data, port.container_port);
    Some(Element { key, data, comment: endpoint.container.clone() })
}

fn push_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
}

/// Reads an element of any of the maps back: the key ends with protocol and port, the data begins with the address.
fn decode(element: &Element) -> Option<Translation> {
    let tail = element.key.len().checked_sub(8)?;
    let target = match element.data.len() {
        8 => IpAddr::from(<[u8; 4]>::try_from(&element.data[..4]).ok()?),
        20 => IpAddr::from(<[u8; 16]>::try_from(&element.data[..16]).ok()?),
        _ => return None,
    };
    Some(Translation {
        container: element.comment.clone(),
        protocol: Protocol::from_number(element.key[tail])?,
        host_port: u16::from_be_bytes([element.key[tail + 4], element.key[tail + 5]]),
        target,
    })
}
