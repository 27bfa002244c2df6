//! The way connections come to the device and leave it. The machine's process is confined and opens nothing; the process
//! that owns the machine (the *owner*) holds one end of a `SOCK_SEQPACKET` pair, the [`Gate`], and the device the other, the
//! [`InnerGate`]. Through it go messages of twelve bytes, each with one end of a `SOCK_STREAM` pair (`SCM_RIGHTS`):
//!
//! ```text
//! owner                                         device
//!   connect(port) ── Connect, port, stream ──►    REQUEST to the guest's port
//!   accept()      ◄── Accepted, port, stream ──   REQUEST from the guest to an allowed port
//!   admit(ports)  ── Admit, ports, gate ─────►    another party has a gate of its own
//! ```
//!
//! A stream is then the connection: bytes both ways, `shutdown(2)` both ways. A connection that the guest refuses, or that
//! there is no room for, ends at once, with no byte. What the device does not take yet (the driver is not ready) waits in
//! the socket, whose buffer the kernel bounds.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::sys;

const CONNECT: u32 = 1;
const ACCEPTED: u32 = 2;
const ADMIT: u32 = 3;
/// The kind, a port or the first of several, and the port behind the last of several.
const MESSAGE_SIZE: usize = 12;

/// The owner's end: opens connections to the guest and takes those that the guest opens.
#[derive(Debug)]
pub struct Gate(OwnedFd);

impl Gate {
    /// Makes both ends. The second goes to [`crate::virtio::vsock::Vsock::new`].
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn pair() -> io::Result<(Self, InnerGate)> {
        let (outer, inner) = pair(SockType::SeqPacket)?;
        Ok((Self(outer), InnerGate(inner)))
    }

    /// Opens a connection to a port of the guest, without waiting: the stream ends at once, with no byte, where nothing
    /// listens there.
    ///
    /// # Errors
    /// `WouldBlock`: too many connections wait for the guest to boot. `BrokenPipe`: the machine is gone. Else no descriptor
    /// is free.
    pub fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let (ours, theirs) = pair(SockType::Stream)?;
        send(self.0.as_fd(), CONNECT, port..0, theirs.as_fd())?;
        Ok(ours.into())
    }

    /// Lets another party connect to the guest and take the connections that the guest opens to `ports` of the host, until
    /// it closes its gate, whose inner end this is. Only who holds the machine's first gate can do this, at most 16 parties
    /// are in at a time, and no port may be another's: a party that is not let in sees its gate closed.
    ///
    /// # Errors
    /// `InvalidInput`: there are no ports. `WouldBlock`: too much waits for the guest to boot. `BrokenPipe`: the machine is
    /// gone.
    pub fn admit(&self, ports: Range<u32>, gate: InnerGate) -> io::Result<()> {
        if ports.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a party without ports"));
        }
        send(self.0.as_fd(), ADMIT, ports, gate.as_fd())
    }

    /// Waits for a connection that the guest opens, and says to which port. To wait elsewhere, poll the descriptor.
    ///
    /// # Errors
    /// `UnexpectedEof`: the machine is gone. Else no descriptor is free.
    pub fn accept(&self) -> io::Result<(u32, UnixStream)> {
        loop {
            match receive(self.0.as_fd(), 0)? {
                Message::Whole { kind: ACCEPTED, numbers, file } => return Ok((numbers.start, file.into())),
                Message::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                // The machine's process is not trusted: what makes no sense is passed over.
                Message::Whole { .. } | Message::Nonsense => {}
            }
        }
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The device's end. As a descriptor it can be handed to another process and made into a gate again there.
#[derive(Debug)]
pub struct InnerGate(OwnedFd);

/// What a look at the gate found.
#[derive(Debug)]
pub(super) enum Asked {
    /// The owner wants to be connected to a port of the guest.
    Connect(u32, OwnedFd),
    /// The owner lets another party in, with these ports of the host.
    Admit(Range<u32>, InnerGate),
    /// Something that means nothing; there may be more behind it.
    Nonsense,
    /// Nothing now.
    Nothing,
    /// The owner has closed its end.
    Closed,
}

impl InnerGate {
    /// Takes the next wish of the owner, without waiting.
    pub(super) fn next(&self) -> io::Result<Asked> {
        match receive(self.0.as_fd(), libc::MSG_DONTWAIT) {
            Ok(Message::Whole { kind: CONNECT, numbers, file }) => Ok(Asked::Connect(numbers.start, file)),
            Ok(Message::Whole { kind: ADMIT, numbers, file }) if !numbers.is_empty() => {
                Ok(Asked::Admit(numbers, Self(file)))
            }
            Ok(Message::Whole { .. } | Message::Nonsense) => Ok(Asked::Nonsense),
            Ok(Message::End) => Ok(Asked::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Asked::Nothing),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Asked::Closed),
            Err(error) => Err(error),
        }
    }

    /// Hands a connection that the guest has opened to the owner, without waiting, and keeps the other end of its stream.
    ///
    /// # Errors
    /// The owner does not take connections fast enough, or not any more, or no descriptor is free.
    pub(super) fn hand_over(&self, port: u32) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair(SockType::Stream)?;
        send(self.0.as_fd(), ACCEPTED, port..0, theirs.as_fd())?;
        Ok(ours)
    }
}

