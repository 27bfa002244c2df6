//! The specification of a sandbox: what is stored, and what everything else is derived from.
//!
//! It is made once by `resolve` from what the user asked, what the image says, what the settings say and what the
//! machine can do. After it no empty field means "the user did not say". It is written to `container.json` before
//! the first object of the container exists on the host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Config, NetworkingConfig};
use crate::host_config::HostConfig;
use crate::id::Id;
use crate::isolation::Resolved;
use crate::timestamp::Timestamp;

/// Version of the stored form; a file with a newer one is refused.
pub const SCHEMA: u32 = 1;

/// One sandbox with one container in it, decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Names every object that is made for it.
    pub id: Id,
    /// Without a leading slash.
    pub name: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// How it is kept apart, and why so.
    pub isolation: Resolved,
    /// What its root file system starts from.
    pub image: ImageRecord,
    /// The portable part, image and request merged.
    pub config: Config,
    /// The part that belongs to this host, defaults filled in.
    pub host_config: HostConfig,
    /// Per-network settings.
    pub networking: NetworkingConfig,
    /// Everything that is mounted for the user, in the order in which it is mounted.
    pub mounts: Vec<MountPoint>,
    /// What `security_opt` means.
    pub security: Security,
    /// Its program is not to run ([`Self::kept`]).
    #[serde(skip)]
    pub only_kept: bool,
}

impl SandboxSpec {
    /// Program and arguments: the entry point followed by the command.
    pub fn args(&self) -> Vec<String> {
        let entrypoint = self.config.entrypoint.iter().flatten();
        entrypoint.chain(self.config.cmd.iter().flatten()).cloned().collect()
    }
}

/// The image of a container, as it was when the container was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// As the user named it.
    pub reference: String,
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// Digest of its manifest; empty when it did not come from a registry.
    pub digest: String,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<String>,
    /// `linux/amd64`.
    pub platform: String,
}

/// What `--security-opt` decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=`.
    pub seccomp: SeccompChoice,
    /// Capabilities by name, `CAP_CHOWN`, sorted: the bounding, permitted and effective set.
    pub capabilities: Vec<String>,
    /// AppArmor profile; `None` where the kernel has none.
    pub apparmor: Option<String>,
    /// `writable-cgroups`; `None` follows `privileged`.
    pub writable_cgroups: Option<bool>,
}

/// Which filter of system calls holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// Docker's default profile, adapted to the capabilities.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON form.
    Custom(String),
}

/// One mount that the user or the image asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountPoint {
    /// What is mounted.
    pub kind: MountKind,
    /// Volume name or image; empty otherwise.
    pub name: String,
    /// Path on the host; empty for tmpfs and images.
    pub source: String,
    /// Absolute, normalised path inside the container.
    pub destination: String,
    /// `local` for volumes; empty otherwise.
    pub driver: String,
    /// The third part of `-v`, or what Docker shows in its place.
    pub mode: String,
    /// Writable.
    pub rw: bool,
    /// `rprivate` and its kin for binds; empty otherwise.
    pub propagation: String,
    /// Who asked for it.
    pub origin: MountOrigin,
    /// Further options by kind.
    pub options: MountOptions,
}

/// Kind of a mount, as Docker names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as the `Type` of Docker's mounts")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
    Image,
}

impl MountKind {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }
}

/// Who asked for a mount; later ones win over earlier ones at the same destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountOrigin {
    /// `VOLUME` of the image, or `Config.Volumes`.
    Anonymous,
    /// `--volumes-from`.
    Inherited,
    /// `-v`.
    Volume,
    /// `--mount`.
    Mount,
    /// `--tmpfs`; Docker does not list it among the mounts.
    Tmpfs,
}

/// Options of a mount that only some kinds have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MountOptions {
    /// Bind: leave the mounts below the source out.
    pub non_recursive: bool,
    /// Bind: the mounts below stay writable when this is read-only.
    pub read_only_non_recursive: bool,
    /// Bind: fail where the mounts below cannot be made read-only.
    pub read_only_force_recursive: bool,
    /// Bind: make the source as a directory when it is missing.
    pub create_source: bool,
    /// Volume: fill it from the image when it is empty.
    pub copy_data: bool,
    /// Volume: nobody named it, so `rm -v` and `--rm` remove it.
    pub anonymous: bool,
    /// Volume: labels when it is made for this mount.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Volume: driver options when it is made for this mount.
    pub driver_options: std::collections::BTreeMap<String, String>,
    /// Volume, image: directory inside.
    pub subpath: String,
    /// Image: digest of its configuration, `sha256:…`, once it was found.
    pub image: String,
    /// Image: diff ids of its layers, lowest first.
    pub layers: Vec<String>,
    /// Tmpfs: mount(8) options, `size=64m`, `mode=1777`.
    pub tmpfs: Vec<String>,
}

/// Where the files of a container are that somebody else made, just before its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostPaths {
    /// The root file system, for show: the plan receives it as a descriptor.
    pub rootfs: PathBuf,
    /// Bound to `/etc/resolv.conf` unless the user mounts there; `None` leaves the image's.
    pub resolv_conf: Option<PathBuf>,
    /// Bound to `/etc/hostname` likewise.
    pub hostname: Option<PathBuf>,
    /// Bound to `/etc/hosts` likewise.
    pub hosts: Option<PathBuf>,
    /// Bound to `/dev/shm`: the one of the container whose IPC namespace is joined, or our own when it is shareable.
    pub shm: Option<PathBuf>,
    /// nsfs file of the network namespace to join (`--network container:…`, or one prepared beforehand).
    pub join_net: Option<PathBuf>,
    /// nsfs file of the IPC namespace to join (`--ipc container:…`).
    pub join_ipc: Option<PathBuf>,
    /// nsfs file of the PID namespace to join (`--pid container:…`).
    pub join_pid: Option<PathBuf>,
    /// nsfs file of the user namespace to join with the others.
    pub join_user: Option<PathBuf>,
    /// Source paths by mount destination, for images and for directories inside volumes, prepared by the caller.
    pub mount_sources: std::collections::BTreeMap<String, PathBuf>,
    /// Every device node that [`crate::oci::wanted_devices`] names, directories expanded.
    pub devices: Vec<HostDevice>,
}

/// A device node of the host, looked up by the caller (stat(2)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in stat(2)")]
pub struct HostDevice {
    /// The path that was asked for: a device or a directory of devices.
    pub requested: String,
    /// The device: `requested` itself or a path below it.
    pub path: String,
    pub kind: sbx_container::plan::DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}
