//! nftables without `nft`: our tables, made once, and the elements in them that belong to containers.
//!
//! Everything is done in batches, which the kernel executes whole or not at all, so neither a crash nor a concurrent
//! process ever sees half of a change. Only tables named `sbx` are ever read or written.

mod expression;
mod message;
pub(crate) mod ports;
mod ruleset;

use crate::netlink::Conversation;
use crate::netlink::attributes::{attributes, find};
use crate::{Definition, Error, Result};

use message::{Element, NF_HEADER};

/// How often a change that depends on what was read is tried again after others changed something meanwhile.
const ATTEMPTS: usize = 20;
/// What the kernel says when the rule set is no longer the one that was read.
const ERESTART: i32 = 85;

/// Makes the tables of a network unless they are there. Cheap when they are: one query.
pub(crate) fn prepare(netlink: &mut Conversation, network: &Definition) -> Result<()> {
    let wanted = ruleset::fingerprint(network);
    for _ in 0..ATTEMPTS {
        let result = match comment_of_table(netlink)? {
            Some(comment) if comment == wanted => return Ok(()),
            Some(_) => replace(netlink, network),
            None => create(netlink, network),
        };
        match result {
            // Somebody else was faster, or changed any table on this host; look again.
            Err(error) if matches!(error.errno(), Some(libc::EEXIST | libc::ENOENT | ERESTART)) => {}
            other => return other,
        }
    }
    Err(busy("make the nftables table sbx"))
}

fn busy(step: &str) -> Error {
    let source = std::io::Error::from_raw_os_error(libc::EBUSY);
    Error::Netlink { step: step.into(), source, detail: Some("the rules of this host keep changing".into()) }
}

fn create(netlink: &mut Conversation, network: &Definition) -> Result<()> {
    let batch = message::batch(None, ruleset::inet(network));
    netlink.batch("make the nftables table sbx", batch).map_err(explain)
}

/// Replaces tables of another version or network, keeping the elements of the containers that run.
fn replace(netlink: &mut Conversation, network: &Definition) -> Result<()> {
    let generation = generation(netlink)?;
    let mut messages = vec![message::delete_table()];
    messages.extend(ruleset::inet(network));
    for map in ruleset::PORT_MAPS {
        let elements = match elements(netlink, map.name) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
            other => other?,
        };
        // Another version may have had a map of this name with another layout.
        let fits = |element: &Element| {
            element.key.len() == map.key.1 as usize
                && map.data.is_some_and(|(_, length)| element.data.len() == length as usize)
        };
        let elements: Vec<Element> = elements.into_iter().filter(fits).collect();
        messages.extend(in_messages(&elements, |part| message::new_elements(map.name, part)));
    }
    netlink.batch("replace the nftables table sbx", message::batch(Some(generation), messages))
}

/// Elements in as many messages as their attribute's 16-bit length needs.
fn in_messages<'a>(
    elements: &'a [Element],
    message: impl Fn(&[Element]) -> Vec<u8> + 'a,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    elements.chunks(256).map(message)
}

/// Whether the kernel's nf_tables can be talked to. Changes nothing.
pub fn firewall_answers() -> Result<()> {
    generation(&mut Conversation::netfilter()?).map(drop)
}

/// The generation of the whole rule set: it grows with every change to any table.
fn generation(netlink: &mut Conversation) -> Result<u32> {
    const STEP: &str = "read the generation of the nftables rules";
    let replies = netlink.get(STEP, message::get_generation())?;
    let id = replies.iter().find_map(|reply| find(reply.payload.get(NF_HEADER..)?, message::GENERATION_ID));
    id.and_then(|id| id.try_into().ok().map(u32::from_be_bytes)).ok_or_else(|| Error::Malformed { step: STEP.into() })
}

fn comment_of_table(netlink: &mut Conversation) -> Result<Option<String>> {
    let replies = match netlink.get("look the nftables table sbx up", message::get_table()) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        other => other.map_err(explain)?,
    };
    let data = replies.iter().find_map(|reply| find(reply.payload.get(NF_HEADER..)?, message::TABLE_USERDATA));
    Ok(Some(data.map(message::comment_of).unwrap_or_default()))
}

/// The elements of one of our maps. `ENOENT` means the table is not there.
fn elements(netlink: &mut Conversation, set: &str) -> Result<Vec<Element>> {
    let step = format!("list the nftables map {set}");
    let replies = netlink.dump(&step, &message::get_elements(set))?;
    let lists = replies.iter().filter_map(|reply| find(reply.payload.get(NF_HEADER..)?, message::ELEMENTS));
    Ok(lists.flat_map(attributes).filter_map(|(_, item)| parse_element(item)).collect())
}

fn parse_element(item: &[u8]) -> Option<Element> {
    let value = |kind| find(find(item, kind)?, expression::DATA_VALUE).map(<[u8]>::to_vec);
    Some(Element {
        key: value(message::ELEMENT_KEY)?,
        data: value(message::ELEMENT_DATA).unwrap_or_default(),
        comment: find(item, message::ELEMENT_USERDATA).map(message::comment_of).unwrap_or_default(),
    })
}

/// Says which part of nftables is missing.
fn explain(error: Error) -> Error {
    const REMEDY: &str = "use a kernel with nftables, NAT and masquerading, or --network none or host";
    match error.errno() {
        Some(libc::EPROTONOSUPPORT | libc::EINVAL) if error.detail().is_none() => {
            Error::KernelFeature { feature: "nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)", remedy: REMEDY }
        }
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => Error::KernelFeature {
            feature: "nf_tables for the inet family with NAT (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_CT, CONFIG_NFT_FIB_INET)",
            remedy: REMEDY,
        },
        _ => error,
    }
}
