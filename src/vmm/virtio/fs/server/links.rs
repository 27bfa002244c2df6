//! Hard and symbolic links.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::{Reply, Request, Result, Server};
use crate::virtio::fs::abi::LinkIn;
use crate::virtio::fs::host;

/// Longest target of a symbolic link in bytes (`PATH_MAX`).
const TARGET_MAX: usize = 4096;

impl Server {
    pub(super) fn readlink(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let id = request.header.nodeid;
        if self.nodes.kind(id)? != libc::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        let link = self.node(id)?;
        let mut target = [0; TARGET_MAX];
        let length = host::read_link(link.as_fd(), &mut target)?;
        reply.bytes(&target[..length])
    }

    pub(super) fn link(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let LinkIn { oldnodeid } = request.take()?;
        let name = request.name()?;
        self.writable()?;
        let parent = request.header.nodeid;
        let (file, directory) = (self.node(oldnodeid)?, self.node(parent)?);
        self.host.link(file.as_fd(), directory.as_fd(), &name)?;
        let found = self.find(parent, &name)?;
        reply.put(&self.entry(&found))
    }
}
