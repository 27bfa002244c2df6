//! Extended attributes, access control lists among them. Which names and values are allowed is the host's file systems'
//! business; whoever may not set `trusted.*` on the host cannot do it from the guest.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::request::{XATTR_MAX, string};
use super::{Reply, Request, Result, Server};
use crate::virtio::fs::abi::{GetxattrIn, GetxattrOut, SETXATTR_ACL_KILL_SGID, SetxattrIn, init};
use crate::virtio::fs::host::xattr;

impl Server {
    pub(super) fn setxattr(&mut self, request: &mut Request<'_>) -> Result<()> {
        let (size, flags) = (request.take::<u32>()?, request.take()?);
        let extended = self.session()?.has(init::SETXATTR_EXT);
        let SetxattrIn { setxattr_flags, .. } = if extended {
            SetxattrIn { size, flags, setxattr_flags: request.take()?, _padding: request.take()? }
        } else {
            SetxattrIn { size, flags, ..SetxattrIn::default() }
        };
        let tail = request.tail()?;
        let mut value = tail.as_slice();
        let name = string(&mut value)?;
        if value.len() != size as usize {
            return Err(Errno::EINVAL);
        }
        self.writable()?;
        let node = self.node(request.header.nodeid)?;
        if setxattr_flags & SETXATTR_ACL_KILL_SGID == 0 {
            return xattr::set(node.as_fd(), &name, value, flags);
        }
        // The host takes set-group-id away from one who is not in the file's group and may not keep it.
        self.make_as(request, 0)?;
        self.identity()?.without_fsetid(|| xattr::set(node.as_fd(), &name, value, flags))
    }

    pub(super) fn removexattr(&mut self, request: &mut Request<'_>) -> Result<()> {
        let tail = request.tail()?;
        let name = string(&mut tail.as_slice())?;
        self.writable()?;
        let node = self.node(request.header.nodeid)?;
        xattr::remove(node.as_fd(), &name)
    }

    pub(super) fn getxattr(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let GetxattrIn { size, .. } = request.take()?;
        let tail = request.tail()?;
        let name = string(&mut tail.as_slice())?;
        let id = request.header.nodeid;
        if self.is_single_root(id) {
            return Err(Errno::ENODATA);
        }
        let node = self.node(id)?;
        answer(reply, size, node.as_fd(), |node, value| xattr::get(node, &name, value))
    }

    pub(super) fn listxattr(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let GetxattrIn { size, .. } = request.take()?;
        let id = request.header.nodeid;
        if self.is_single_root(id) {
            return if size == 0 { reply.put(&GetxattrOut::default()) } else { Ok(()) };
        }
        let node = self.node(id)?;
        answer(reply, size, node.as_fd(), xattr::list)
    }
}

/// Answers with a length where the guest has no room, else with what `read` puts into the room.
fn answer(
    reply: &mut Reply<'_>,
    size: u32,
    node: BorrowedFd<'_>,
    read: impl FnOnce(BorrowedFd<'_>, &mut [u8]) -> Result<usize>,
) -> Result<()> {
    let mut room = vec![0; (size as usize).min(XATTR_MAX)];
    let length = read(node, &mut room)?;
    if size == 0 {
        return reply.put(&GetxattrOut { size: length as u32, ..GetxattrOut::default() });
    }
    reply.bytes(&room[..length])
}
