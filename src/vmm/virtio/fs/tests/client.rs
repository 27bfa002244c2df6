//! A client that says exactly what a test wants it to say, to a server over a directory of its own.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::virtio::chain::{Reader, Writer};
use crate::virtio::fs::abi::{
    AttrOut, CreateIn, EntryOut, ForgetIn, GetattrIn, GetxattrIn, InHeader, InitIn, InitOut, LkIn, MAJOR, MINOR,
    MkdirIn, OpenIn, OpenOut, OutHeader, ROOT_ID, ReadIn, ReleaseIn, Rename2In, SetattrIn, Wire, WriteIn, WriteOut,
    init, opcode,
};
use crate::virtio::fs::server::{Outcome, Server, Ticket};
use crate::virtio::fs::share::{Access, Caching, Limits, Root, Share};

pub(super) type Answer<T> = Result<T, Errno>;

/// All that the Linux client offers.
const OFFERED: u64 = 0x1ff_ffff_ffff;

/// What a request led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answered(Answer<Vec<u8>>),
    Nothing,
    Waits(Ticket),
}

pub(super) struct Client {
    pub(super) server: Server,
    directory: TempDir,
    pub(super) user: u32,
    pub(super) group: u32,
    unique: u64,
}

pub(super) fn bytes<T: Wire>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.put(&mut bytes);
    bytes
}

pub(super) fn path(path: &Path) -> OwnedFd {
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
}

pub(super) fn share(root: Root) -> Share {
    Share {
        tag: "test".into(),
        root,
        proc: File::open("/proc/self/fd").unwrap().into(),
        access: Access::ReadWrite,
        mappable: false,
        caching: Caching::default(),
        limits: Limits::default(),
    }
}

impl Client {
    /// A client of an empty directory.
    pub(super) fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A client of a directory, which `prepare` may fill, and of a share, which it may change.
    pub(super) fn with(prepare: impl FnOnce(&Path, &mut Share)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut share = share(Root::Directory(path(directory.path())));
        prepare(directory.path(), &mut share);
        let mut client = Self::unconnected(share, directory);
        client.init();
        client
    }

    pub(super) fn unconnected(share: Share, directory: TempDir) -> Self {
        let mut server = Server::new(share).unwrap();
        server.enter().unwrap();
        let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Self { server, directory, user, group, unique: 0 }
    }

    /// The same client of a server made anew.
    pub(super) fn reconnected(self, share: Share) -> Self {
        Self::unconnected(share, self.directory)
    }

    pub(super) fn init(&mut self) -> InitOut {
        let hello = InitIn { major: MAJOR, minor: MINOR, max_readahead: 1 << 17, flags: OFFERED as u32 };
        let body = [bytes(&hello), bytes(&((OFFERED >> 32) as u32)), vec![0; 44]].concat();
        let answer: InitOut = self.ask(opcode::INIT, 0, &body).unwrap();
        assert!(u64::from(answer.flags) & init::INIT_EXT != 0);
        answer
    }

