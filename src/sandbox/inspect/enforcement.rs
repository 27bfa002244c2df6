//! Where each limit that was set is enforced: sbx's own block of `inspect`.
//!
//! A limit that is set and not in this list would be one that nobody enforces, so the list is made from the same
//! fields that the OCI configuration is made from.

use std::collections::BTreeMap;

use crate::isolation::Mode;
use crate::spec::{SandboxSpec, SeccompChoice};

#[derive(Clone, Copy)]
enum Kind {
    Cgroup,
    /// Of what the host has and a machine has not: its processors and its disks.
    HostCgroup,
    Kernel,
    Network,
    Supervisor,
}

fn place(mode: Mode, kind: Kind) -> &'static str {
    match (mode, kind) {
        (Mode::Process, Kind::Cgroup) | (_, Kind::HostCgroup) => "host cgroup",
        (Mode::Process, Kind::Kernel) => "host kernel",
        (Mode::Vm, Kind::Cgroup) => "guest cgroup",
        (Mode::Vm, Kind::Kernel) => "guest kernel",
        (_, Kind::Network) => "network",
        (_, Kind::Supervisor) => "supervisor",
    }
}

/// Field of the Engine API → place.
pub(super) fn enforcement(spec: &SandboxSpec) -> BTreeMap<&'static str, &'static str> {
    let mode = spec.isolation.isolation;
    let all = [
        (Kind::Cgroup, limits(spec)),
        (Kind::HostCgroup, limits_of_the_host(spec)),
        (Kind::Kernel, kernel(spec)),
        (Kind::Network, network(spec)),
        (Kind::Supervisor, supervisor(spec)),
    ];
    let mut places = BTreeMap::new();
    for (kind, fields) in all {
        for (field, set) in fields {
            if set {
                places.insert(field, place(mode, kind));
            }
        }
    }
    places
}

fn limits(spec: &SandboxSpec) -> Vec<(&'static str, bool)> {
    let host = &spec.host_config;
    vec![
        ("Memory", host.memory > 0),
        ("MemoryReservation", host.memory_reservation > 0),
        ("MemorySwap", host.memory > 0 && host.memory_swap != 0),
        ("MemorySwappiness", host.memory_swappiness.is_some()),
        ("OomKillDisable", host.oom_kill_disable == Some(true)),
        ("NanoCpus", host.nano_cpus > 0),
        ("CpuShares", host.cpu_shares > 0),
        ("CpuPeriod", host.cpu_period > 0),
        ("CpuQuota", host.cpu_quota != 0),
        ("CpuRealtimePeriod", host.cpu_realtime_period > 0),
        ("CpuRealtimeRuntime", host.cpu_realtime_runtime > 0),
        ("PidsLimit", host.pids_limit.is_some_and(|limit| limit > 0)),
        ("BlkioWeight", host.blkio_weight > 0),
        ("Devices", !host.devices.is_empty()),
        ("DeviceCgroupRules", !host.device_cgroup_rules.is_empty()),
    ]
}

fn limits_of_the_host(spec: &SandboxSpec) -> Vec<(&'static str, bool)> {
    let host = &spec.host_config;
    vec![
        ("CpusetCpus", !host.cpuset_cpus.is_empty()),
        ("CpusetMems", !host.cpuset_mems.is_empty()),
        ("BlkioWeightDevice", !host.blkio_weight_device.is_empty()),
        ("BlkioDeviceReadBps", !host.blkio_device_read_bps.is_empty()),
        ("BlkioDeviceWriteBps", !host.blkio_device_write_bps.is_empty()),
        ("BlkioDeviceReadIOps", !host.blkio_device_read_iops.is_empty()),
        ("BlkioDeviceWriteIOps", !host.blkio_device_write_iops.is_empty()),
    ]
}

fn kernel(spec: &SandboxSpec) -> Vec<(&'static str, bool)> {
    let host = &spec.host_config;
    let confined = !matches!(
        (&spec.security.seccomp, host.privileged),
        (SeccompChoice::Unconfined, _) | (SeccompChoice::Default, true)
    );
    vec![
        ("Capabilities", !host.privileged),
        ("Seccomp", confined),
        ("NoNewPrivileges", spec.security.no_new_privileges),
        ("AppArmor", spec.security.apparmor.is_some()),
        ("Ulimits", !host.ulimits.is_empty()),
        ("ReadonlyRootfs", host.readonly_rootfs),
        ("MaskedPaths", host.masked_paths.as_ref().is_some_and(|paths| !paths.is_empty())),
        ("ReadonlyPaths", host.readonly_paths.as_ref().is_some_and(|paths| !paths.is_empty())),
        ("ShmSize", host.ipc_mode != "host" && host.ipc_mode != "none" && !host.ipc_mode.starts_with("container:")),
        ("Tmpfs", !host.tmpfs.is_empty()),
        ("Sysctls", !host.sysctls.is_empty()),
        ("OomScoreAdj", host.oom_score_adj != 0),
        ("UsernsMode", host.userns_mode == "private"),
    ]
}

fn network(spec: &SandboxSpec) -> Vec<(&'static str, bool)> {
    let host = &spec.host_config;
    vec![
        ("PortBindings", !host.port_bindings.is_empty()),
        ("PublishAllPorts", host.publish_all_ports),
        ("MacAddress", !spec.config.mac_address.is_empty()),
        ("Addresses", spec.networking.endpoints_config.values().any(|endpoint| endpoint.ipam_config.is_some())),
    ]
}

fn supervisor(spec: &SandboxSpec) -> Vec<(&'static str, bool)> {
    let host = &spec.host_config;
    let probed = spec.config.healthcheck.as_ref().and_then(|check| check.test.first());
    vec![
        ("RestartPolicy", host.restart_policy.name != "no" && !host.restart_policy.name.is_empty()),
        ("AutoRemove", host.auto_remove),
        ("Healthcheck", probed.is_some_and(|kind| kind != "NONE")),
        ("LogConfig", !host.log_config.config.is_empty()),
        ("StopTimeout", spec.config.stop_timeout.is_some()),
    ]
}
