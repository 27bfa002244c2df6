//! The container plan: everything that one container needs, decided, as plain data.
//!
//! A plan is made on the host from an OCI runtime configuration (`config.json`), is carried to whichever kernel
//! runs the container, and is executed there by this crate. It holds no file descriptors, no references to
//! anything outside itself but paths, and nothing in it is optional in the sense of "the user did not say".
//!
//! Every type here crosses a process or machine boundary in a format that does not describe itself, so fields are
//! never skipped when they are serialised and are only ever appended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One container, ready to be made (OCI runtime-spec 1.2, `config.md`, resolved).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// 64 hexadecimal digits; names every object that is made for the container.
    pub id: String,
    /// UTS host name; applied only in a new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name; applied only in a new UTS namespace.
    pub domainname: Option<String>,
    /// Which namespaces are made, shared or joined.
    pub namespaces: Namespaces,
    /// Identity maps of a new user namespace.
    pub id_maps: Option<IdMaps>,
    /// How the prepared root file system is attached.
    pub root: Root,
    /// Mounts inside the root, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes made under `/dev`.
    pub devices: Vec<DeviceNode>,
    /// Paths hidden by `/dev/null` (files) or an empty read-only tmpfs (directories).
    pub masked_paths: Vec<String>,
    /// Paths made read-only by a bind mount over themselves.
    pub readonly_paths: Vec<String>,
    /// Kernel parameters in dotted form, `net.ipv4.ip_forward` to `1`.
    pub sysctls: BTreeMap<String, String>,
    /// Where the container is accounted and what it may use.
    pub cgroup: CgroupPlan,
    /// Interfaces that somebody puts into the network namespace and that the container configures.
    pub interfaces: Vec<Interface>,
    /// The first process.
    pub process: ProcessPlan,
    /// What the first process executes.
    pub first: First,
}

/// What the first process of a container executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum First {
    /// The process's own program.
    #[default]
    Program,
    /// A small reaper, which runs the program as its child (Docker's `--init`).
    Reaper,
    /// Nothing of the container's: it waits to be killed, so that the container's files can be reached ([`crate::files`]).
    Keeper,
}

/// What happens to each kind of namespace (namespaces(7)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one field for each kind of namespaces(7)")]
pub struct Namespaces {
    pub mount: Namespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub net: Namespace,
    pub cgroup: Namespace,
    pub user: Namespace,
    pub time: Namespace,
}

/// One namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    New,
    /// The one of whoever creates the container.
    Inherit,
    /// An existing one, by the path of its nsfs file (`/proc/PID/ns/net`).
    Join(String),
}

/// `uid_map` and `gid_map` of a new user namespace (user_namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in user_namespaces(7)")]
pub struct IdMaps {
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

/// One line of an identity map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// How the root mount, handed over as a file descriptor, is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Remount the root read-only after every mount inside it has been made.
    pub read_only: bool,
}

/// One mount inside the container's root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; resolved inside the root, missing components are made.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// Per-mount attributes.
    pub attributes: MountAttributes,
    /// Propagation of the new mount.
    pub propagation: Propagation,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory outside the root, in the mount namespace of the creator.
    Bind {
        /// Absolute path outside.
        path: String,
        /// Take the mounts below it along (`rbind`).
        recursive: bool,
        /// With a user namespace: show the owners of the files as the container's ids do (an idmapped mount). For
        /// what belongs to the container; never for a directory that others own.
        idmapped: bool,
    },
    /// procfs of the container's PID namespace.
    Proc,
    /// sysfs of the container's network namespace.
    Sysfs,
    /// The cgroup file systems as the container may see them, v1, v2 or hybrid like those of the creator.
    Cgroup,
    /// A file system instance made by the kernel: tmpfs, devpts, mqueue and the like.
    Filesystem {
        /// As in `/proc/filesystems`.
        fstype: String,
        /// Its source, mostly for show (`shm`, `devpts`).
        source: String,
        /// Options of the superblock, comma-separated in mount(8): `size=64m`, `mode=1777`.
        options: Vec<String>,
    },
}

/// Per-mount attributes (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in mount(8)")]
pub struct MountAttributes {
    pub read_only: bool,
    /// Apply `read_only` to the mounts below as well (`rro`).
    pub recursive_read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    pub nodiratime: bool,
    pub relatime: bool,
    pub strictatime: bool,
    pub nosymfollow: bool,
}

/// Mount propagation (mount_namespaces(7)); the recursive kinds reach the mounts below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in mount(8)")]
pub enum Propagation {
    Private,
    #[default]
    RecursivePrivate,
    Slave,
    RecursiveSlave,
    Shared,
    RecursiveShared,
}

/// A device node (mknod(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in mknod(2)")]
pub struct DeviceNode {
    /// Absolute path inside the container.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits, `0o666`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Kind of a device node or device rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in mknod(2)")]
pub enum DeviceKind {
    Character,
    Block,
    Fifo,
}

/// Where a container is accounted and what it may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Path below the root of every hierarchy, without a leading slash: `sbx/ID`.
    pub path: String,
    /// Limits.
    pub resources: Resources,
}

