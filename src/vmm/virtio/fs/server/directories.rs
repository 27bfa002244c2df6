//! Listing directories. Positions are the host's own (`d_off`), which stay right while entries come and go.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::handles::Handle;
use super::request::string;
use super::{Reply, Request, Result, Server, Shown};
use crate::virtio::fs::abi::{EntryOut, OpenOut, ROOT_ID, ReadIn, Wire};
use crate::virtio::fs::host::{self, Descriptor, Status};

/// Bytes of entries that are read from the host at a time.
const CHUNK: usize = 4096;
/// Longest answer in bytes.
const MOST: usize = 1 << 16;
/// Fixed part of an entry on the wire.
const FIXED: usize = 24;

/// An open directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) node: u64,
    /// None for the directory that is made up around a single file.
    pub(super) directory: Option<Arc<Descriptor>>,
    /// Entries that the host gave and the guest has not taken yet, and how far they are taken.
    read: Vec<u8>,
    taken: usize,
    /// Position behind what was taken.
    position: u64,
}

/// An entry.
#[derive(Debug)]
struct Entry {
    inode: u64,
    /// Position behind it.
    next: u64,
    kind: u8,
    name: CString,
}

impl Entry {
    /// Takes one off what getdents64(2) has given.
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let all = *bytes;
        let (inode, next) = (u64::take(bytes)?, u64::take(bytes)?);
        let length = usize::from(u16::take(bytes)?);
        let (kind, mut name) = bytes.split_first()?;
        let entry = Self { inode, next, kind: *kind, name: string(&mut name).ok()? };
        *bytes = all.get(length..)?;
        Some(entry)
    }

    fn is_dots(&self) -> bool {
        matches!(self.name.to_bytes(), b"." | b"..")
    }

    /// Length on the wire in bytes.
    fn length(&self) -> usize {
        (FIXED + self.name.to_bytes().len()).next_multiple_of(8)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let name = self.name.to_bytes();
        let end = out.len() + self.length();
        self.inode.put(out);
        self.next.put(out);
        (name.len() as u32).put(out);
        u32::from(self.kind).put(out);
        out.extend_from_slice(name);
        out.resize(end, 0);
    }
}

impl Listing {
    /// Goes to a position, where it is not there already. The beginning is always read anew (rewinddir(3)).
    fn go_to(&mut self, position: u64) -> Result<()> {
        if position == self.position && position != 0 {
            return Ok(());
        }
        self.read.clear();
        self.taken = 0;
        self.position = position;
        if let Some(directory) = &self.directory {
            let offset = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
            host::seek(directory.as_fd(), offset, libc::SEEK_SET as u32)?;
        }
        Ok(())
    }

    /// The next entry, which stays the next one until it is [taken](Self::take).
    fn next(&mut self) -> Result<Option<(Entry, usize)>> {
        if self.taken == self.read.len() {
            let Some(directory) = &self.directory else { return Ok(None) };
            self.read.resize(CHUNK, 0);
            self.taken = 0;
            let count = host::read_directory(directory.as_fd(), &mut self.read);
            self.read.truncate(*count.as_ref().unwrap_or(&0));
            count?;
        }
        let mut rest = &self.read[self.taken..];
        let before = rest.len();
        Ok(Entry::take(&mut rest).map(|entry| (entry, before - rest.len())))
    }

    fn take(&mut self, entry: &Entry, length: usize) {
        self.taken += length;
        self.position = entry.next;
    }
}

impl Server {
    pub(super) fn opendir(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let node = request.header.nodeid;
        let directory = if self.is_single_root(node) {
            None
        } else {
            let fd = self.node(node)?;
            if self.nodes.kind(node)? != libc::S_IFDIR {
                return Err(Errno::ENOTDIR);
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            Some(Arc::new(self.nodes.open(|| self.host.reopen(fd.as_fd(), flags))?))
        };
        let fh = self.handles.add(Handle::Directory(Listing { node, directory, ..Listing::default() }));
        reply.put(&OpenOut { fh, ..OpenOut::default() })
    }

    pub(super) fn readdir(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        self.list(request, reply, |_, entry, room, out| {
            let fits = entry.length() <= room;
            if fits {
                entry.put(out);
            }
            fits
        })
    }

    pub(super) fn readdirplus(&mut self, request: &mut Request<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let parent = request.header.nodeid;
        self.list(request, reply, |server, entry, room, out| {
            if EntryOut::SIZE + entry.length() > room {
                return false;
            }
            let found = if entry.is_dots() { Err(Errno::EISDIR) } else { server.find(parent, &entry.name) };
            match found {
                Ok(found) => server.entry(&found).put(out),
                // It went while we listed.
                Err(Errno::ENOENT) => return true,
                // Without a node the guest takes the name and looks it up when it wants to know more.
                Err(_) => EntryOut::default().put(out),
            }
            entry.put(out);
            true
        })
    }

    /// Lists entries as long as `add` finds room for them.
    fn list(
        &mut self,
        request: &mut Request<'_>,
        reply: &mut Reply<'_>,
        mut add: impl FnMut(&mut Self, &Entry, usize, &mut Vec<u8>) -> bool,
    ) -> Result<()> {
        let ReadIn { fh, offset, size, .. } = request.take()?;
        let node = request.header.nodeid;
        let most = (size as usize).min(reply.body.left()).min(MOST);
        let mut out = Vec::with_capacity(most);
        // Out of the table while it is worked on: adding an entry changes nodes.
        let mut listing = std::mem::take(self.handles.directory(fh, node)?);
        let mut result = match listing.directory {
            Some(_) => listing.go_to(offset),
            None => {
                self.list_single(offset, most, &mut out, &mut add);
                Ok(())
            }
        };
        while result.is_ok() && listing.directory.is_some() {
            match listing.next() {
                Ok(Some((mut entry, length))) => {
                    self.hide_parent(node, &mut entry);
                    if !add(self, &entry, most - out.len(), &mut out) {
                        break;
                    }
                    listing.take(&entry, length);
                }
                Ok(None) => break,
                Err(error) => result = Err(error),
            }
        }
        self.handles.put_back(fh, listing);
        match result {
            // What was listed before the error is good; the next request meets the error.
            Err(error) if out.is_empty() => Err(error),
            _ => reply.bytes(&out),
        }
    }

    /// The share's root is its own parent, as in every mount's root.
    fn hide_parent(&mut self, node: u64, entry: &mut Entry) {
        if node == ROOT_ID
            && entry.name.to_bytes() == b".."
            && let Ok(status) = self.nodes.hold(ROOT_ID).and_then(|root| Status::of(root.as_fd()))
        {
            entry.inode = status.inode();
        }
    }

    fn list_single(
        &mut self,
        offset: u64,
        most: usize,
        out: &mut Vec<u8>,
        add: &mut impl FnMut(&mut Self, &Entry, usize, &mut Vec<u8>) -> bool,
    ) {
        let Shown::Single { file, name } = &self.shown else { return };
        let status = Status::of(file.as_fd()).ok();
        let (inode, kind) = status.map_or((0, 0), |status| (status.inode(), (status.kind() >> 12) as u8));
        let entries = [
            Entry { inode: 1, next: 1, kind: libc::DT_DIR, name: c".".to_owned() },
            Entry { inode: 1, next: 2, kind: libc::DT_DIR, name: c"..".to_owned() },
            Entry { inode, next: 3, kind, name: name.clone() },
        ];
        for entry in entries.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let room = most - out.len();
            if !add(self, entry, room, out) {
                return;
            }
        }
    }
}
