//! Forgetting UDP flows (ctnetlink).
//!
//! UDP has no connections, so the kernel's memory of a flow decides where its packets go: a client that kept sending
//! before a port was published, or after its container was replaced, would be led to the old place for as long as it
//! keeps sending. So the flows of a UDP port are forgotten whenever it is published or no longer.

use std::net::IpAddr;

use crate::netlink::Conversation;
use crate::netlink::attributes::{Writer, find};
use crate::{Error, Protocol, Result};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg`.
const NF_HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)` and `(CTA_PROTO_DST_PORT)`.
const FILTER_PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Which flows to a UDP port of this host.
#[derive(Clone, Debug)]
pub(crate) enum Flows<'a> {
    /// Those sent to one of these addresses.
    To(&'a [IpAddr]),
    /// Those that this address answers.
    AnsweredBy(IpAddr),
}

/// Makes the kernel forget UDP flows to a port of this host. Does nothing where there are none.
pub(crate) fn forget_udp(netlink: &mut Conversation, family: libc::c_int, port: u16, flows: &Flows<'_>) -> Result<()> {
    let step = format!("clear stale flows of UDP port {port}");
    let mut request = Writer::message(GET, 0, &[family as u8, 0, 0, 0]);
    request.nest(CTA_TUPLE_ORIG, |tuple| {
        tuple.nest(CTA_TUPLE_PROTO, |protocol| {
            protocol.attribute(CTA_PROTO_NUM, &[Protocol::Udp.number()]);
            protocol.attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    // Kernels before 5.8 ignore the filter and list everything, so every answer is looked at again.
    request.nest(CTA_FILTER, |filter| {
        filter.attribute(CTA_FILTER_ORIG_FLAGS, &FILTER_PROTOCOL_AND_PORT.to_ne_bytes());
        filter.attribute(CTA_FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes());
    });
    let replies = netlink.dump(&step, &request.finish()).map_err(|error| match error.errno() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => Error::KernelFeature {
            feature: "connection tracking over netlink (CONFIG_NF_CT_NETLINK)",
            remedy: "load the module nf_conntrack_netlink, or publish no UDP ports",
        },
        _ => error,
    })?;
    for reply in &replies {
        let Some(flow) = reply.payload.get(NF_HEADER..) else {
            continue;
        };
        if matches(flow, port, flows) != Some(true) {
            continue;
        }
        let mut delete = Writer::message(DELETE, 0, &[family as u8, 0, 0, 0]);
        // The identity keeps a successor of the flow from being hit.
        for kind in [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE] {
            if let Some(value) = find(flow, kind) {
                let nested = if kind == CTA_TUPLE_ORIG { 0x8000 } else { 0 };
                delete.attribute(kind | nested, value);
            }
        }
        match netlink.execute(&step, &[delete.finish()]) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

fn matches(flow: &[u8], port: u16, wanted: &Flows<'_>) -> Option<bool> {
    let original = find(flow, CTA_TUPLE_ORIG)?;
    let transport = find(original, CTA_TUPLE_PROTO)?;
    if find(transport, CTA_PROTO_NUM)? != [Protocol::Udp.number()]
        || find(transport, CTA_PROTO_DST_PORT)? != port.to_be_bytes()
    {
        return Some(false);
    }
    Some(match wanted {
        Flows::To(addresses) => addresses.contains(&address(original, CTA_IP_V4_DST, CTA_IP_V6_DST)?),
        Flows::AnsweredBy(target) => *target == address(find(flow, CTA_TUPLE_REPLY)?, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
    })
}

fn address(tuple: &[u8], ipv4: u16, ipv6: u16) -> Option<IpAddr> {
    let ip = find(tuple, CTA_TUPLE_IP)?;
    if let Some(octets) = find(ip, ipv4) {
        return <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    }
    <[u8; 16]>::try_from(find(ip, ipv6)?).ok().map(IpAddr::from)
}
