//! The steps that furnish the machine for a container, one after another, as the host has decided them.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{AtFlags, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use sbx_container::Error;
use sbx_protocol::guest::Furnishing;

/// The bus of the machine's devices, as its kernel names it.
const BUS: &str = "virtio-mmio";

/// How long a device may take to appear after the host has attached it.
pub(crate) const DEVICE_TIME: Duration = Duration::from_secs(2);

/// What the steps leave for others to use.
#[derive(Debug, Default)]
pub(crate) struct Furnished {
    /// Mount points, in order.
    pub(crate) mounted: Vec<String>,
    /// Sockets that listen.
    pub(crate) sockets: Vec<ForwardedSocket>,
    /// Devices that a driver has, by their addresses.
    pub(crate) devices: Vec<u32>,
}

/// A unix socket whose connections go to a port of the host.
#[derive(Debug)]
pub(crate) struct ForwardedSocket {
    pub(crate) path: String,
    pub(crate) listener: OwnedFd,
    pub(crate) port: u32,
}

/// Takes the steps. After a failure what was done so far is in `furnished` all the same.
pub(crate) fn furnish(steps: &[Furnishing], furnished: &mut Furnished) -> Result<(), Error> {
    for step in steps {
        match step {
            Furnishing::Directory { path, mode } => directory(path, *mode)?,
            Furnishing::File { path, mode, contents } => file(path, *mode, contents)?,
            Furnishing::Mount { source, fstype, target, read_only, options } => {
                let flags = if *read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
                attach(source, fstype, target, flags, options)?;
                furnished.mounted.push(target.clone());
            }
            Furnishing::Socket { path, mode, uid, gid, port } => {
                let listener = listen_at(path)?;
                give(path, *mode, *uid, *gid)?;
                furnished.sockets.push(ForwardedSocket { path: path.clone(), listener, port: *port });
            }
            Furnishing::Device { address } => {
                find_device(*address)?;
                furnished.devices.push(*address);
            }
        }
    }
    Ok(())
}

fn absolute(path: &str) -> Result<&Path, Error> {
    if path.starts_with('/') {
        Ok(Path::new(path))
    } else {
        Err(Error::new(format!("{path:?}"), "not an absolute path"))
    }
}

/// Lets the driver look at an address at which nothing was when the kernel booted (`drivers/base/bus.c`, `bind`).
fn find_device(address: u32) -> Result<(), Error> {
    tell_driver("bind", address).map_err(|error| Error::new(format!("find the device {BUS}.{address}"), error))
}

/// Lets the driver let go of the device at an address; nothing may use it any more.
pub(crate) fn let_go(address: u32) -> Result<(), Error> {
    tell_driver("unbind", address).map_err(|error| Error::new(format!("let go of the device {BUS}.{address}"), error))
}

fn tell_driver(what: &str, address: u32) -> std::io::Result<()> {
    fs::write(format!("/sys/bus/platform/drivers/{BUS}/{what}"), format!("{BUS}.{address}"))
}

fn directory(path: &str, mode: u32) -> Result<(), Error> {
    let made =
        fs::create_dir_all(absolute(path)?).and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
    made.map_err(|error| Error::new(format!("create the directory {path}"), error))
}

/// Written in place: a container that is bound to the file must see the new text.
fn file(path: &str, mode: u32, contents: &[u8]) -> Result<(), Error> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
    let written = options.open(absolute(path)?).and_then(|mut file| {
        file.write_all(contents)?;
        file.set_permissions(Permissions::from_mode(mode))
    });
    written.map_err(|error| Error::new(format!("write {path}"), error))
}

fn attach(source: &str, fstype: &str, target: &str, flags: MsFlags, options: &[String]) -> Result<(), Error> {
    let step = || format!("mount {fstype} {source} on {target}");
    fs::create_dir_all(absolute(target)?).map_err(|error| Error::new(step(), error))?;
    let source = match source.strip_prefix(BUS).and_then(|rest| rest.strip_prefix('.')) {
        Some(place) => wait_for_disk(place)?,
        None => source.to_owned(),
    };
    let options = options.join(",");
    mount(Some(source.as_str()), target, Some(fstype), flags, Some(options.as_str()))
        .map_err(|error| Error::new(step(), error.desc()))
}

/// The node of a disk, `ADDRESS`, or of one of its partitions, `ADDRESS/NUMBER`. One that has just been attached gets it when
/// the kernel has found it.
fn wait_for_disk(place: &str) -> Result<String, Error> {
    let (address, partition) = place.split_once('/').unwrap_or((place, ""));
    let deadline = Instant::now() + DEVICE_TIME;
    loop {
        if let Some(disk) = disk_at(address) {
            let node = format!("/dev/{disk}{partition}");
            if fs::metadata(&node).is_ok_and(|found| found.file_type().is_block_device()) {
                return Ok(node);
            }
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("wait for the disk {BUS}.{place}"), "it did not appear"));
        }
        sleep(Duration::from_millis(2));
    }
}

/// The kernel's name of the disk at an address: `/sys/devices/platform/virtio-mmio.N/virtioM/block/NAME`.
fn disk_at(address: &str) -> Option<String> {
    let first = |path: &Path, begin: &str| {
        let names = fs::read_dir(path).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.into_iter().find(|name| name.starts_with(begin))
    };
    let bus = Path::new("/sys/bus/platform/devices").join(format!("{BUS}.{address}"));
    let device = first(&bus, "virtio")?;
    first(&bus.join(device).join("block"), "vd")
}

/// A listening socket at `path`, in place of an earlier one.
fn listen_at(path: &str) -> Result<OwnedFd, Error> {
    let place = absolute(path)?;
    let failed = |error: std::io::Error| Error::new(format!("listen at {path}"), error);
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
        return Err(Error::new(format!("listen at {path}"), "not the path of a file"));
    };
    fs::create_dir_all(parent).map_err(failed)?;
    if fs::symlink_metadata(place).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(place).map_err(failed)?;
    }
    let bound = || -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let parent = nix::fcntl::open(parent, flags, Mode::empty())?;
        // A socket's address has room for 107 bytes, which the path of a bind may exceed.
        let address = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(&address)?)?;
        listen(&listener, Backlog::MAXALLOWABLE)?;
        Ok(listener)
    };
    bound().map_err(|error| failed(error.into()))
}

fn give(path: &str, mode: u32, uid: u32, gid: u32) -> Result<(), Error> {
    let open = || -> std::io::Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let socket = nix::fcntl::open(path, flags, Mode::empty())?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        nix::unistd::fchownat(socket.as_fd(), "", owner.0, owner.1, AtFlags::AT_EMPTY_PATH)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    open().map_err(|error| Error::new(format!("give {path} its owner"), error))
}
