//! What a machine consists of: the devices that its guest finds when it boots, the same for every machine, and those of one
//! container, which its guest finds when it wakes.
//!
//! The order is the address: device N of the machine is `virtio-mmio.N` of the guest.

use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use sbx_protocol::guest::READY_PORT;
use sbx_vmm::confine::{Confinement, FILE_SERVER};
use sbx_vmm::layout::DEVICES_MAX;
use sbx_vmm::machine::{Builder, MachineConfig};
use sbx_vmm::virtio::balloon::{Balloon, BalloonConfig};
use sbx_vmm::virtio::rng::{Rng, RngConfig};
use sbx_vmm::virtio::vsock::{self, InnerGate, Vsock};

use crate::error::Error;
use crate::machine::Parts;
use crate::part::{self, Part};
use crate::size::Size;

/// Words for the guest kernel: no output but warnings, end the machine on a panic and on a reset, and nothing that
/// looks for hardware which a microVM does not have.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 oops=panic tsc=reliable";
/// Most bytes that are kept of what the guest's kernel and the machine say.
pub(crate) const SAID_LIMIT: u64 = 32 << 10;
/// How many devices every machine has.
const STANDING: usize = 3;
/// Most descriptors of the machine's process: connections and files of shares.
const OPEN_FILES: u64 = 1 << 16;
/// Device id of a file system (virtio specification, section 5).
const VIRTIO_ID_FS: u32 = 26;
/// Where a process finds its own descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A machine of a size, with an address for every device that a container may bring.
pub(crate) fn config(size: Size) -> MachineConfig {
    MachineConfig {
        memory: size.memory,
        vcpus: size.cpus as usize,
        addresses: DEVICES_MAX,
        command_line: COMMAND_LINE.into(),
        serial_limit: SAID_LIMIT,
    }
}

/// Adds the devices that every machine has. The guest may connect to `ports` of the host besides the one at which its
/// agent says that it is there.
pub(crate) fn add_standing(builder: &mut Builder, mut ports: Vec<u32>, gate: InnerGate) -> Result<(), Error> {
    ports.push(READY_PORT);
    let config = vsock::Config { allowed_ports: ports, ..vsock::Config::default() };
    let vsock = Vsock::new(config, gate)?;
    let rng = Rng::new(RngConfig { name: "rng".into() })?;
    let config = BalloonConfig { name: "balloon".into(), target: 0, deflate_on_oom: true };
    let (balloon, _control) = Balloon::new(config)?;
    builder.add_device(Box::new(vsock))?;
    builder.add_device(Box::new(rng))?;
    Ok(builder.add_device(Box::new(balloon))?)
}

/// Adds the devices of one container, in the order of [`addresses`], and what makes those of others that come later.
pub(crate) fn add_own(builder: &mut Builder, parts: Parts) -> Result<(), Error> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
    let descriptors = open(DESCRIPTORS, flags, Mode::empty())
        .map_err(|error| Error::Io { step: format!("open {DESCRIPTORS}"), source: error.into() })?;
    for (part, files) in part::describe(parts)? {
        builder.add_device(part.make(files, descriptors.as_fd())?)?;
    }
    builder.maker(Box::new(move |description, files| {
        Part::make_from(description, files, descriptors.as_fd()).map_err(|error| error.to_string())
    }));
    Ok(())
}

/// At which addresses the devices of one container are.
pub(crate) fn addresses(parts: &Parts) -> Result<Vec<usize>, Error> {
    let own = 2 + usize::from(parts.tap.is_some()) + parts.shares.len();
    if STANDING + own > DEVICES_MAX {
        let most = parts.shares.len() - (STANDING + own - DEVICES_MAX);
        return Err(Error::Unsupported(format!(
            "{} binds and volumes: with --isolation=vm a container has at most {most}; share a common parent directory",
            parts.shares.len()
        )));
    }
    Ok((STANDING..STANDING + own).collect())
}

/// What the process may do once everything is open. The threads that serve shares, of the first container or of one that comes
/// later, keep what acting for the users of the guest needs.
pub(crate) fn confinement(user: u32) -> Result<Confinement, Error> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| Error::Io { step: "look at the limit of open files".into(), source: error.into() })?;
    let kept = vec![(VIRTIO_ID_FS, FILE_SERVER.to_vec())];
    Ok(Confinement { uid: user, gid: user, files: OPEN_FILES.min(most), file_size: None, kept })
}
