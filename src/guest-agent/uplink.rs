//! The machine's network: each of its cards leads to an interface of a container.
//!
//! ```text
//! host ══ card ── bridge ── veth │ eth0        the container's network namespace
//!         (up, no address)       │ (the plan's addresses; container::interfaces configures it)
//! ```
//!
//! The bridge passes frames as they are, so that the container has its own hardware address on the host's network.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use sbx_container::Error;
use sbx_container::netlink::Conversation;
use sbx_container::plan::{ContainerPlan, Namespace};
use sbx_protocol::guest::Uplink;

use crate::furnish::DEVICE_TIME;

/// Puts an interface for each of `uplinks` into the network namespace of the process `pid`. Returns the names of the
/// machine's ends.
pub(crate) fn connect(uplinks: &[Uplink], plan: &ContainerPlan, pid: i32) -> Result<Vec<String>, Error> {
    if uplinks.is_empty() {
        return Ok(Vec::new());
    }
    if plan.namespaces.net != Namespace::New {
        return Err(Error::new("network", "a container without a network namespace of its own cannot have a card"));
    }
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(|error| Error::new(format!("open {path}"), error))?;
    let mut conversation = Conversation::open().map_err(|error| Error::new("open a netlink socket", error))?;
    let mut ends = Vec::with_capacity(uplinks.len());
    for (index, uplink) in uplinks.iter().enumerate() {
        let end = end_name(&plan.id, index);
        // One that a start which failed has left behind.
        delete(&mut conversation, &end);
        connect_one(&mut conversation, uplink, &end, namespace.as_fd())?;
        ends.push(end);
    }
    Ok(ends)
}

/// Deletes the machine's ends, and with them the container's. Ones that are gone already are as good.
pub(crate) fn disconnect(ends: &[String]) {
    if let Ok(mut conversation) = Conversation::open() {
        ends.iter().for_each(|end| delete(&mut conversation, end));
    }
}

fn delete(conversation: &mut Conversation, name: &str) {
    let _ = conversation.ask(RouteNetlinkMessage::DelLink(named(name)), 0);
}

/// Within the 15 bytes of a link's name.
fn end_name(container: &str, index: usize) -> String {
    let id: String = container.chars().take(8).collect();
    format!("sbx{id}.{index}")
}

fn connect_one(
    conversation: &mut Conversation,
    uplink: &Uplink,
    end: &str,
    namespace: BorrowedFd<'_>,
) -> Result<(), Error> {
    let card = find_card(&uplink.card)?;
    let bridge = bridge_of(conversation, &card, uplink)?;
    let mut message = by_index(card.index);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(uplink.mtu));
    message.attributes.push(LinkAttribute::Controller(bridge));
    tell(conversation, &format!("put {} on a bridge", card.name), RouteNetlinkMessage::SetLink(message), 0)?;

    let mut peer = named(&uplink.interface);
    peer.attributes.push(LinkAttribute::Address(uplink.address.to_vec()));
    peer.attributes.push(LinkAttribute::Mtu(uplink.mtu));
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    one_queue(&mut peer);
    let mut message = named(end);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(uplink.mtu));
    message.attributes.push(LinkAttribute::Controller(bridge));
    one_queue(&mut message);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let step = format!("make the container's interface {}", uplink.interface);
    tell(conversation, &step, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// The bridge that the card is on, made when it is not there. It has the card's address, so that it does not change its own
/// with every container.
fn bridge_of(conversation: &mut Conversation, card: &Card, uplink: &Uplink) -> Result<u32, Error> {
    let name = format!("sbx-br{}", card.index);
    if let Ok(index) = nix::net::if_::if_nametoindex(name.as_str()) {
        return Ok(index);
    }
    without_ipv6(&card.name);
    let mut message = named(&name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Address(uplink.card.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(uplink.mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let step = format!("make a bridge for {}", card.name);
    tell(conversation, &step, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
    nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| Error::new(step, error.desc()))
}

/// The card is a wire and must not speak for itself. Without IPv6 in the kernel it does not.
fn without_ipv6(card: &str) {
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{card}/disable_ipv6"), "1");
}

struct Card {
    name: String,
    index: u32,
}

/// The card with a hardware address; one that has just been attached takes a moment to appear.
fn find_card(address: &[u8; 6]) -> Result<Card, Error> {
    let text = address.map(|byte| format!("{byte:02x}")).join(":");
    let deadline = Instant::now() + DEVICE_TIME;
    loop {
        let found = card_with(&text).map_err(|error| Error::new("list the network cards", error))?;
        if let Some(card) = found {
            return Ok(card);
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("wait for the network card {text}"), "it did not appear"));
        }
        sleep(Duration::from_millis(2));
    }
}

fn card_with(address: &str) -> std::io::Result<Option<Card>> {
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // A bridge of ours has its card's address.
        let is_bridge = path.join("bridge").exists();
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        if !is_bridge
            && read("address").trim() == address
            && let Ok(index) = read("ifindex").trim().parse()
        {
            return Ok(Some(Card { name: name.to_owned(), index }));
        }
    }
    Ok(None)
}

fn tell(conversation: &mut Conversation, step: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
    conversation.ask(message, flags).map_err(|error| Error::new(step, error))
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// A veth neither locks nor schedules by queue, so more than one buys nothing and makes the link slower to make.
fn one_queue(message: &mut LinkMessage) {
    message.attributes.push(LinkAttribute::NumTxQueues(1));
    message.attributes.push(LinkAttribute::NumRxQueues(1));
}
