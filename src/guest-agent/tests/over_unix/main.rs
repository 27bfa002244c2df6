//! The agent without a machine below it: serves by unix sockets, in namespaces that whoever runs it has made.
//!
//! `sbx-agent-over-unix DIRECTORY` listens at `DIRECTORY/agent` and reaches port N of its host at `DIRECTORY/port-N`. It is
//! PID 1 of its PID namespace, so that orphans and `kill -1` are as in a machine.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sbx_guest_agent::{Server, Socket, Wire};

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The reaper is this program too, as in a machine.
    if arguments.first().is_some_and(|name| name.as_bytes() == sbx_container::init::NAME.to_bytes()) {
        sbx_container::init::main(arguments);
    }
    let directory = PathBuf::from(arguments.get(1).expect("usage: sbx-agent-over-unix DIRECTORY"));
    furnish_namespaces().expect("mount what a machine has");
    let listener = UnixListener::bind(directory.join("agent")).expect("listen");
    listener.set_nonblocking(true).expect("listen without waiting");
    let server = Server::new(Box::new(Unix { directory, listener })).expect("make the server");
    match server.run() {
        Ok(mounted) => println!("powered off; mounted: {}", mounted.join(" ")),
        Err(error) => panic!("{error}"),
    }
}

/// `/proc` and `/sys` of these namespaces, with the machine's control groups, and a directory of the agent's own.
fn furnish_namespaces() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    let groups = "/sys/fs/cgroup";
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), NONE)?;
    std::fs::create_dir_all("/run/sbx").and_then(|()| std::fs::create_dir_all("/run/groups")).map_err(errno)?;
    mount(Some(groups), "/run/groups", NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE)?;
    mount(Some("/run/groups"), groups, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

struct Unix {
    directory: PathBuf,
    listener: UnixListener,
}

impl Wire for Unix {
    fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    fn accept(&self) -> io::Result<Option<Socket>> {
        Socket::accept(self.listener())
    }

    fn dial(&self, port: u32) -> io::Result<Socket> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let path: &Path = &self.directory.join(format!("port-{port}"));
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Socket::new(socket))
    }
}
