//! The sockets by which a machine's owner, another process or thread, and parties that it has let in tell the machine what
//! to do. When the owner is gone, its end is closed, and the machine ends.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys::{self, MOST_DESCRIPTORS};

/// The longest description of a device, in bytes.
pub const DESCRIPTION_MAX: usize = 4096;
/// More than any message has, in bytes.
const LONGEST: usize = DESCRIPTION_MAX + 64;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// The guest stands still.
    Pause,
    /// It goes on.
    Resume,
    /// The machine is written to the file that comes with the request. A running guest stands still meanwhile.
    Save,
    /// The machine ends.
    Stop,
    /// A device is made of this description and the files that come with the request.
    Plug(Vec<u8>),
    /// The device with this address is taken out.
    Unplug(usize),
    /// Another party is let in, by the socket that comes with the request.
    Admit,
}

/// `Ok`, with the address where a device was plugged in, or why not.
pub(super) type Reply = std::result::Result<Option<usize>, String>;

/// What has come by a socket.
#[derive(Debug)]
pub(super) struct Message<T> {
    pub(super) content: T,
    pub(super) files: Vec<OwnedFd>,
}

/// A new socket: the owner's end, and the machine's for [`super::Builder::control`].
pub fn pair() -> Result<(Remote, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, machine) = pair.map_err(Error::host("make a control socket"))?;
    Ok((Remote { socket: ours }, machine))
}

/// The end of the owner, or of a party that was let in. Every call waits for the machine's answer.
#[derive(Debug)]
pub struct Remote {
    socket: OwnedFd,
}

impl Remote {
    /// The guest stands still: no vCPU runs. Devices go on.
    pub fn pause(&self) -> Result<()> {
        self.ask(&Request::Pause, &[]).map(drop)
    }

    /// The guest goes on.
    pub fn resume(&self) -> Result<()> {
        self.ask(&Request::Resume, &[]).map(drop)
    }

    /// Writes the machine to a file, for [`super::SavedMachine::open`]. The file must be empty, and is incomplete where
    /// this fails. A guest that was running goes on afterwards. Refused while there are devices that were plugged in.
    pub fn save(&self, file: &File) -> Result<()> {
        self.ask(&Request::Save, &[file.as_fd()]).map(drop)
    }

    /// The machine ends as [`super::Exit::Stopped`].
    pub fn stop(&self) -> Result<()> {
        self.ask(&Request::Stop, &[]).map(drop)
    }

