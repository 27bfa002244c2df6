//! Memory, processors, tasks, resource limits and devices.
//!
//! Docker discards a limit that the kernel cannot enforce and says so in a warning. Here what a user asks for and
//! nobody would enforce is an error; only what follows from a default is a warning.

use crate::facts::{Controllers, MachineFacts};
use crate::host_config::{HostConfig, Ulimit};
use crate::path::clean_rooted;
use crate::{cpu_list, device_rule};

use super::{Invalid, Resolver, blocks};

/// Bytes; Docker's least limit.
const LEAST_MEMORY: i64 = 6 << 20;
const NANOS: i64 = 1_000_000_000;
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    let machine = resolver.context.machine;
    let swap_warning = memory(&mut resolver.request.host_config, machine)?;
    if let Some(warning) = swap_warning {
        resolver.warn(warning);
    }
    let host = &mut resolver.request.host_config;
    let unlimited_without_killer = oom(host, &machine.controllers)?;
    tasks(host, &machine.controllers, resolver.context.settings.container.pids_limit)?;
    cpu(host, machine)?;
    cpu_sets(host, machine)?;
    realtime(host, &machine.controllers)?;
    blocks::check(host, &machine.controllers)?;
    shared_memory(host, resolver.context.settings.container.shm_size)?;
    ulimits(resolver)?;
    devices(&mut resolver.request.host_config, machine)?;
    if unlimited_without_killer {
        resolver.warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources.",
        );
    }
    Ok(())
}

pub(super) fn lacking(present: bool, asked: bool, field: &'static str, message: &str) -> Result<(), Invalid> {
    if asked && !present { Err(Invalid::new(field, message)) } else { Ok(()) }
}

fn memory(host: &mut HostConfig, machine: &MachineFacts) -> Result<Option<String>, Invalid> {
    let can = &machine.controllers;
    if host.memory != 0 && host.memory < LEAST_MEMORY {
        return Err(Invalid::new("HostConfig.Memory", "Minimum memory limit allowed is 6MB"));
    }
    lacking(
        can.memory,
        host.memory > 0,
        "HostConfig.Memory",
        "--memory: your kernel does not support memory limit capabilities or the cgroup is not mounted",
    )?;
    if host.memory_swap < -1 {
        return Err(Invalid::new("HostConfig.MemorySwap", "--memory-swap: want bytes, or -1 for unlimited swap"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        let message = "Minimum memoryswap limit should be larger than memory limit, see usage";
        return Err(Invalid::new("HostConfig.MemorySwap", message));
    }
    if host.memory == 0 && host.memory_swap > 0 {
        let message = "You should always set the Memory limit when using Memoryswap limit, see usage";
        return Err(Invalid::new("HostConfig.MemorySwap", message));
    }
    lacking(
        can.swap,
        host.memory_swap > 0,
        "HostConfig.MemorySwap",
        "--memory-swap: your kernel does not support swap limit capabilities or the cgroup is not mounted",
    )?;
    swappiness(host, can)?;
    reservation(host, can)?;
    Ok(default_swap(host, can))
}

/// Twice the memory where nothing was said.
fn default_swap(host: &mut HostConfig, can: &Controllers) -> Option<String> {
    if host.memory == 0 || host.memory_swap != 0 {
        return None;
    }
    if can.swap {
        host.memory_swap = host.memory.saturating_mul(2);
        return None;
    }
    host.memory_swap = -1;
    let text = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited \
                without swap.";
    Some(text.to_owned())
}

fn swappiness(host: &mut HostConfig, can: &Controllers) -> Result<(), Invalid> {
    let field = "HostConfig.MemorySwappiness";
    // -1 is how old clients say nothing.
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    let Some(value) = host.memory_swappiness else {
        return Ok(());
    };
    if !(0..=100).contains(&value) {
        let message = format!("Invalid value: {value}, valid memory swappiness range is 0-100");
        return Err(Invalid::new(field, message));
    }
    let message = "--memory-swappiness: your kernel does not support memory swappiness of a control group (cgroup v2 \
                   has none; use --memory-swap)";
    lacking(can.memory_swappiness, true, field, message)
}

fn reservation(host: &HostConfig, can: &Controllers) -> Result<(), Invalid> {
    let field = "HostConfig.MemoryReservation";
    let value = host.memory_reservation;
    if value < 0 || (value > 0 && value < LEAST_MEMORY) {
        return Err(Invalid::new(field, "Minimum memory reservation allowed is 6MB"));
    }
    if host.memory > 0 && value > host.memory {
        let message = "Minimum memory limit can not be less than memory reservation limit, see usage";
        return Err(Invalid::new(field, message));
    }
    let message = "--memory-reservation: your kernel does not support memory soft limit capabilities or the cgroup is \
                   not mounted";
    lacking(can.memory_reservation, value > 0, field, message)
}

fn oom(host: &mut HostConfig, can: &Controllers) -> Result<bool, Invalid> {
    let disabled = host.oom_kill_disable == Some(true);
    lacking(
        can.oom_kill_disable,
        disabled,
        "HostConfig.OomKillDisable",
        "--oom-kill-disable: your kernel does not support OomKillDisable (cgroup v2 has none); use --oom-score-adj",
    )?;
    host.oom_kill_disable = can.oom_kill_disable.then_some(disabled);
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        let message = format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj);
        return Err(Invalid::new("HostConfig.OomScoreAdj", message));
    }
    Ok(disabled && host.memory == 0)
}