impl AsFd for InnerGate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for InnerGate {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<InnerGate> for OwnedFd {
    fn from(gate: InnerGate) -> Self {
        gate.0
    }
}

enum Message {
    Whole { kind: u32, numbers: Range<u32>, file: OwnedFd },
    Nonsense,
    End,
}

fn pair(kind: SockType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

fn send(gate: BorrowedFd<'_>, kind: u32, numbers: Range<u32>, file: BorrowedFd<'_>) -> io::Result<()> {
    let bytes = [kind, numbers.start, numbers.end].map(u32::to_le_bytes).concat();
    let files = [file.as_raw_fd()];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(gate.as_raw_fd(), &[IoSlice::new(&bytes)], &[ControlMessage::ScmRights(&files)], flags, None)?;
    Ok(())
}

/// The next message, with the first of the descriptors that came with it; the others are closed.
fn receive(gate: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Message> {
    let mut bytes = [0; MESSAGE_SIZE];
    loop {
        let received = match sys::receive(gate, &mut bytes, flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        return Ok(match (received.bytes, received.descriptors.into_iter().next()) {
            (0, None) => Message::End,
            (MESSAGE_SIZE, Some(file)) => {
                Message::Whole { kind: number(&bytes[..4]), numbers: number(&bytes[4..8])..number(&bytes[8..]), file }
            }
            _ => Message::Nonsense,
        });
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::{
        AsFd, AsRawFd, Asked, ControlMessage, Gate, IoSlice, MsgFlags, OwnedFd, SockType, UnixStream, sendmsg,
    };

    #[test]
    fn a_connection_asked_for_reaches_the_device_with_its_port_and_stream() {
        let (gate, inner) = Gate::pair().unwrap();
        assert!(matches!(inner.next().unwrap(), Asked::Nothing));
        let mut ours = gate.connect(1024).unwrap();
        let Asked::Connect(1024, stream) = inner.next().unwrap() else { panic!("no connection") };
        ours.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        UnixStream::from(stream).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }

    #[test]
    fn a_connection_of_the_guest_reaches_the_owner_with_its_port_and_stream() {
        let (gate, inner) = Gate::pair().unwrap();
        let mut stream = UnixStream::from(inner.hand_over(52).unwrap());
        let (port, mut taken) = gate.accept().unwrap();
        assert_eq!(port, 52);
        stream.write_all(b"x").unwrap();
        let mut got = [0; 1];
        taken.read_exact(&mut got).unwrap();
    }

    #[test]
    fn either_end_sees_that_the_other_is_gone() {
        let (gate, inner) = Gate::pair().unwrap();
        drop(inner);
        assert_eq!(gate.accept().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(gate.connect(1).unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        let (gate, inner) = Gate::pair().unwrap();
        drop(gate);
        assert!(matches!(inner.next().unwrap(), Asked::Closed));
        assert!(inner.hand_over(1).is_err());
    }

    #[test]
    fn the_number_of_connections_that_wait_is_bounded_and_no_one_blocks() {
        let (gate, _inner) = Gate::pair().unwrap();
        let refused = (0..100_000).find_map(|_| gate.connect(7).err()).unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_message_without_a_stream_is_passed_over() {
        let (gate, inner) = Gate::pair().unwrap();
        nix::unistd::write(&gate, &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        nix::unistd::write(&gate, b"x").unwrap();
        let kept = gate.connect(3).unwrap();
        assert!(matches!(inner.next().unwrap(), Asked::Nonsense));
        assert!(matches!(inner.next().unwrap(), Asked::Nonsense));
        assert!(matches!(inner.next().unwrap(), Asked::Connect(3, _)));
        drop(kept);
    }

    #[test]
    fn descriptors_sent_in_heaps_are_closed_and_not_kept() {
        let (gate, inner) = Gate::pair().unwrap();
        for count in [2, 3, 100] {
            let (ours, theirs) = super::pair(SockType::Stream).unwrap();
            let heap = vec![theirs.as_raw_fd(); count];
            let bytes = [1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
            let parts = [ControlMessage::ScmRights(&heap)];
            sendmsg::<()>(gate.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], &parts, MsgFlags::empty(), None).unwrap();
            let Asked::Connect(9, taken) = inner.next().unwrap() else { panic!("no connection") };
            drop((theirs, taken));
            assert_eq!(UnixStream::from(ours).read(&mut [0]).unwrap(), 0, "a descriptor of {count} is still open");
        }
    }

    #[test]
    fn another_partys_gate_reaches_the_device_with_its_ports() {
        let (gate, inner) = Gate::pair().unwrap();
        let (other, others) = Gate::pair().unwrap();
        gate.admit(7..9, others).unwrap();
        let Asked::Admit(ports, admitted) = inner.next().unwrap() else { panic!("nobody") };
        assert_eq!(ports, 7..9);
        let _stream = other.connect(3).unwrap();
        assert!(matches!(admitted.next().unwrap(), Asked::Connect(3, _)));
        let (_, none) = Gate::pair().unwrap();
        assert_eq!(gate.admit(9..9, none).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_devices_end_survives_as_a_descriptor() {
        let (gate, inner) = Gate::pair().unwrap();
        let inner = super::InnerGate::from(OwnedFd::from(inner));
        let _kept = gate.connect(3).unwrap();
        assert!(matches!(inner.next().unwrap(), Asked::Connect(3, _)));
    }
}
