//! Messages of nf_tables over nfnetlink, and batches of them (`linux/netfilter/nf_tables.h`, `nfnetlink.h`).

use crate::netlink::attributes::Writer;
use crate::nft::expression::{DATA_VALUE, Expressions};

/// Address family of our table (`NFPROTO_INET`): IPv4 and IPv6.
const FAMILY: u8 = 1;
/// Name of our table; we never look at another.
pub(crate) const TABLE: &str = "sbx";

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const BATCH_GENERATION: u16 = 1;

const CREATE: u16 = netlink_packet_core::NLM_F_CREATE;
const EXCLUSIVE: u16 = netlink_packet_core::NLM_F_EXCL;
const APPEND: u16 = netlink_packet_core::NLM_F_APPEND;

/// `struct nfgenmsg`.
pub(crate) const NF_HEADER: usize = 4;

pub(crate) const TABLE_USERDATA: u16 = 6;
pub(crate) const GENERATION_ID: u16 = 1;
pub(crate) const ELEMENTS: u16 = 3;
pub(crate) const ELEMENT_KEY: u16 = 1;
pub(crate) const ELEMENT_DATA: u16 = 2;
pub(crate) const ELEMENT_USERDATA: u16 = 6;
/// User data is type-length-value with bytes for both; type 0 is the comment of tables, rules and elements.
const USERDATA_COMMENT: u8 = 0;
/// `NFT_SET_MAP`.
const SET_FLAG_MAP: u32 = 8;

/// Where in the packet's way a base chain sits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// `enum nf_inet_hooks`, `enum nf_br_hooks`.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// The types of a set's keys and a map's data: nft's type number, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetType {
    pub(crate) name: &'static str,
    pub(crate) key: (u32, u32),
    pub(crate) data: Option<(u32, u32)>,
}

/// An element of a map or set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// Empty in a set.
    pub(crate) data: Vec<u8>,
    pub(crate) comment: String,
}

fn message(kind: u16, flags: u16) -> Writer {
    Writer::message(kind, flags, &[FAMILY, 0, 0, 0])
}

/// A batch: begun under a generation of the rule set (fails with `ERESTART` when that has passed), or any.
pub(crate) fn batch(generation: Option<u32>, messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let frame = |kind| {
        let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
        Writer::message(kind, 0, &[0, 0, high, low])
    };
    let mut begin = frame(BATCH_BEGIN);
    if let Some(generation) = generation {
        begin.be32(BATCH_GENERATION, generation);
    }
    let mut batch = Vec::with_capacity(messages.len() + 2);
    batch.push(begin.finish());
    batch.extend(messages);
    batch.push(frame(BATCH_END).finish());
    batch
}

pub(crate) fn get_generation() -> Vec<u8> {
    message(GET_GENERATION, 0).finish()
}

pub(crate) fn get_table() -> Vec<u8> {
    let mut message = message(GET_TABLE, 0);
    message.text(1, TABLE);
    message.finish()
}

/// A table; fails with `EEXIST` when there is one.
pub(crate) fn new_table(comment: &str) -> Vec<u8> {
    let mut message = message(NEW_TABLE, CREATE | EXCLUSIVE);
    message.text(1, TABLE).attribute(TABLE_USERDATA, &comment_data(comment));
    message.finish()
}

pub(crate) fn delete_table() -> Vec<u8> {
    let mut message = message(DELETE_TABLE, 0);
    message.text(1, TABLE);
    message.finish()
}

pub(crate) fn new_chain(name: &str, hook: Option<Hook>) -> Vec<u8> {
    const POLICY_ACCEPT: u32 = 1;
    let mut message = message(NEW_CHAIN, CREATE);
    message.text(1, TABLE).text(3, name);
    if let Some(hook) = hook {
        message.text(7, hook.kind).be32(5, POLICY_ACCEPT);
        message.nest(4, |data| {
            data.be32(1, hook.number).be32(2, hook.priority as u32);
        });
    }
    message.finish()
}

/// A rule at the end of a chain.
pub(crate) fn new_rule(chain: &str, comment: &str, fill: impl FnOnce(&mut Expressions<'_>)) -> Vec<u8> {
    let mut message = message(NEW_RULE, CREATE | APPEND);
    message.text(1, TABLE).text(2, chain);
    message.nest(4, |list| fill(&mut Expressions::new(list)));
    if !comment.is_empty() {
        message.attribute(7, &comment_data(comment));
    }
    message.finish()
}

pub(crate) fn new_set(set: SetType, number: u32) -> Vec<u8> {
    let mut message = message(NEW_SET, CREATE);
    message.text(1, TABLE).text(2, set.name);
    message.be32(3, if set.data.is_some() { SET_FLAG_MAP } else { 0 });
    message.be32(4, set.key.0).be32(5, set.key.1);
    if let Some((kind, length)) = set.data {
        message.be32(6, kind).be32(7, length);
    }
    // Only has to differ within the batch.
    message.be32(10, number);
    message.finish()
}

/// Adds elements; fails with `EEXIST` when one is there.
pub(crate) fn new_elements(set: &str, elements: &[Element]) -> Vec<u8> {
    let mut message = message(NEW_ELEMENT, CREATE | EXCLUSIVE);
    message.text(1, TABLE).text(2, set);
    message.nest(ELEMENTS, |list| {
        for element in elements {
            list.nest(1, |item| {
                item.wrap(ELEMENT_KEY, DATA_VALUE, &element.key);
                if !element.data.is_empty() {
                    item.wrap(ELEMENT_DATA, DATA_VALUE, &element.data);
                }
                item.attribute(ELEMENT_USERDATA, &comment_data(&element.comment));
            });
        }
    });
    message.finish()
}

/// Removes elements; fails with `ENOENT` when one is not there.
pub(crate) fn delete_elements(set: &str, elements: &[Element]) -> Vec<u8> {
    let mut message = message(DELETE_ELEMENT, 0);
    message.text(1, TABLE).text(2, set);
    message.nest(ELEMENTS, |list| {
        for element in elements {
            list.nest(1, |item| {
                item.wrap(ELEMENT_KEY, DATA_VALUE, &element.key);
            });
        }
    });
    message.finish()
}

/// Lists the elements of a set.
pub(crate) fn get_elements(set: &str) -> Vec<u8> {
    let mut message = message(GET_ELEMENT, 0);
    message.text(1, TABLE).text(2, set);
    message.finish()
}

fn comment_data(comment: &str) -> Vec<u8> {
    // The length is one byte and counts the NUL.
    let comment = comment.get(..comment.len().min(254)).unwrap_or_default();
    let mut data = vec![USERDATA_COMMENT, comment.len() as u8 + 1];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

/// The comment in user data; empty where there is none.
pub(crate) fn comment_of(mut data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = data {
        let Some(value) = rest.get(..usize::from(*length)) else {
            break;
        };
        if *kind == USERDATA_COMMENT {
            return crate::netlink::attributes::text(value);
        }
        data = &rest[usize::from(*length)..];
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_survive() {
        assert_eq!(comment_of(&comment_data("0123456789ab")), "0123456789ab");
        assert_eq!(comment_of(&[7, 1, 0, 0, 3, b'a', b'b', 0]), "ab");
        for hostile in [&[0_u8, 9, 1][..], &[0], &[], &[1, 255]] {
            assert_eq!(comment_of(hostile), "");
        }
    }
}
