//! Conversations with the kernel over netlink (netlink(7)): rtnetlink, nfnetlink.
//!
//! Every request is answered within the `send` that carries it, so the answers of a whole group of requests are read
//! after one system call. Answers are read leniently: unknown attributes are skipped, lengths are checked.

pub(crate) mod attributes;

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use nix::sys::socket::{setsockopt, sockopt};

use self::attributes::attributes;
use crate::{Error, Result};

/// `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Attribute of an extended acknowledgement: the kernel's words.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel fills at most 32 KiB at a time.
const RECEIVE: usize = 64 * 1024;
/// Fits every socket's send buffer, whatever the host's settings.
const ALWAYS_SENT: usize = 64 * 1024;
/// How often a dump is begun again when what it lists changed meanwhile.
const DUMP_ATTEMPTS: usize = 10;

/// One message of the kernel. What kind it is follows from what was asked.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// What follows the header.
    pub(crate) payload: Vec<u8>,
}

/// A request that failed: the error number and the kernel's words.
type Failure = (i32, Option<String>);

/// A socket to one netlink family.
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl AsRawFd for Conversation {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What one read of the socket brought.
#[derive(Default)]
struct Received {
    replies: Vec<Reply>,
    /// Sequence number and result of every acknowledgement.
    verdicts: Vec<(u32, Option<Failure>)>,
    done: bool,
    interrupted: bool,
}

impl Conversation {
    /// Links, addresses, routes (rtnetlink(7)).
    pub(crate) fn route() -> Result<Conversation> {
        Conversation::open(NETLINK_ROUTE, "open a netlink socket for links")
    }

    /// nftables and connection tracking.
    pub(crate) fn netfilter() -> Result<Conversation> {
        Conversation::open(NETLINK_NETFILTER, "open a netlink socket for nftables").map_err(|error| {
            if error.errno() == Some(libc::EPROTONOSUPPORT) {
                return Error::KernelFeature {
                    feature: "nfnetlink (CONFIG_NETFILTER_NETLINK)",
                    remedy: "use a kernel with nftables, or --network none or host",
                };
            }
            error
        })
    }

    fn open(protocol: isize, step: &str) -> Result<Conversation> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(protocol)?;
            // Capped acknowledgements leave the request out, so that one read holds many.
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Netlink { step: step.into(), source, detail: None })?;
        Ok(Conversation { socket, sequence: 0 })
    }

    /// Sends requests in one system call and waits until each has been executed. The first that failed is returned;
    /// the kernel executes those after it all the same.
    pub(crate) fn execute(&mut self, step: &str, requests: &[Vec<u8>]) -> Result<()> {
        let first = self.sequence + 1;
        self.send(step, requests, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut outstanding = requests.len();
        let mut failure = None;
        while outstanding > 0 {
            for (sequence, verdict) in self.receive(step, 0)?.verdicts {
                outstanding -= usize::from(sequence >= first);
                failure = failure.or_else(|| verdict.map(|verdict| netlink_error(step, verdict)));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Sends one request for one object and returns the answers.
    pub(crate) fn get(&mut self, step: &str, request: Vec<u8>) -> Result<Vec<Reply>> {
        self.send(step, &[request], NLM_F_REQUEST | NLM_F_ACK)?;
        let mut replies = Vec::new();
        loop {
            let received = self.receive(step, 0)?;
            replies.extend(received.replies);
            for (sequence, verdict) in received.verdicts {
                match verdict {
                    Some(verdict) => return Err(netlink_error(step, verdict)),
                    None if sequence == self.sequence => return Ok(replies),
                    None => {}
                }
            }
        }
    }

    /// Lists objects; begins again when the list changed while it was read.
    pub(crate) fn dump(&mut self, step: &str, request: &[u8]) -> Result<Vec<Reply>> {
        for _ in 1..DUMP_ATTEMPTS {
            let (replies, interrupted) = self.dump_once(step, request)?;
            if !interrupted {
                return Ok(replies);
            }
        }
        // A list that never holds still: what was seen last is as good as any.
        self.dump_once(step, request).map(|(replies, _)| replies)
    }

    fn dump_once(&mut self, step: &str, request: &[u8]) -> Result<(Vec<Reply>, bool)> {
        self.send(step, &[request.to_vec()], NLM_F_REQUEST | NLM_F_DUMP)?;
        let (mut replies, mut interrupted) = (Vec::new(), false);
        loop {
            let received = self.receive(step, 0)?;
            if let Some(verdict) = received.verdicts.into_iter().find_map(|(_, verdict)| verdict) {
                return Err(netlink_error(step, verdict));
            }
            replies.extend(received.replies);
            interrupted |= received.interrupted;
            if received.done {
                return Ok((replies, interrupted));
            }
        }
    }

    /// Sends an nfnetlink batch, whose first and last message are the batch's own: all of it happens, or none.
    /// Acknowledgements come only for failures and for the last message inside.
    pub(crate) fn batch(&mut self, step: &str, mut messages: Vec<Vec<u8>>) -> Result<()> {
        let last = messages.len().saturating_sub(2);
        if let Some(message) = messages.get_mut(last) {
            let flags = u16::from_ne_bytes([message[6], message[7]]) | NLM_F_ACK;
            message[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        self.send(step, &messages, NLM_F_REQUEST)?;
        let mut answered = false;
        loop {
            // Every verdict is queued before `send` returns, so an empty queue ends the answer.
            let received = match self.receive(step, libc::MSG_DONTWAIT) {
                Err(error) if answered && error.errno() == Some(libc::EAGAIN) => return Ok(()),
                other => other?,
            };
            answered = true;
            if let Some(verdict) = received.verdicts.into_iter().find_map(|(_, verdict)| verdict) {
                self.drain();
                return Err(netlink_error(step, verdict));
            }
        }
    }

    fn drain(&mut self) {
        while self.receive("", libc::MSG_DONTWAIT).is_ok() {}
    }

    fn send(&mut self, step: &str, messages: &[Vec<u8>], flags: u16) -> Result<()> {
        let mut bytes = Vec::with_capacity(messages.iter().map(Vec::len).sum());
        for message in messages {
            self.sequence += 1;
            let start = bytes.len();
            bytes.extend_from_slice(message);
            let own = u16::from_ne_bytes([message[6], message[7]]);
            bytes[start..start + 4].copy_from_slice(&(message.len() as u32).to_ne_bytes());
            bytes[start + 6..start + 8].copy_from_slice(&(own | flags).to_ne_bytes());
            bytes[start + 8..start + 12].copy_from_slice(&self.sequence.to_ne_bytes());
        }
        self.make_room(bytes.len());
        match self.socket.send(&bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Netlink { step: step.into(), source, detail: None }),
        }
    }

    /// A batch is one datagram, and thousands of ports in it are more than a socket takes by default. Where the room is
    /// refused, sending says so.
    fn make_room(&self, length: usize) {
        if length > ALWAYS_SENT {
            let _ = setsockopt(&self.socket, sockopt::SndBufForce, &(length * 2));
        }
    }

    fn receive(&mut self, step: &str, flags: i32) -> Result<Received> {
        let mut bytes = Vec::with_capacity(RECEIVE);
        let length = loop {
            match self.socket.recv(&mut bytes, flags | libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Netlink { step: step.into(), source, detail: None });
                }
                Ok(length) => break length,
            }
        };
        if length > bytes.len() {
            return Err(Error::Malformed { step: step.into() });
        }
        parse(&bytes).ok_or_else(|| Error::Malformed { step: step.into() })
    }
}

/// Splits what the socket brought into messages; `None` where a length lies.
fn parse(mut bytes: &[u8]) -> Option<Received> {
    let mut received = Received::default();
    while !bytes.is_empty() {
        let header = bytes.get(..HEADER)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let flags = u16::from_ne_bytes([header[6], header[7]]);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        let payload = bytes.get(HEADER..length)?;
        received.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            NLMSG_NOOP => {}
            NLMSG_ERROR => received.verdicts.push((sequence, verdict(payload, flags)?)),
            NLMSG_DONE => {
                received.done = true;
                let code = payload.get(..4).map_or(0, |code| i32::from_ne_bytes([code[0], code[1], code[2], code[3]]));
                if code != 0 {
                    received.verdicts.push((sequence, Some((-code, None))));
                }
            }
            _ => received.replies.push(Reply { payload: payload.to_vec() }),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(received)
}

/// The result in a `struct nlmsgerr`: `Some(None)` is success.
fn verdict(payload: &[u8], flags: u16) -> Option<Option<Failure>> {
    let code = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    if code == 0 {
        return Some(None);
    }
    let request = payload.get(4..)?;
    let skip = if flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        (u32::from_ne_bytes(request.get(..4)?.try_into().ok()?) as usize).next_multiple_of(4)
    };
    let words = || {
        let (_, text) = attributes(request.get(skip..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    };
    let detail = if flags & NLM_F_ACK_TLVS != 0 { words() } else { None };
    Some(Some((-code, detail)))
}

fn netlink_error(step: &str, (errno, detail): Failure) -> Error {
    Error::Netlink { step: step.into(), source: io::Error::from_raw_os_error(errno), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        for length in [0_u32, 3, 15, 17, 1 << 30, u32::MAX] {
            let mut message = vec![0; HEADER];
            message[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(parse(&message).is_none(), "{length}");
        }
        assert!(parse(&[1, 2, 3]).is_none());
    }

    #[test]
    fn the_kernels_words_are_shown() {
        let mut conversation = Conversation::route().unwrap();
        // RTM_NEWLINK of kind "nonesuch".
        let mut request = attributes::Writer::message(16, 0x600, &[0; 16]);
        request.wrap(18, 1, b"nonesuch");
        let error = conversation.execute("make a nonesuch", &[request.finish()]).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP));
        assert!(error.to_string().starts_with("cannot make a nonesuch: "), "{error}");
        assert!(error.to_string().contains("Unknown device type"), "{error}");
    }
}
