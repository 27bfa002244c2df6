//! The socket by which a machine's owner, another process or thread, tells it what to do. When the owner is gone, its end
//! is closed, and the machine ends.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::machine::sys;

/// More than any message has, in bytes.
const LONGEST: usize = 4096;

/// What the owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// The guest stands still.
    Pause,
    /// It goes on.
    Resume,
    /// The machine is written to the file that comes with the request. A running guest stands still meanwhile.
    Save,
    /// The machine ends.
    Stop,
}

/// `Ok`, or why not.
pub(super) type Reply = std::result::Result<(), String>;

/// A new socket: the owner's end, and the machine's for [`super::Builder::control`].
pub fn pair() -> Result<(Remote, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, machine) = pair.map_err(Error::host("make a control socket"))?;
    Ok((Remote { socket: ours }, machine))
}

/// The owner's end. Every call waits for the machine's answer.
#[derive(Debug)]
pub struct Remote {
    socket: OwnedFd,
}

impl Remote {
    /// The guest stands still: no vCPU runs. Devices go on.
    pub fn pause(&self) -> Result<()> {
        self.ask(Request::Pause, None)
    }

    /// The guest goes on.
    pub fn resume(&self) -> Result<()> {
        self.ask(Request::Resume, None)
    }

    /// Writes the machine to a file, for [`super::SavedMachine::open`]. The file must be empty, and is incomplete where
    /// this fails. A guest that was running goes on afterwards.
    pub fn save(&self, file: &File) -> Result<()> {
        self.ask(Request::Save, Some(file.as_fd()))
    }

    /// The machine ends as [`super::Exit::Stopped`].
    pub fn stop(&self) -> Result<()> {
        self.ask(Request::Stop, None)
    }

    /// The socket, to hand it to another process. Readable without a question means that the machine has ended.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// From a socket that was handed over.
    #[must_use]
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    fn ask(&self, request: Request, file: Option<BorrowedFd<'_>>) -> Result<()> {
        send(&self.socket, &request, file).map_err(Error::host("tell the machine"))?;
        match receive::<Reply>(&self.socket).map_err(Error::host("hear the machine"))? {
            Some((Ok(()), _)) => Ok(()),
            Some((Err(reason), _)) => Err(Error::Config(format!("the machine: {reason}"))),
            None => Err(Error::Config("the machine has ended".into())),
        }
    }
}

pub(super) fn send<T: Serialize>(socket: &OwnedFd, message: &T, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let files = file.map(|file| [file.as_raw_fd()]);
    let rights: Vec<ControlMessage<'_>> = files.iter().map(|files| ControlMessage::ScmRights(files)).collect();
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, flags, None)?;
    Ok(())
}

/// The next message and a file that may come with it; `None` where the other end is closed.
pub(super) fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = [0; LONGEST];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::ECONNRESET) => return Ok(None),
            result => break result?,
        }
    };
    let mut file = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(files) = part {
            // One at most, for there is room for one.
            file = files.into_iter().map(sys::received).next_back();
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    let message = postcard::from_bytes(&bytes[..length]).map_err(io::Error::other)?;
    Ok(Some((message, file)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::thread;

    use super::{Reply, Request, pair, receive, send};

    #[test]
    fn a_request_carries_its_file_and_gets_its_answer() {
        let (remote, machine) = pair().unwrap();
        let other = thread::spawn(move || {
            let (request, file) = receive::<Request>(&machine).unwrap().unwrap();
            assert_eq!(request, Request::Save);
            std::fs::File::from(file.unwrap()).write_all(b"saved").unwrap();
            send(&machine, &Reply::Ok(()), None).unwrap();
            let (request, file) = receive::<Request>(&machine).unwrap().unwrap();
            assert!(request == Request::Pause && file.is_none());
            send(&machine, &Reply::Err("no".into()), None).unwrap();
        });
        let mut file = tempfile::tempfile().unwrap();
        remote.save(&file).unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "saved");
        assert!(remote.pause().unwrap_err().to_string().contains("the machine: no"));
        other.join().unwrap();
        assert!(remote.resume().is_err(), "nobody is there any more");
    }
}
