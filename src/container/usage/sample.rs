//! What a container uses, from its control groups, its link and the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{BlockUsage, NetworkUsage, StatsSample};
use crate::cgroup::{BlockStats, Cgroup};
use crate::error::{Error, Step};

/// Nanoseconds of one tick of `/proc/stat`: USER_HZ is 100 on every architecture that we run on (proc_stat(5)).
const TICK: u64 = 10_000_000;

/// What the machine has, as far as a sample tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Processors online.
    pub cpus: u32,
    /// Memory in bytes: the limit of a container that has none.
    pub memory: u64,
}

/// What the processes in `cgroup` use; `networks` are the counters of the container's interfaces, from its side.
pub fn sample(
    cgroup: &Cgroup,
    machine: Machine,
    networks: BTreeMap<String, NetworkUsage>,
) -> Result<StatsSample, Error> {
    let used = cgroup.stats().map_err(|error| Error::new("read the control group's counters", error))?;
    let memory = used.memory.unwrap_or_default();
    let pids = used.pids.unwrap_or_default();
    Ok(StatsSample {
        read_at: now(),
        cpu_total: used.cpu.usage_ns,
        cpu_user: used.cpu.user_ns,
        cpu_system: used.cpu.kernel_ns,
        machine_cpu: machine_cpu()?,
        online_cpus: machine.cpus,
        throttling: (used.cpu.periods, used.cpu.throttled_periods, used.cpu.throttled_ns),
        memory_used: memory.working_set(),
        memory_usage: memory.usage,
        memory_max: memory.max_usage.unwrap_or(0),
        memory_limit: memory.limit.map_or(machine.memory, |limit| limit.min(machine.memory)),
        memory_details: memory.detail,
        pids: pids.current,
        pids_limit: pids.limit.unwrap_or(0),
        networks,
        block: block(&used.block),
    })
}

/// Processor time of the whole machine in nanoseconds, as Docker sums it: user, nice, system, idle, iowait, irq,
/// softirq and steal.
fn machine_cpu() -> Result<u64, Error> {
    let text = fs::read_to_string("/proc/stat").step(|| "read /proc/stat".into())?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: u64 = first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks * TICK)
}

fn block(counted: &BlockStats) -> Vec<BlockUsage> {
    let mut devices: BTreeMap<(u32, u32), BlockUsage> = BTreeMap::new();
    for (counts, is_bytes) in [(&counted.bytes, true), (&counted.operations, false)] {
        for count in counts {
            let key = (count.major, count.minor);
            let usage =
                devices.entry(key).or_insert(BlockUsage { major: key.0, minor: key.1, ..BlockUsage::default() });
            match (is_bytes, count.operation.to_ascii_lowercase().as_str()) {
                (true, "read") => usage.read_bytes = count.value,
                (true, "write") => usage.write_bytes = count.value,
                (false, "read") => usage.reads = count.value,
                (false, "write") => usage.writes = count.value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