    /// Path of a name on the host.
    pub(super) fn host(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A request whose header tells the truth.
    pub(super) fn say(&mut self, code: u32, nodeid: u64, body: &[u8]) -> Said {
        self.unique += 1;
        let len = (InHeader::SIZE + body.len()) as u32;
        let header = InHeader {
            len,
            opcode: code,
            unique: self.unique,
            nodeid,
            uid: self.user,
            gid: self.group,
            pid: std::process::id(),
            ..InHeader::default()
        };
        let request = [bytes(&header), body.to_vec()].concat();
        let said = self.say_raw(request, (1 << 20) + 4096);
        if let Said::Answered(answer) = &said {
            assert!(answer != &Err(Errno::UnknownErrno), "an answer that is not well formed");
        }
        said
    }

    /// A request of any bytes, with so much room for an answer.
    pub(super) fn say_raw(&mut self, mut request: Vec<u8>, room: usize) -> Said {
        let mut answer = vec![0xaa; room];
        let outcome = self.server.serve(&mut Reader::from(&mut request[..]), &mut Writer::from(&mut answer[..]));
        match outcome {
            Outcome::Done(0) => Said::Nothing,
            Outcome::Done(length) => Said::Answered(self.read_answer(&answer[..length])),
            Outcome::Waits(ticket, room) => {
                assert_eq!(room.left(), OutHeader::SIZE);
                Said::Waits(ticket)
            }
        }
    }

    pub(super) fn read_answer(&self, mut answer: &[u8]) -> Answer<Vec<u8>> {
        let length = answer.len();
        let header = OutHeader::take(&mut answer).unwrap();
        assert_eq!((header.len as usize, header.unique), (length, self.unique));
        assert!(header.error <= 0 && (header.error == 0 || answer.is_empty()));
        match header.error {
            0 => Ok(answer.to_vec()),
            error => Err(Errno::from_raw(-error)),
        }
    }

    pub(super) fn bytes(&mut self, code: u32, nodeid: u64, body: &[u8]) -> Answer<Vec<u8>> {
        match self.say(code, nodeid, body) {
            Said::Answered(answer) => answer,
            said => panic!("no answer to {code}: {said:?}"),
        }
    }

    pub(super) fn ask<T: Wire>(&mut self, code: u32, nodeid: u64, body: &[u8]) -> Answer<T> {
        let answer = self.bytes(code, nodeid, body)?;
        assert_eq!(answer.len(), T::SIZE, "length of the answer to {code}");
        Ok(T::take(&mut answer.as_slice()).unwrap())
    }

    pub(super) fn order(&mut self, code: u32, nodeid: u64, body: &[u8]) -> Answer<()> {
        self.bytes(code, nodeid, body).map(|answer| assert!(answer.is_empty()))
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &str) -> Answer<EntryOut> {
        self.ask(opcode::LOOKUP, parent, &named(name))
    }

    /// The node at the end of a path of names.
    pub(super) fn walk(&mut self, path: &str) -> Answer<u64> {
        path.split('/').try_fold(ROOT_ID, |parent, name| Ok(self.lookup(parent, name)?.nodeid))
    }

    pub(super) fn forget(&mut self, node: u64, nlookup: u64) {
        assert_eq!(self.say(opcode::FORGET, node, &bytes(&ForgetIn { nlookup })), Said::Nothing);
    }

    pub(super) fn getattr(&mut self, node: u64) -> Answer<AttrOut> {
        self.ask(opcode::GETATTR, node, &bytes(&GetattrIn::default()))
    }

    pub(super) fn setattr(&mut self, node: u64, change: &SetattrIn) -> Answer<AttrOut> {
        self.ask(opcode::SETATTR, node, &bytes(change))
    }

    pub(super) fn mkdir(&mut self, parent: u64, name: &str, mode: u32) -> Answer<EntryOut> {
        let body = [bytes(&MkdirIn { mode, umask: 0o022 }), named(name)].concat();
        self.ask(opcode::MKDIR, parent, &body)
    }

    pub(super) fn create(&mut self, parent: u64, name: &str, flags: i32, mode: u32) -> Answer<(EntryOut, u64)> {
        let create = CreateIn { flags: (flags | libc::O_CREAT) as u32, mode, umask: 0o022, open_flags: 0 };
        let body = [bytes(&create), named(name)].concat();
        let answer = self.bytes(opcode::CREATE, parent, &body)?;
        let mut rest = answer.as_slice();
        let (entry, opened) = (EntryOut::take(&mut rest).unwrap(), OpenOut::take(&mut rest).unwrap());
        assert!(rest.is_empty());
        Ok((entry, opened.fh))
    }

    pub(super) fn open(&mut self, node: u64, flags: i32) -> Answer<OpenOut> {
        self.ask(opcode::OPEN, node, &bytes(&OpenIn { flags: flags as u32, open_flags: 0 }))
    }

    pub(super) fn opendir(&mut self, node: u64) -> Answer<u64> {
        self.ask(opcode::OPENDIR, node, &bytes(&OpenIn::default())).map(|opened: OpenOut| opened.fh)
    }

    pub(super) fn release(&mut self, node: u64, fh: u64) -> Answer<()> {
        self.order(opcode::RELEASE, node, &bytes(&ReleaseIn { fh, ..ReleaseIn::default() }))
    }

    pub(super) fn read(&mut self, node: u64, fh: u64, offset: u64, size: u32) -> Answer<Vec<u8>> {
        self.bytes(opcode::READ, node, &bytes(&ReadIn { fh, offset, size, ..ReadIn::default() }))
    }

    pub(super) fn write(&mut self, node: u64, fh: u64, offset: u64, data: &[u8]) -> Answer<u32> {
        self.write_with(node, &WriteIn { fh, offset, size: data.len() as u32, ..WriteIn::default() }, data)
    }

    pub(super) fn write_with(&mut self, node: u64, write: &WriteIn, data: &[u8]) -> Answer<u32> {
        let body = [bytes(write), data.to_vec()].concat();
        self.ask(opcode::WRITE, node, &body).map(|out: WriteOut| out.size)
    }

    pub(super) fn unlink(&mut self, parent: u64, name: &str) -> Answer<()> {
        self.order(opcode::UNLINK, parent, &named(name))
    }

    pub(super) fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Answer<()> {
        let body = [bytes(&Rename2In { newdir: to.0, flags, ..Rename2In::default() }), named(from.1), named(to.1)];
        self.order(opcode::RENAME2, from.0, &body.concat())
    }

    pub(super) fn getxattr(&mut self, node: u64, name: &str, size: u32) -> Answer<Vec<u8>> {
        let body = [bytes(&GetxattrIn { size, ..GetxattrIn::default() }), named(name)].concat();
        self.bytes(opcode::GETXATTR, node, &body)
    }

    pub(super) fn setxattr(&mut self, node: u64, name: &str, value: &[u8], setxattr_flags: u32) -> Answer<()> {
        let fixed = [value.len() as u32, 0, setxattr_flags, 0];
        self.order(opcode::SETXATTR, node, &[bytes(&fixed), named(name), value.to_vec()].concat())
    }

    pub(super) fn lock(&mut self, code: u32, node: u64, lock: &LkIn) -> Said {
        self.say(code, node, &bytes(lock))
    }

    /// Waits for the answer to a request that waits.
    pub(super) fn settled(&mut self, ticket: Ticket, within: Duration) -> Option<Answer<()>> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(settled) = self.server.settle(Instant::now()).into_iter().find(|one| one.ticket == ticket) {
                let header = OutHeader::take(&mut settled.answer.as_slice()).unwrap();
                return Some(if header.error == 0 { Ok(()) } else { Err(Errno::from_raw(-header.error)) });
            }
            std::thread::sleep(self.server.next_settling(Instant::now()).unwrap_or_default());
        }
        None
    }

    /// Names in a directory, with their numbers.
    pub(super) fn list(&mut self, node: u64) -> Answer<Vec<(String, u64)>> {
        let fh = self.opendir(node)?;
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let read = ReadIn { fh, offset, size: 512, ..ReadIn::default() };
            let answer = self.bytes(opcode::READDIR, node, &bytes(&read))?;
            if answer.is_empty() {
                break;
            }
            offset = entries(&answer, &mut names);
        }
        self.order(opcode::RELEASEDIR, node, &bytes(&ReleaseIn { fh, ..ReleaseIn::default() }))?;
        Ok(names)
    }
}

/// Takes an answer to `READDIR` apart; says where the next one begins.
pub(super) fn entries(mut answer: &[u8], names: &mut Vec<(String, u64)>) -> u64 {
    let mut offset = 0;
    while !answer.is_empty() {
        let inode = u64::take(&mut answer).unwrap();
        offset = u64::take(&mut answer).unwrap();
        let length = u32::take(&mut answer).unwrap() as usize;
        let _kind = u32::take(&mut answer).unwrap();
        names.push((String::from_utf8(answer[..length].to_vec()).unwrap(), inode));
        answer = &answer[length.next_multiple_of(8)..];
    }
    offset
}

/// A name as it ends a request.
pub(super) fn named(name: &str) -> Vec<u8> {
    CString::new(name).unwrap().into_bytes_with_nul()
}
