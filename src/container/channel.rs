//! The conversation between the creator and the child it makes, over a SEQPACKET pair that exec closes.
//!
//! ```text
//! creator                                child
//!    | -- Mapped ----------------------->  |   user namespace: the identity maps are written
//!    | <---------------- Terminal (+ fd) - |   terminal: the master end
//!    | <---------------------- Prepared -- |   everything that needs no network is done
//!    | -- Start ------------------------>  |   interfaces are in place; run the program
//!    | <------------ Failed, or the end -- |   the end of the stream: the program runs
//! ```
//!
//! `Failed` may come at any point and is always the child's last word. When the creator dies the child reads the end
//! of the stream instead of `Start` and leaves.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recvmsg, send, sendmsg, socketpair,
};

use crate::error::{Error, ErrorKind, Step};
use crate::sys;

/// Longest message of a failure, in bytes; longer ones are cut.
const MESSAGE_LIMIT: usize = 4000;

/// One word of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Mapped,
    Terminal,
    Prepared,
    Start,
    Failed(Error),
}

impl Word {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Mapped => vec![1],
            Self::Terminal => vec![2],
            Self::Prepared => vec![3],
            Self::Start => vec![4],
            Self::Failed(error) => {
                let kind = match error.kind {
                    ErrorKind::NotFound => 1,
                    ErrorKind::NotExecutable => 2,
                    ErrorKind::Other => 3,
                };
                let text = error.message.as_bytes();
                let mut bytes = vec![5, kind];
                bytes.extend_from_slice(&text[..text.len().min(MESSAGE_LIMIT)]);
                bytes
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1] => Some(Self::Mapped),
            [2] => Some(Self::Terminal),
            [3] => Some(Self::Prepared),
            [4] => Some(Self::Start),
            [5, kind, text @ ..] => {
                let kind = match kind {
                    1 => ErrorKind::NotFound,
                    2 => ErrorKind::NotExecutable,
                    _ => ErrorKind::Other,
                };
                Some(Self::Failed(Error { kind, message: String::from_utf8_lossy(text).into_owned() }))
            }
            _ => None,
        }
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Both ends; each closes itself at exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// An end from a socket of [`Channel::pair`].
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn send(&self, word: &Word) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &word.encode(), MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    pub(crate) fn send_with(&self, word: &Word, fd: BorrowedFd<'_>) -> io::Result<()> {
        let fds = [fd.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&word.encode())], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next word and the descriptor that came with it; `None` at the end.
    pub(crate) fn receive(&self) -> io::Result<Option<(Word, Option<OwnedFd>)>> {
        let mut buffer = vec![0u8; MESSAGE_LIMIT + 16];
        let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
        let (length, fd) = loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => break (message.bytes, sys::received_fd(&message)),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::ECONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        match Word::decode(&buffer[..length]) {
            Some(word) => Ok(Some((word, fd))),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "a word that is not of this conversation")),
        }
    }

    /// Waits for one particular word; the end of the stream is an error.
    pub(crate) fn expect(&self, word: &Word) -> Result<(), Error> {
        match self.receive().step(|| "wait for the creator".into())? {
            Some((received, _)) if received == *word => Ok(()),
            _ => Err(Error::new("wait for the creator", "it has gone away")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_the_way() {
        let (one, other) = Channel::pair().unwrap();
        let failure = Error::of_kind(ErrorKind::NotFound, "exec: \"x\": not found");
        for word in [Word::Mapped, Word::Prepared, Word::Start, Word::Failed(failure)] {
            one.send(&word).unwrap();
            assert_eq!(other.receive().unwrap().unwrap().0, word);
        }
    }

    #[test]
    fn a_descriptor_travels_with_its_word() {
        let (one, other) = Channel::pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        one.send_with(&Word::Terminal, writer.as_fd()).unwrap();
        drop(writer);
        let (word, fd) = other.receive().unwrap().unwrap();
        assert_eq!(word, Word::Terminal);
        nix::unistd::write(fd.unwrap(), b"x").unwrap();
        let mut byte = [0u8; 1];
        assert_eq!(nix::unistd::read(&reader, &mut byte).unwrap(), 1);
    }

    #[test]
    fn the_end_is_seen_and_a_long_failure_is_cut() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&Word::Failed(Error::new("x", "y".repeat(9000)))).unwrap();
        drop(one);
        let Some((Word::Failed(error), None)) = other.receive().unwrap() else { panic!("no failure") };
        assert_eq!(error.message.len(), MESSAGE_LIMIT);
        assert!(other.receive().unwrap().is_none());
    }
}
