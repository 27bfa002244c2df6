//! What a container uses, from its control groups, its link and the machine.

use std::collections::BTreeMap;
use std::fs;

use sbx_container::cgroup::Cgroup;
use sbx_protocol::{BlockUsage, NetworkUsage, StatsSample};
use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::timestamp::Timestamp;

use crate::error::Error;

/// Nanoseconds of one tick of `/proc/stat`: USER_HZ is 100 on every architecture that we run on (proc_stat(5)).
const TICK: u64 = 10_000_000;

pub(crate) fn sample(
    cgroup: &Cgroup,
    machine: &MachineFacts,
    networks: BTreeMap<String, NetworkUsage>,
) -> Result<StatsSample, Error> {
    let used = cgroup.stats()?;
    let memory = used.memory.unwrap_or_default();
    let pids = used.pids.unwrap_or_default();
    Ok(StatsSample {
        read_at: nanoseconds(Timestamp::now()),
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
    let text = fs::read_to_string("/proc/stat").map_err(Error::io("read /proc/stat"))?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: u64 = first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks * TICK)
}

fn block(counted: &sbx_container::cgroup::BlockStats) -> Vec<BlockUsage> {
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

fn nanoseconds(time: Timestamp) -> i64 {
    time.unix_seconds() * 1_000_000_000 + i64::from(time.subsec_nanos())
}
