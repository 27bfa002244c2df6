//! The expressions that our rules are made of, in the kernel's encoding (`linux/netfilter/nf_tables.h`).
//!
//! `nft --debug=netlink` prints the same list for the same rule; a test compares the two. A register is 16 bytes
//! (`REG_1`) or one of its four 4-byte slots: a concatenation occupies slots one after the other.

use crate::netlink::attributes::Writer;

/// The first 16-byte register.
pub(crate) const REG_1: u32 = 1;
/// The 4-byte slot `n` counted from the beginning of `REG_1` (`NFT_REG32_00` is 8).
pub(crate) const fn slot(n: u32) -> u32 {
    8 + n
}

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
pub(crate) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `enum nft_meta_keys`.
#[derive(Clone, Copy)]
pub(crate) enum Meta {
    InputName = 6,
    OutputName = 7,
    Family = 15,
    Protocol = 16,
}

/// `enum nft_payload_bases`.
#[derive(Clone, Copy)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// `enum nft_ct_keys`.
#[derive(Clone, Copy)]
pub(crate) enum Connection {
    State = 0,
    Status = 2,
}

/// What is compared how.
#[derive(Clone, Copy)]
pub(crate) enum Compare {
    Equal = 0,
    Different = 1,
}

/// What happens to the packet.
#[derive(Clone, Copy)]
pub(crate) enum Verdict<'a> {
    Drop,
    Accept,
    Return,
    Jump(&'a str),
}

/// The expressions of one rule.
pub(crate) struct Expressions<'a> {
    writer: &'a mut Writer,
}

impl<'a> Expressions<'a> {
    pub(crate) fn new(writer: &'a mut Writer) -> Expressions<'a> {
        Expressions { writer }
    }

    fn push(&mut self, name: &str, data: impl FnOnce(&mut Writer)) -> &mut Self {
        self.writer.nest(LIST_ELEMENT, |element| {
            element.text(EXPRESSION_NAME, name);
            element.nest(EXPRESSION_DATA, data);
        });
        self
    }

    /// Loads a fact about the packet.
    pub(crate) fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.push("meta", |data| {
            data.be32(2, key as u32).be32(1, register);
        })
    }

    /// Loads bytes of the packet.
    pub(crate) fn payload(&mut self, base: Base, offset: u32, length: u32, register: u32) -> &mut Self {
        self.push("payload", |data| {
            data.be32(1, register).be32(2, base as u32).be32(3, offset).be32(4, length);
        })
    }

    /// Goes on only if the first register compares so.
    pub(crate) fn compare(&mut self, how: Compare, value: &[u8]) -> &mut Self {
        self.push("cmp", |data| {
            data.be32(1, REG_1).be32(2, how as u32).wrap(3, DATA_VALUE, value);
        })
    }

    /// Masks the first register.
    pub(crate) fn mask(&mut self, mask: &[u8]) -> &mut Self {
        self.push("bitwise", |data| {
            data.be32(1, REG_1).be32(2, REG_1).be32(3, mask.len() as u32);
            data.wrap(4, DATA_VALUE, mask);
            data.wrap(5, DATA_VALUE, &vec![0; mask.len()]);
        })
    }

    /// Goes on only if one of the bits of a fact about the connection is set.
    pub(crate) fn connection_has(&mut self, key: Connection, bits: u32) -> &mut Self {
        self.push("ct", |data| {
            data.be32(2, key as u32).be32(1, REG_1);
        });
        self.mask(&bits.to_ne_bytes()).compare(Compare::Different, &0_u32.to_ne_bytes())
    }

    /// Goes on only if the destination is an address of this host.
    pub(crate) fn destination_is_local(&mut self) -> &mut Self {
        const RESULT_ADDRTYPE: u32 = 3;
        const FLAG_DESTINATION: u32 = 2;
        self.push("fib", |data| {
            data.be32(3, FLAG_DESTINATION).be32(2, RESULT_ADDRTYPE).be32(1, REG_1);
        });
        self.compare(Compare::Equal, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Looks the key from the first register on up in a map; its data replaces the key. Ends the rule without a match.
    pub(crate) fn map(&mut self, name: &str) -> &mut Self {
        self.push("lookup", |data| {
            data.be32(2, REG_1).be32(3, REG_1).text(1, name);
        })
    }

    /// Translates the destination to the address in the first register and the port in another.
    pub(crate) fn translate_destination(&mut self, family: u32, port_register: u32) -> &mut Self {
        const DESTINATION: u32 = 1;
        self.push("nat", |data| {
            data.be32(1, DESTINATION).be32(2, family).be32(3, REG_1).be32(5, port_register);
        })
    }

    /// Translates the source to the address of the interface that the packet leaves by.
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.push("masq", |_| ())
    }

    /// Ends with a verdict.
    pub(crate) fn verdict(&mut self, verdict: Verdict<'_>) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0_i32, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Return => (-5, None),
        };
        self.push("immediate", |data| {
            data.be32(1, 0);
            data.nest(2, |value| {
                value.nest(DATA_VERDICT, |verdict| {
                    verdict.be32(VERDICT_CODE, code as u32);
                    if let Some(chain) = chain {
                        verdict.text(VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }
}
