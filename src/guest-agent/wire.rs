//! How the host is reached: sockets that listen for it and that it listens for.
//!
//! In a machine this is vsock(7). Everything above knows stream sockets only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, VsockAddr, bind, connect, getpeername, getsockopt,
    listen, recv, send, shutdown, socket, sockopt,
};
use sbx_protocol::guest::{AGENT_PORT, READY_PORT};

use crate::sys;

/// `VMADDR_CID_HOST` (vsock(7)).
const HOST: u32 = 2;

/// The way to the host.
pub trait Wire {
    /// Readable when somebody has connected.
    fn listener(&self) -> BorrowedFd<'_>;

    /// Takes a connection, if there is one.
    fn accept(&self) -> io::Result<Option<Socket>>;

    /// Begins a connection to a port of the host. Writable when it stands or has failed ([`Socket::error`]).
    fn dial(&self, port: u32) -> io::Result<Socket>;
}

/// A connected stream socket that does not wait.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Takes a socket that has `O_NONBLOCK`.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Takes a connection from a listening socket, if there is one.
    pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        match sys::accept(listener) {
            Ok(socket) => Ok(Some(Self(socket))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // It has gone again before it was taken.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes that have arrived: some, `Some(0)` at their end, `None` where there are none now.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(count) => Some(count),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // A connection that has failed brings nothing more.
            Err(_) => Some(0),
        }
    }

    /// Sends what fits; an error when nobody takes it any more.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match send(self.0.as_raw_fd(), &bytes[sent..], MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }

    /// Nothing more will be sent. A peer that is gone need not be told.
    pub(crate) fn end_sending(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// Why the connection has failed, if it has.
    pub(crate) fn error(&self) -> Option<io::Error> {
        match getsockopt(&self.0, sockopt::SocketError) {
            Ok(0) => None,
            Ok(number) => Some(io::Error::from_raw_os_error(number)),
            Err(error) => Some(error.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// vsock: the agent's port of every address that this machine has.
#[derive(Debug)]
pub(crate) struct Vsock {
    listener: OwnedFd,
}

impl Vsock {
    pub(crate) fn listen() -> Result<Self, sbx_container::Error> {
        let listen_on = || -> nix::Result<OwnedFd> {
            let listener = vsock()?;
            bind(listener.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, AGENT_PORT))?;
            listen(&listener, Backlog::MAXALLOWABLE)?;
            Ok(listener)
        };
        match listen_on() {
            Ok(listener) => {
                knock();
                Ok(Self { listener })
            }
            Err(error) => Err(sbx_container::Error::new(format!("listen on vsock port {AGENT_PORT}"), error.desc())),
        }
    }
}

/// Tells the host that somebody listens, so that it need not try: a connection that ends at once. A host that does not
/// wait for it refuses it.
fn knock() {
    let door = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let _ = door.map(|door| connect(door.as_raw_fd(), &VsockAddr::new(HOST, READY_PORT)));
}

fn vsock() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

impl Wire for Vsock {
    fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Only the host is heard: a program in a container could connect too, where the kernel has a loopback for vsock.
    fn accept(&self) -> io::Result<Option<Socket>> {
        while let Some(socket) = Socket::accept(self.listener())? {
            if getpeername::<VsockAddr>(socket.0.as_raw_fd()).is_ok_and(|peer| peer.cid() == HOST) {
                return Ok(Some(socket));
            }
        }
        Ok(None)
    }

    fn dial(&self, port: u32) -> io::Result<Socket> {
        let socket = vsock()?;
        match connect(socket.as_raw_fd(), &VsockAddr::new(HOST, port)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(Socket(socket)),
            Err(error) => Err(error.into()),
        }
    }
}
