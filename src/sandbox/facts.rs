//! What a decision needs to know of the machine and of the image: plain data, gathered by the caller.
//!
//! Nothing here is looked up by this crate, so that a decision can be tested for machines that are not at hand, and
//! so that the same decision can be taken for the kernel of a virtual machine.

use sbx_container::plan::IdMaps;
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The kernel and hardware that will run the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Major and minor version, `(6, 12)`.
    pub kernel: (u32, u32),
    /// `linux/amd64`.
    pub platform: String,
    /// The host's own name (`uname -n`).
    pub hostname: String,
    /// Processors that are online.
    pub cpus: u32,
    /// Processors as a CPU list, `/sys/devices/system/cpu/online`: `0-3`.
    pub cpu_list: String,
    /// Memory nodes as a list, `/sys/devices/system/node/online`: `0`.
    pub memory_nodes: String,
    /// Bytes.
    pub memory: u64,
    /// How control groups are mounted.
    pub cgroup: CgroupVersion,
    /// What the control groups can do.
    pub controllers: Controllers,
    /// Control groups are managed by systemd (`cgroup_parent` is a slice).
    pub systemd_cgroups: bool,
    /// Namespaces besides mount, pid, ipc, uts and net, which every supported kernel has.
    pub namespaces: NamespaceSupport,
    /// `/proc/sys/kernel/cap_last_cap`.
    pub cap_last_cap: u8,
    /// AppArmor is enabled (`/sys/module/apparmor/parameters/enabled`).
    pub apparmor: bool,
    /// SELinux is enabled (`/sys/fs/selinux`).
    pub selinux: bool,
    /// Filters of system calls can be loaded.
    pub seccomp: bool,
    /// Processor numbers with a `/sys/devices/system/cpu/cpuN/thermal_throttle`.
    pub thermal_throttle: Vec<u32>,
    /// `/proc/sys/net/ipv4/ip_forward` is 1.
    pub ipv4_forwarding: bool,
    /// Ids that a new user namespace gets; `None` when no range is set aside for us.
    pub id_maps: Option<IdMaps>,
    /// Why no virtual machine can be run here; `None` when one can.
    pub vm_obstacle: Option<String>,
}

/// How control groups are mounted (cgroups(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// Version 1 hierarchies only.
    V1,
    /// Version 1 for controllers, version 2 beside them without.
    Hybrid,
    /// One version 2 hierarchy.
    V2,
}

/// What the control groups of the machine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one field for each option of a container; comments name the kernel's file")]
pub struct Controllers {
    /// `memory.max` or `memory.limit_in_bytes`.
    pub memory: bool,
    /// `memory.swap.max` or `memory.memsw.limit_in_bytes`.
    pub swap: bool,
    /// `memory.low` or `memory.soft_limit_in_bytes`.
    pub memory_reservation: bool,
    /// `memory.swappiness`, version 1 only.
    pub memory_swappiness: bool,
    /// `memory.oom_control`, version 1 only.
    pub oom_kill_disable: bool,
    /// `cpu.weight` or `cpu.shares`.
    pub cpu_shares: bool,
    /// `cpu.max` or `cpu.cfs_quota_us`.
    pub cpu_bandwidth: bool,
    /// `cpu.rt_runtime_us`, version 1 with CONFIG_RT_GROUP_SCHED only.
    pub cpu_realtime: bool,
    pub cpuset: bool,
    pub pids: bool,
    /// `io.weight`, `io.bfq.weight` or `blkio.weight`.
    pub block_weight: bool,
    /// Weight of single devices.
    pub block_weight_device: bool,
    /// `io.max` or `blkio.throttle.*`.
    pub block_throttle: bool,
    /// The devices controller of version 1, or BPF on version 2.
    pub devices: bool,
}

impl Controllers {
    /// Everything that version 2 offers.
    pub const ALL_V2: Self = Self {
        memory: true,
        swap: true,
        memory_reservation: true,
        memory_swappiness: false,
        oom_kill_disable: false,
        cpu_shares: true,
        cpu_bandwidth: true,
        cpu_realtime: false,
        cpuset: true,
        pids: true,
        block_weight: true,
        block_weight_device: true,
        block_throttle: true,
        devices: true,
    };

    /// Everything that version 1 offers, without real-time groups.
    pub const ALL_V1: Self = Self { memory_swappiness: true, oom_kill_disable: true, ..Self::ALL_V2 };
}

/// Namespaces that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one field for each kind of namespaces(7)")]
pub struct NamespaceSupport {
    pub user: bool,
    pub cgroup: bool,
    pub time: bool,
}

/// What a decision needs to know of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageFacts {
    /// Digest of its configuration, `sha256:…`: its id.
    pub id: String,
    /// Digest of its manifest, `sha256:…`; empty when it did not come from a registry.
    pub digest: String,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// The execution part of its configuration, in Docker's form.
    pub config: Config,
}
