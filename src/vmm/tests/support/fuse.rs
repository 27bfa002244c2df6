//! The file server behind `/dev/fuse`: this machine's own kernel as its client, no virtual machine between them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{read, write};
use sbx_vmm::virtio::fs::server::Outcome;
use sbx_vmm::virtio::fs::{Server, Share};
use sbx_vmm::virtio::{Reader, Writer};

/// Largest request and answer: 1 MiB of data and headers.
const LARGEST: usize = (1 << 20) + 8192;

/// A share that is mounted, in a mount namespace of the calling thread's own.
pub(crate) struct Mounted {
    target: std::path::PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Mounts a share. The calling thread, and what it starts from here on, sees it.
    pub(crate) fn new(share: Share, target: &Path) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", device.as_raw_fd());
        mount(Some("share"), target, Some("fuse.sbx"), MsFlags::empty(), Some(options.as_str()))?;
        let thread = std::thread::Builder::new().name("fs".into()).spawn(move || {
            let mut server = Server::new(share).expect("a share");
            server.enter().expect("the thread is the server's");
            serve(&device, &mut server);
        })?;
        Ok(Self { target: target.to_owned(), thread: Some(thread) })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.target, MntFlags::MNT_DETACH);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(device: &File, server: &mut Server) {
    let mut request = vec![0; LARGEST];
    let mut answer = vec![0; LARGEST];
    loop {
        for settled in server.settle(Instant::now()) {
            give(device, &settled.answer);
        }
        let timeout = match server.next_settling(Instant::now()) {
            Some(pause) => PollTimeout::try_from(pause.as_millis() + 1).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        match poll(&mut [PollFd::new(device.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => panic!("wait for /dev/fuse: {error}"),
        }
        let length = match read(device, &mut request) {
            Ok(length) => length,
            // The request was taken back, or no signal of ours has come.
            Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => continue,
            // Unmounted.
            Err(Errno::ENODEV) => return,
            Err(error) => panic!("read /dev/fuse: {error}"),
        };
        let outcome = server.serve(&mut Reader::from(&mut request[..length]), &mut Writer::from(&mut answer[..]));
        if let Outcome::Done(length @ 1..) = outcome {
            give(device, &answer[..length]);
        }
    }
}

fn give(device: &File, answer: &[u8]) {
    match write(device, answer) {
        // ENOENT: the caller was killed and waits no more.
        Ok(_) | Err(Errno::ENOENT | Errno::ENODEV) => {}
        Err(error) => panic!("answer {:?}: {error}", &answer[..16]),
    }
}
