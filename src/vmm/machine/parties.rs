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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollTimeout, poll};
    use nix::unistd::{read, write};

    use super::{Heard, MOST_ADMITTED, OWNER, Parties, Request};
    use crate::machine::pair;

    /// For whom there is news.
    fn news(parties: &Parties) -> Vec<u64> {
        let mut files: Vec<_> = parties.files().collect();
        poll(&mut files, PollTimeout::ZERO).unwrap();
        let asked = files.iter().map(|file| file.any().unwrap());
        parties.numbers().zip(asked).filter_map(|(number, asks)| asks.then_some(number)).collect()
    }

    #[test]
    fn each_is_heard_until_it_waits_and_that_it_goes_is_always_heard() {
        let (owner, socket) = pair().unwrap();
        let mut parties = Parties::new(Some(socket));
        let (party, socket) = pair().unwrap();
        parties.admit(socket).unwrap();
        assert!(news(&parties).is_empty());
        assert!(matches!(parties.hear(1).unwrap(), Heard::Nothing));
        // As postcard has it: what is to be done, and with which address.
        write(party.socket(), &[5, 7]).unwrap();
        write(party.socket(), &[5, 8]).unwrap();
        assert_eq!(news(&parties), [1]);
        let Heard::Request(message) = parties.hear(1).unwrap() else { panic!("no request") };
        assert_eq!(message.content, Request::Unplug(7));
        parties.let_wait(1);
        assert!(news(&parties).is_empty(), "it waits for its answer");
        assert!(parties.reply(1, Ok(None)));
        assert_eq!(news(&parties), [1]);
        parties.let_wait(1);
        drop(party);
        assert_eq!(news(&parties), [1]);
        assert!(matches!(parties.hear(1).unwrap(), Heard::Gone));
        parties.remove(1);
        assert!(news(&parties).is_empty() && !parties.reply(1, Ok(None)));
        drop(owner);
        assert_eq!(news(&parties), [OWNER]);
        assert!(matches!(parties.hear(OWNER).unwrap(), Heard::Gone));
    }

    #[test]
    fn what_is_no_request_or_no_socket_ends_nothing_but_the_party() {
        let mut parties = Parties::new(None);
        let (party, socket) = pair().unwrap();
        parties.admit(socket).unwrap();
        parties.admit(tempfile::tempfile().unwrap().into()).unwrap();
        write(party.socket(), &[0xff; 3]).unwrap();
        assert!(matches!(parties.hear(1).unwrap(), Heard::Nonsense(_)));
        assert!(matches!(parties.hear(2).unwrap(), Heard::Gone));
        for _ in 2..MOST_ADMITTED {
            parties.admit(tempfile::tempfile().unwrap().into()).unwrap();
        }
        assert!(parties.admit(tempfile::tempfile().unwrap().into()).unwrap_err().contains("16 parties"));
    }

    #[test]
    fn nobody_is_waited_for_and_no_reason_is_too_long() {
        let (party, socket) = pair().unwrap();
        let mut parties = Parties::new(Some(socket));
        let long = Err("ä".repeat(1 << 20));
        let answered = (0..100_000).take_while(|_| parties.reply(OWNER, long.clone())).count();
        assert!((1..100_000).contains(&answered), "{answered}");
        let mut answer = [0; 4096];
        assert!((1000..2100).contains(&read(party.socket().as_fd(), &mut answer).unwrap()));
    }
}
