//! Unix sockets of the host for programs of the guest: each connection that the guest opens to a socket's port is carried
//! to the socket, in a helper process that ends with the supervisor.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use sbx_container::Helper;
use sbx_vmm::virtio::vsock::Gate;

use crate::error::Error;
use crate::shares::Socket;

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// The helper that runs.
#[derive(Debug)]
pub(crate) struct Relay(Option<Helper>);

impl Relay {
    /// Serves the sockets; nothing where there are none. From then on the helper takes every connection of the guest's.
    pub(crate) fn start(gate: &Gate, sockets: &[Socket]) -> Result<Option<Self>, Error> {
        if sockets.is_empty() {
            return Ok(None);
        }
        let paths: BTreeMap<u32, PathBuf> = sockets.iter().map(|socket| (socket.port, socket.path.clone())).collect();
        let descriptor = std::os::fd::AsFd::as_fd(gate).as_raw_fd();
        let helper = Helper::spawn(vec![descriptor], || {
            // The gate ends with the machine.
            while let Ok((port, stream)) = gate.accept() {
                // Dropped where nothing listens: the guest's program sees the end.
                if let Some(Ok(socket)) = paths.get(&port).map(UnixStream::connect) {
                    carry(stream, socket);
                }
            }
            0
        })
        .map_err(Error::io("start the relay of sockets"))?;
        Ok(Some(Self(Some(helper))))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(helper) = self.0.take() {
            helper.stop();
        }
    }
}

/// Carries bytes both ways until both directions have ended, each direction on a thread of its own.
fn carry(guest: UnixStream, host: UnixStream) {
    let both = guest.try_clone().and_then(|guest| Ok((guest, host.try_clone()?)));
    let Ok((guest_too, host_too)) = both else { return };
    for (from, to) in [(guest, host), (host_too, guest_too)] {
        // Without a thread the connection ends, as the guest's program sees.
        let _ = std::thread::Builder::new().name("relay".into()).spawn(move || {
            let _ = pump(&from, &to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

fn pump(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