/// Limits of a container (OCI runtime-spec, `config-linux.md`, "Control groups"). `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory limits.
    pub memory: Memory,
    /// Processor shares and bandwidth.
    pub cpu: Cpu,
    /// Highest number of tasks; a negative number means no limit.
    pub pids: Option<i64>,
    /// Block device weights and rates.
    pub block: BlockIo,
    /// Device access rules, in order; later rules win. Empty means no restriction.
    pub devices: Vec<DeviceRule>,
    /// Raw cgroup v2 files, name to content.
    pub unified: BTreeMap<String, String>,
}

/// Memory limits, in bytes; negative means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Soft limit.
    pub reservation: Option<i64>,
    /// Memory plus swap (v1 `memory.memsw.limit_in_bytes`); translated for v2.
    pub swap: Option<i64>,
    /// 0 to 100, v1 only.
    pub swappiness: Option<u64>,
    /// v1 only: pause instead of kill when the limit is hit.
    pub disable_oom_killer: bool,
}

/// Processor limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// v1 `cpu.shares` (2 to 262144); converted to a weight for v2.
    pub shares: Option<u64>,
    /// Microseconds in each period; negative means unlimited.
    pub quota: Option<i64>,
    /// Length of a period in microseconds.
    pub period: Option<u64>,
    /// Real-time microseconds in each real-time period, v1 only.
    pub realtime_runtime: Option<i64>,
    /// Length of a real-time period in microseconds, v1 only.
    pub realtime_period: Option<u64>,
    /// CPU list, `0-2,5`; empty leaves the parent's.
    pub cpus: String,
    /// Memory node list; empty leaves the parent's.
    pub mems: String,
}

/// Block device weights and rates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockIo {
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// Weight of single devices.
    pub weight_device: Vec<BlockRate>,
    /// Bytes a second.
    pub read_bps: Vec<BlockRate>,
    /// Bytes a second.
    pub write_bps: Vec<BlockRate>,
    /// Operations a second.
    pub read_iops: Vec<BlockRate>,
    /// Operations a second.
    pub write_iops: Vec<BlockRate>,
}

/// A rate or weight of one block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "device number and its value")]
pub struct BlockRate {
    pub major: u32,
    pub minor: u32,
    pub value: u64,
}

/// One rule of device access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `None` means every kind.
    pub kind: Option<DeviceKind>,
    /// `None` means every major number.
    pub major: Option<u32>,
    /// `None` means every minor number.
    pub minor: Option<u32>,
    /// Some of `r`, `w`, `m`.
    pub access: String,
}

/// A network interface inside the container's network namespace. It is put there by the creator, under `name`;
/// the container gives it its addresses and routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// Addresses with prefix lengths, `172.18.0.2/16`, `fd00::2/64`.
    pub addresses: Vec<String>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<String>,
}

/// A process of a container: the first one or one of `exec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments; never empty. The program is looked up in the `PATH` of `env` when it has no slash.
    pub args: Vec<String>,
    /// `NAME=value`; `HOME` is added from the user database of the image when it is missing.
    pub env: Vec<String>,
    /// Absolute working directory inside the container; made when missing.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// System call filter; `None` is unconfined.
    pub seccomp: Option<Seccomp>,
    /// A pseudo-terminal as stdio instead of pipes.
    pub terminal: Option<TerminalSize>,
    /// Without a terminal: a pipe as standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// `/proc/self/oom_score_adj`; `None` inherits.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile, applied with the exec; `None` inherits.
    pub apparmor: Option<String>,
    /// SELinux label, applied with the exec; `None` inherits.
    pub selinux: Option<String>,
}

/// Who runs a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// Numbers, as OCI's `process.user` has them.
    Ids {
        /// User id inside the container.
        uid: u32,
        /// Group id inside the container.
        gid: u32,
        /// Supplementary group ids.
        additional_gids: Vec<u32>,
    },
    /// Docker's form, resolved inside the container by its `/etc/passwd` and `/etc/group`.
    Named {
        /// `user`, `uid`, `user:group`, `uid:gid`, …; empty is root.
        spec: String,
        /// `--group-add`: names or numbers.
        group_add: Vec<String>,
    },
}

/// Capability sets by name, `CAP_CHOWN` (capabilities(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in capabilities(7)")]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

/// A resource limit (getrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub kind: String,
    /// `u64::MAX` is unlimited.
    pub soft: u64,
    /// `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in ioctl_tty(2)")]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// A system call filter in OCI form (runtime-spec, `config-linux.md`, "Seccomp").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// `SCMP_ACT_ERRNO`.
    pub default_action: String,
    /// errno of the default action where it takes one.
    pub default_errno: Option<u32>,
    /// `SCMP_ARCH_X86_64`; the native architecture is always covered.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub flags: Vec<String>,
    /// Rules; the first that matches decides.
    pub rules: Vec<SeccompRule>,
}

/// Some system calls and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRule {
    /// System call names; a name that an architecture does not have is skipped there.
    pub names: Vec<String>,
    /// `SCMP_ACT_ALLOW`.
    pub action: String,
    /// errno or trace value of the action where it takes one.
    pub errno: Option<u32>,
    /// Conditions on arguments; all must hold.
    pub args: Vec<SeccompArg>,
}

/// A condition on one argument of a system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompArg {
    /// 0 to 5.
    pub index: u32,
    /// Compared with, or the mask of `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// The value after masking for `SCMP_CMP_MASKED_EQ`.
    pub value_two: u64,
    /// `SCMP_CMP_EQ`.
    pub op: String,
}