    /// Adds a device to a machine that runs, which its [`super::Maker`] makes of a description of at most
    /// [`DESCRIPTION_MAX`] bytes and up to 253 descriptors: the address (index of `virtio-mmio.N`) at which the guest finds
    /// it. Each open device counts for the machine's limit of files.
    pub fn plug(&self, description: &[u8], files: &[BorrowedFd<'_>]) -> Result<usize> {
        if description.len() > DESCRIPTION_MAX || files.len() > MOST_DESCRIPTORS {
            return Err(Error::Config(format!(
                "a device is described by at most {DESCRIPTION_MAX} bytes and {MOST_DESCRIPTORS} descriptors, not by {} \
                 and {}",
                description.len(),
                files.len()
            )));
        }
        let address = self.ask(&Request::Plug(description.to_vec()), files)?;
        address.ok_or_else(|| Error::Config("the machine does not say where the device is".into()))
    }

    /// Takes out a device that this party has plugged in. Refused while the guest's driver holds it (its status register has
    /// more than `ACKNOWLEDGE`, which Linux sets for a device without a driver).
    pub fn unplug(&self, address: usize) -> Result<()> {
        self.ask(&Request::Unplug(address), &[]).map(drop)
    }

    /// Lets another party in, by the machine's end of a control socket ([`pair`]): it may plug devices in, take its own out,
    /// and nothing else. When its other end is closed, the machine goes on without its devices: each is taken out as soon as
    /// no driver holds it. At most 16 parties are in at a time.
    pub fn admit(&self, socket: OwnedFd) -> Result<()> {
        self.ask(&Request::Admit, &[socket.as_fd()]).map(drop)
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

    fn ask(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<Option<usize>> {
        send(&self.socket, request, files, 0).map_err(Error::host("tell the machine"))?;
        match receive::<Reply>(&self.socket, 0).map_err(Error::host("hear the machine"))? {
            Some(Message { content: Ok(address), .. }) => Ok(address),
            Some(Message { content: Err(reason), .. }) => Err(Error::Config(format!("the machine: {reason}"))),
            None => Err(Error::Config("the machine has ended".into())),
        }
    }
}

/// Sends a message, with flags of send(2).
pub(super) fn send<T: Serialize>(
    socket: &OwnedFd,
    message: &T,
    files: &[BorrowedFd<'_>],
    flags: libc::c_int,
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let files: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&files)];
    let rights = if files.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::from_bits_retain(flags);
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None)?;
    Ok(())
}

/// The next message, with flags of recv(2); `None` where the other end is closed. A message that is none is an error of the
/// kind `InvalidData`; what came with it is closed.
pub(super) fn receive<T: DeserializeOwned>(socket: &OwnedFd, flags: libc::c_int) -> io::Result<Option<Message<T>>> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut bytes = [0; LONGEST];
    let received = loop {
        match sys::receive(socket.as_fd(), &mut bytes, flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            received => break received?,
        }
    };
    if received.is_cut {
        return Err(invalid("the message is too long, or came with more files than this process can have".into()));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let content = postcard::from_bytes(&bytes[..received.bytes]).map_err(|error| invalid(error.to_string()))?;
    Ok(Some(Message { content, files: received.descriptors }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Seek, Write};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::thread;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::{DESCRIPTION_MAX, IoSlice, Message, Reply, Request, pair, receive, send};
    use crate::sys::MOST_DESCRIPTORS;

    fn next(machine: &OwnedFd) -> Message<Request> {
        receive(machine, 0).unwrap().unwrap()
    }

    fn answer(machine: &OwnedFd, reply: Reply) {
        send(machine, &reply, &[], 0).unwrap();
    }

    #[test]
    fn a_request_carries_its_file_and_gets_its_answer() {
        let (remote, machine) = pair().unwrap();
        let other = thread::spawn(move || {
            let Message { content, files } = next(&machine);
            assert_eq!((content, files.len()), (Request::Save, 1));
            files.into_iter().map(File::from).for_each(|mut file| file.write_all(b"saved").unwrap());
            answer(&machine, Ok(None));
            let Message { content, files } = next(&machine);
            assert!(content == Request::Pause && files.is_empty());
            answer(&machine, Err("no".into()));
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

    #[test]
    fn a_device_is_described_with_as_many_files_as_a_message_takes_and_no_more() {
        let (remote, machine) = pair().unwrap();
        let (mut end, pipe) = std::io::pipe().unwrap();
        let other = thread::spawn(move || {
            let Message { content, files } = next(&machine);
            assert_eq!(content, Request::Plug(vec![7; DESCRIPTION_MAX]));
            assert_eq!(files.len(), MOST_DESCRIPTORS);
            let mut last = File::from(files.into_iter().next_back().unwrap());
            last.write_all(b"the pipe").unwrap();
            answer(&machine, Ok(Some(31)));
        });
        let files: Vec<BorrowedFd<'_>> = (0..MOST_DESCRIPTORS).map(|_| pipe.as_fd()).collect();
        assert_eq!(remote.plug(&[7; DESCRIPTION_MAX], &files).unwrap(), 31);
        other.join().unwrap();
        for (bytes, files) in [(DESCRIPTION_MAX + 1, 0), (0, MOST_DESCRIPTORS + 1)] {
            let error = remote.plug(&vec![7; bytes], &vec![pipe.as_fd(); files]).unwrap_err().to_string();
            assert!(error.contains(&format!("not by {bytes} and {files}")), "{error}");
        }
        drop(pipe);
        let mut text = String::new();
        end.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the pipe", "and all of the descriptors are closed");
    }

    #[test]
    fn what_comes_with_nonsense_is_closed() {
        let (remote, machine) = pair().unwrap();
        for bytes in [vec![0xff; 3], vec![0; super::LONGEST + 1]] {
            let (mut end, pipe) = std::io::pipe().unwrap();
            let files = [pipe.as_raw_fd(); 3];
            let rights = [ControlMessage::ScmRights(&files)];
            let socket = remote.socket().as_raw_fd();
            sendmsg::<()>(socket, &[IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None).unwrap();
            drop(pipe);
            assert_eq!(receive::<Request>(&machine, 0).unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(end.read(&mut [0]).unwrap(), 0, "a descriptor is still open");
        }
        assert_eq!(receive::<Request>(&machine, libc::MSG_DONTWAIT).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(remote);
        assert!(receive::<Request>(&machine, 0).unwrap().is_none());
    }
}
