//! What only a machine of its own is told: how it is furnished before a container can be made in it.
//!
//! Everything is decided on the host. A path here is a path in the machine's own root, outside of every container; the
//! sources of the plan's bind mounts are such paths too.

use sbx_container::plan::ContainerPlan;
use serde::{Deserialize, Serialize};

/// The vsock port that the agent listens on.
pub const AGENT_PORT: u32 = 1024;

/// The host's vsock port that the agent connects to, and closes again, once it listens.
pub const READY_PORT: u32 = 1025;

/// What a machine cannot know by itself when it starts or comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeRequest {
    /// The time: nanoseconds since 1970.
    pub now: i64,
    /// Random bytes, credited to the kernel's generator (random(4), `RNDADDENTROPY`).
    pub entropy: Vec<u8>,
}

/// One container to be made: what it stands on and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// Steps before the container is made, in order.
    pub furnishings: Vec<Furnishing>,
    /// The root file system.
    pub root: OverlayRoot,
    /// Which network card leads to which interface of the plan.
    pub uplinks: Vec<Uplink>,
    /// The container.
    pub plan: ContainerPlan,
    /// It shares the machine with the container that the machine was made for. It ends with the connection that has made it, and
    /// then everything that it was furnished with is taken away.
    pub tenant: Option<Tenant>,
}

/// What a container has for itself in a machine that it shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// The directory below which all of it is.
    pub directory: String,
}

/// One step that furnishes the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Furnishing {
    /// A directory, with its parents.
    Directory {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A file, written anew; its directory exists.
    File {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Its bytes.
        contents: Vec<u8>,
    },
    /// A mount; the target is made as a directory when it is missing.
    Mount {
        /// A disk by its address on the bus (`virtio-mmio.3`), or a partition of it (`virtio-mmio.3/1`); both are waited for a
        /// moment. Else a device or the tag of a share.
        source: String,
        /// `erofs`, `ext4`, `virtiofs`, `tmpfs`.
        fstype: String,
        /// Where.
        target: String,
        /// `MS_RDONLY`.
        read_only: bool,
        /// Options of the file system, comma-separated in mount(8).
        options: Vec<String>,
    },
    /// A unix stream socket at `path`; each connection to it goes to the host by this vsock port.
    Socket {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// vsock port of the host.
        port: u32,
    },
    /// A device that the kernel did not find when it booted: its driver looks again.
    Device {
        /// The number of the device on the bus `virtio-mmio`.
        address: u32,
    },
}

/// The container's root: an overlay, made of what the furnishings have mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayRoot {
    /// Directories of the layers, lowest first.
    pub layers: Vec<String>,
    /// Directory on the writable file system; `upper` and `work` are made in it where they are missing.
    pub writable: String,
}

/// A network card of the machine and the container's interface that it is for. Both are joined by a bridge of the machine
/// and a veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Hardware address of the machine's card, by which it is found.
    pub card: [u8; 6],
    /// Name of the interface in the plan (`eth0`).
    pub interface: String,
    /// Hardware address of that interface.
    pub address: [u8; 6],
    /// Maximum transmission unit of all of them, in bytes.
    pub mtu: u32,
}
