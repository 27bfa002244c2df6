//! Who may tell a machine what to do, each by a socket: its owner, without whom it ends, and parties that were let in, which
//! come and go. None of them can hold up the machine: nothing here waits for them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};

use crate::error::{Error, Result};
use crate::machine::control::{Message, Reply, Request, receive, send};

/// The owner's number; others have higher ones.
pub(super) const OWNER: u64 = 0;
/// Most parties at a time besides the owner.
pub(super) const MOST_ADMITTED: usize = 16;
/// Most characters of a reason.
const LONGEST_REASON: usize = 1000;

struct Party {
    number: u64,
    socket: OwnedFd,
    /// What it has asked for last is being done; nothing else of it is heard until then.
    waits: bool,
}

/// What a look at a party's socket found.
pub(super) enum Heard {
    /// It wants something.
    Request(Message<Request>),
    /// Something that is no request, for this reason.
    Nonsense(String),
    /// Nothing now.
    Nothing,
    /// It has gone.
    Gone,
}

/// All of them.
pub(super) struct Parties {
    all: Vec<Party>,
    next: u64,
}

impl Parties {
    /// The owner, if there is one.
    pub(super) fn new(owner: Option<OwnedFd>) -> Self {
        let owner = owner.map(|socket| Party { number: OWNER, socket, waits: false });
        Self { all: owner.into_iter().collect(), next: OWNER + 1 }
    }

    /// Lets another one in.
    pub(super) fn admit(&mut self, socket: OwnedFd) -> std::result::Result<(), String> {
        if self.all.iter().filter(|party| party.number != OWNER).count() == MOST_ADMITTED {
            return Err(format!("{MOST_ADMITTED} parties are in already"));
        }
        self.all.push(Party { number: self.next, socket, waits: false });
        self.next += 1;
        Ok(())
    }

    /// What poll(2) is to wait for, in the order of [`Parties::numbers`].
    pub(super) fn files(&self) -> impl Iterator<Item = PollFd<'_>> {
        // That the other end is closed is always told.
        let flags = |party: &Party| if party.waits { PollFlags::empty() } else { PollFlags::POLLIN };
        self.all.iter().map(move |party| PollFd::new(party.socket.as_fd(), flags(party)))
    }

    /// Everybody's number.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.all.iter().map(|party| party.number)
    }

    /// Reads from somebody for whom there is news.
    pub(super) fn hear(&self, number: u64) -> Result<Heard> {
        let Some(party) = self.all.iter().find(|party| party.number == number) else { return Ok(Heard::Nothing) };
        if party.waits {
            // The only news that was waited for.
            return Ok(Heard::Gone);
        }
        match receive(&party.socket, libc::MSG_DONTWAIT) {
            Ok(Some(message)) => Ok(Heard::Request(message)),
            Ok(None) => Ok(Heard::Gone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Heard::Nonsense(error.to_string())),
            Err(error) if number == OWNER => Err(Error::host("read the control socket")(error)),
            Err(_) => Ok(Heard::Gone),
        }
    }

    /// Until [`Parties::reply`] nothing is heard of this one.
    pub(super) fn let_wait(&mut self, number: u64) {
        self.all.iter_mut().filter(|party| party.number == number).for_each(|party| party.waits = true);
    }

    /// Answers; whether that could be done. Who does not take the answer at once is gone or does not want it.
    pub(super) fn reply(&mut self, number: u64, reply: Reply) -> bool {
        let Some(party) = self.all.iter_mut().find(|party| party.number == number) else { return false };
        party.waits = false;
        let reply = reply.map_err(|reason| reason.chars().take(LONGEST_REASON).collect());
        send::<Reply>(&party.socket, &reply, &[], libc::MSG_DONTWAIT).is_ok()
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.all.retain(|party| party.number != number);
    }
}
