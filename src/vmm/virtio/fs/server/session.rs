//! What client and server agree on, once for each mount.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Reply, Request, Result, Server, Shown};
use crate::virtio::fs::abi::{self, InitIn, InitOut, MAJOR, MINOR, OLDEST_MINOR, ROOT_ID};
use crate::virtio::fs::host::xattr;
use std::os::fd::AsFd;

/// Longest write and read in bytes: what 256 pages, the most that a Linux client takes by default, hold.
pub(super) const MAX_TRANSFER: u32 = 1 << 20;
const MAX_PAGES: u16 = 256;
/// Requests that the client may have under way without somebody waiting for each (readahead), and from when it slows down.
const MAX_BACKGROUND: u16 = 128;
const CONGESTED: u16 = 96;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Of [`abi::init`].
    flags: u64,
}

impl Session {
    pub(super) fn has(self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

impl Server {
    pub(super) fn init(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let asked: InitIn = request.take()?;
        // A client of another major version is told ours, and asks again if it knows that too (`fuse.h`).
        if asked.major > MAJOR {
            return reply.put(&InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() });
        }
        if asked.major < MAJOR || asked.minor < OLDEST_MINOR {
            return Err(Errno::EPROTO);
        }
        let mut theirs = u64::from(asked.flags);
        if theirs & abi::init::INIT_EXT != 0 {
            theirs |= u64::from(request.take::<u32>().unwrap_or(0)) << 32;
        }
        self.reset();
        let flags = theirs & self.offer();
        self.session = Some(Session { flags });
        reply.put(&InitOut {
            major: MAJOR,
            minor: asked.minor.min(MINOR),
            max_readahead: asked.max_readahead,
            flags: flags as u32,
            max_background: MAX_BACKGROUND,
            congestion_threshold: CONGESTED,
            max_write: MAX_TRANSFER,
            time_gran: 1,
            max_pages: MAX_PAGES,
            flags2: (flags >> 32) as u32,
            ..InitOut::default()
        })
    }

    /// No write-back cache: it would let the guest's idea of a file's size and times win over the host's. No directory
    /// entries with their attributes unless names may be believed for a while: the guest would ask again for each.
    fn offer(&mut self) -> u64 {
        use abi::init;
        let mut flags = init::ASYNC_READ
            | init::POSIX_LOCKS
            | init::ATOMIC_O_TRUNC
            | init::BIG_WRITES
            | init::DONT_MASK
            | init::FLOCK_LOCKS
            | init::AUTO_INVAL_DATA
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES
            | init::SUBMOUNTS
            | init::HANDLE_KILLPRIV_V2
            | init::SETXATTR_EXT
            | init::INIT_EXT
            | init::NO_EXPORT_SUPPORT;
        if !self.caching.names.is_zero() {
            flags |= init::DO_READDIRPLUS | init::READDIRPLUS_AUTO;
        }
        if self.mappable {
            flags |= init::ALLOW_IDMAP;
        }
        if self.has_access_lists() {
            flags |= init::POSIX_ACL;
        }
        flags
    }

    /// Whether the share's file system has access control lists. Where it has none, the guest need not ask for them.
    fn has_access_lists(&mut self) -> bool {
        let name = c"system.posix_acl_access";
        let answer = match &self.shown {
            Shown::Single { file, .. } => xattr::get(file.as_fd(), name, &mut []),
            Shown::Tree => self.nodes.hold(ROOT_ID).and_then(|root| xattr::get(root.as_fd(), name, &mut [])),
        };
        answer != Err(Errno::EOPNOTSUPP)
    }

    pub(super) fn destroy(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }
}