fn tasks(host: &mut HostConfig, can: &Controllers, default: i64) -> Result<(), Invalid> {
    let message = "--pids-limit: your kernel does not support PIDs limit capabilities or the cgroup is not mounted";
    let asked = host.pids_limit.is_some_and(|limit| limit > 0);
    lacking(can.pids, asked, "HostConfig.PidsLimit", message)?;
    if host.pids_limit.is_none() && default > 0 && can.pids {
        host.pids_limit = Some(default);
    }
    Ok(())
}

fn cpu(host: &HostConfig, machine: &MachineFacts) -> Result<(), Invalid> {
    let can = &machine.controllers;
    let conflict = |message: &str| Err(Invalid::new("HostConfig.NanoCpus", message));
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return conflict("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return conflict("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if host.nano_cpus > 0 && !can.cpu_bandwidth {
        return conflict(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    if host.nano_cpus < 0 || host.nano_cpus > i64::from(machine.cpus).saturating_mul(NANOS) {
        let cpus = machine.cpus;
        let message = format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available");
        return Err(Invalid::new("HostConfig.NanoCpus", message));
    }
    // Below a millisecond in each period (0.01 processors) the kernel refuses the quota.
    if host.nano_cpus > 0 && host.nano_cpus < NANOS / 100 {
        let cpus = machine.cpus;
        let message = format!("range of CPUs is from 0.01 to {cpus}.00: {} is too little", host.nano_cpus as f64 / 1e9);
        return Err(Invalid::new("HostConfig.NanoCpus", message));
    }
    shares(host, can)?;
    bandwidth(host, can)
}

fn shares(host: &HostConfig, can: &Controllers) -> Result<(), Invalid> {
    let field = "HostConfig.CpuShares";
    if host.cpu_shares < 0 {
        let message = format!("invalid CPU shares ({}): value must be a positive integer", host.cpu_shares);
        return Err(Invalid::new(field, message));
    }
    let message = "--cpu-shares: your kernel does not support CPU shares or the cgroup is not mounted";
    lacking(can.cpu_shares, host.cpu_shares > 0, field, message)?;
    match host.cpu_shares {
        1 => Err(Invalid::new(field, "The minimum allowed cpu-shares is 2")),
        262_145.. => Err(Invalid::new(field, "The maximum allowed cpu-shares is 262144")),
        _ => Ok(()),
    }
}

fn bandwidth(host: &HostConfig, can: &Controllers) -> Result<(), Invalid> {
    let asked = host.cpu_period != 0 || host.cpu_quota != 0;
    let message = "--cpu-period, --cpu-quota: your kernel does not support CPU CFS scheduler";
    lacking(can.cpu_bandwidth, asked, "HostConfig.CpuPeriod", message)?;
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        let message = "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
        return Err(Invalid::new("HostConfig.CpuPeriod", message));
    }
    if (host.cpu_quota > 0 && host.cpu_quota < 1000) || host.cpu_quota < -1 {
        return Err(Invalid::new("HostConfig.CpuQuota", "CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    Ok(())
}

fn cpu_sets(host: &HostConfig, machine: &MachineFacts) -> Result<(), Invalid> {
    let asked = !host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty();
    let message = "--cpuset-cpus, --cpuset-mems: your kernel does not support cpuset or the cgroup is not mounted";
    lacking(machine.controllers.cpuset, asked, "HostConfig.CpusetCpus", message)?;
    for (field, what, list, available, plural) in [
        ("HostConfig.CpusetCpus", "cpuset cpus", &host.cpuset_cpus, &machine.cpu_list, "CPUs"),
        ("HostConfig.CpusetMems", "cpuset mems", &host.cpuset_mems, &machine.memory_nodes, "memory nodes"),
    ] {
        let Some(wanted) = cpu_list::parse(list) else {
            return Err(Invalid::new(field, format!("Invalid value {list} for {what}")));
        };
        if !wanted.is_subset(&cpu_list::parse(available).unwrap_or_default()) {
            let message = format!("Requested {plural} are not available - requested {list}, available: {available}");
            return Err(Invalid::new(field, message));
        }
    }
    Ok(())
}

fn realtime(host: &HostConfig, can: &Controllers) -> Result<(), Invalid> {
    let (period, runtime) = (host.cpu_realtime_period, host.cpu_realtime_runtime);
    let field = "HostConfig.CpuRealtimeRuntime";
    let message =
        "kernel does not support CPU real-time scheduler: --cpu-rt-period and --cpu-rt-runtime cannot be used here";
    lacking(can.cpu_realtime, period != 0 || runtime != 0, field, message)?;
    if period < 0 || runtime < 0 {
        return Err(Invalid::new(field, "cpu real-time period and runtime are microseconds"));
    }
    if period != 0 && runtime > period {
        return Err(Invalid::new(field, "cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    Ok(())
}

fn shared_memory(host: &mut HostConfig, default: i64) -> Result<(), Invalid> {
    if host.shm_size < 0 {
        return Err(Invalid::new("HostConfig.ShmSize", "SHM size can not be less than 0"));
    }
    if host.shm_size == 0 {
        host.shm_size = default;
    }
    Ok(())
}

/// The user's limits, then those of the settings that the user says nothing about.
fn ulimits(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    let field = "HostConfig.Ulimits";
    let limits = &mut resolver.request.host_config.ulimits;
    for (name, limit) in &resolver.context.settings.container.ulimits {
        if !limits.iter().any(|own| own.name == *name) {
            limits.push(Ulimit { name: name.clone(), soft: limit.soft, hard: limit.hard });
        }
    }
    for (index, limit) in limits.iter().enumerate() {
        if !ULIMITS.contains(&limit.name.as_str()) {
            return Err(Invalid::new(field, format!("invalid ulimit type: {}", limit.name)));
        }
        if limit.soft < -1 || limit.hard < -1 {
            return Err(Invalid::new(field, format!("ulimit {}: want a number, or -1 for unlimited", limit.name)));
        }
        let unlimited = |value: i64| if value == -1 { i64::MAX } else { value };
        if unlimited(limit.soft) > unlimited(limit.hard) {
            let message =
                format!("ulimit soft limit must be less than or equal to hard limit: {} > {}", limit.soft, limit.hard);
            return Err(Invalid::new(field, message));
        }
        if limits[..index].iter().any(|other| other.name == limit.name) {
            return Err(Invalid::new(field, format!("duplicate ulimit {}", limit.name)));
        }
    }
    Ok(())
}

fn devices(host: &mut HostConfig, machine: &MachineFacts) -> Result<(), Invalid> {
    let field = "HostConfig.Devices";
    for mapping in &mut host.devices {
        if mapping.path_in_container.is_empty() {
            mapping.path_in_container.clone_from(&mapping.path_on_host);
        }
        if mapping.cgroup_permissions.is_empty() {
            "rwm".clone_into(&mut mapping.cgroup_permissions);
        }
        if !device_rule::is_access(&mapping.cgroup_permissions) {
            return Err(Invalid::new(field, format!("invalid device mode: {}", mapping.cgroup_permissions)));
        }
        for path in [&mut mapping.path_on_host, &mut mapping.path_in_container] {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(Invalid::new(field, format!("bad format for path: {path}: a device is an absolute path")));
            }
            *path = clean_rooted(path);
        }
    }
    for rule in &host.device_cgroup_rules {
        device_rule::parse(rule).map_err(|error| Invalid::new("HostConfig.DeviceCgroupRules", error.to_string()))?;
    }
    let asked = !host.devices.is_empty() || !host.device_cgroup_rules.is_empty();
    let message = "--device, --device-cgroup-rule: your kernel cannot restrict devices";
    lacking(machine.controllers.devices, asked && !host.privileged, field, message)
}
