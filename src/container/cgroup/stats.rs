//! What a cgroup has used, in the form that both `stats` and the API show it.

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use super::error::Result;
use super::{Cgroup, Place, Version, files};

/// What a cgroup and those nested in it have used so far and may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory; `None` where the memory controller is not available.
    pub memory: Option<MemoryStats>,
    /// Tasks; `None` where the pids controller is not available.
    pub pids: Option<PidsStats>,
    /// Block devices; empty where the controller is not available or nothing has been read or written.
    pub block: BlockStats,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub kernel_ns: u64,
    /// By processor number; empty on v2, which does not tell.
    pub per_cpu_ns: Vec<u64>,
    /// Processors that are online in the system.
    pub online_cpus: u32,
    /// Enforcement periods that have passed (`--cpus`).
    pub periods: u64,
    /// Of these, how many ended with the quota used up.
    pub throttled_periods: u64,
    /// How long tasks had to wait for a new period, summed over processors.
    pub throttled_ns: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage: u64,
    /// The highest use so far; `None` where the kernel does not tell (v2 before Linux 5.19).
    pub max_usage: Option<u64>,
    /// `None` means unlimited.
    pub limit: Option<u64>,
    /// Swap in use; `None` without swap accounting.
    pub swap: Option<u64>,
    /// Limit of swap alone; `None` means unlimited or not accounted.
    pub swap_limit: Option<u64>,
    /// Page cache.
    pub cache: u64,
    /// Page cache that can be given up first; what is left of `usage` without it is what people call "memory used".
    pub inactive_file: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Processes killed because the limit was hit.
    pub oom_kills: u64,
    /// Every number of `memory.stat` as the kernel names it, which differs between v1 and v2.
    pub detail: BTreeMap<String, u64>,
}

impl MemoryStats {
    /// `usage` less `inactive_file`: the number in the MEM USAGE column of `stats`.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

/// Tasks (threads count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// `None` means unlimited.
    pub limit: Option<u64>,
}

/// Block device traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStats {
    /// Bytes, by device and operation.
    pub bytes: Vec<BlockCount>,
    /// Operations, by device and operation.
    pub operations: Vec<BlockCount>,
}

impl BlockStats {
    /// Bytes read and written, over all devices: the two numbers of the BLOCK I/O column of `stats`.
    pub fn total_bytes(&self) -> (u64, u64) {
        let sum = |wanted: &str| {
            let wanted = self.bytes.iter().filter(|count| count.operation.eq_ignore_ascii_case(wanted));
            wanted.fold(0, |sum: u64, count| sum.saturating_add(count.value))
        };
        (sum("read"), sum("write"))
    }
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCount {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// `read`, `write`, `discard`; v1 also `sync`, `async`, `total`. In lower case.
    pub operation: String,
    /// Bytes or operations.
    pub value: u64,
}

impl Cgroup {
    /// Reads everything. A cgroup that is gone reads as zero.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            cpu: self.cpu_stats()?,
            memory: match self.place("memory") {
                None => None,
                Some(place) if place.version == Version::V1 => memory_v1(&place.directory)?,
                Some(place) => memory_v2(&place.directory)?,
            },
            pids: self.place("pids").map_or(Ok(None), |place| pids(&place.directory))?,
            block: match self.place("io") {
                None => BlockStats::default(),
                Some(place) if place.version == Version::V1 => block_v1(&place.directory)?,
                Some(place) => block_v2(&place.directory)?,
            },
        })
    }

    /// v1 has time in `cpuacct` and throttling in `cpu`; v2 has both in `cpu.stat`, the time of every cgroup, the
    /// throttling with the controller.
    fn cpu_stats(&self) -> Result<CpuStats> {
        let mut stats = CpuStats { online_cpus: online_cpus(), ..CpuStats::default() };
        let v2 = self.places.iter().find(|place| place.version == Version::V2);
        if let Some(place) = self.places.iter().find(|place| place.has("cpuacct")) {
            time_v1(&place.directory, &mut stats)?;
        } else if let Some(text) = read_of(v2, "cpu.stat")? {
            let micros = |key: &str| files::keyed(&text, key).unwrap_or(0).saturating_mul(1000);
            stats.usage_ns = micros("usage_usec");
            stats.user_ns = micros("user_usec");
            stats.kernel_ns = micros("system_usec");
        }
        if let Some(text) = read_of(self.place("cpu"), "cpu.stat")? {
            let value = |key: &str| files::keyed(&text, key);
            stats.periods = value("nr_periods").unwrap_or(0);
            stats.throttled_periods = value("nr_throttled").unwrap_or(0);
            let v2 = value("throttled_usec").map(|micros| micros.saturating_mul(1000));
            stats.throttled_ns = value("throttled_time").or(v2).unwrap_or(0);
        }
        Ok(stats)
    }
}

fn read_of(place: Option<&Place>, file: &str) -> Result<Option<String>> {
    place.map_or(Ok(None), |place| files::read_existing(&place.directory.join(file)))
}

fn online_cpus() -> u32 {
    let count = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

fn time_v1(directory: &Path, stats: &mut CpuStats) -> Result<()> {
    stats.usage_ns = files::read_number(&directory.join("cpuacct.usage"))?.unwrap_or(0);
    if let Some(text) = files::read_existing(&directory.join("cpuacct.usage_percpu"))? {
        stats.per_cpu_ns = text.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    }
    if let Some(text) = files::read_existing(&directory.join("cpuacct.stat"))? {
        // In ticks of USER_HZ, which is 100 on every supported machine but is asked for all the same.
        let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u64::try_from(hertz).ok());
        let tick = 1_000_000_000 / hertz.filter(|&hertz| hertz > 0).unwrap_or(100);
        stats.user_ns = files::keyed(&text, "user").unwrap_or(0).saturating_mul(tick);
        stats.kernel_ns = files::keyed(&text, "system").unwrap_or(0).saturating_mul(tick);
    }
    Ok(())
}

/// Every line of a flat keyed file.
fn flat(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
}

fn memory_v1(directory: &Path) -> Result<Option<MemoryStats>> {
    let path = |file: &str| directory.join(file);
    let Some(detail) = files::read_existing(&path("memory.stat"))? else {
        return Ok(None);
    };
    let detail = flat(&detail);
    let of = |key: &str| detail.get(key).copied().unwrap_or(0);
    let usage = files::read_number(&path("memory.usage_in_bytes"))?.unwrap_or(0);
    let limit = files::read_limit(&path("memory.limit_in_bytes"))?;
    let both = files::read_number(&path("memory.memsw.usage_in_bytes"))?;
    let both_limit = files::read_limit(&path("memory.memsw.limit_in_bytes"))?;
    let control = files::read_existing(&path("memory.oom_control"))?.unwrap_or_default();
    // The counter of memory plus swap is charged first, and what it refuses the other one does not see.
    let failures = |file: &str| -> Result<u64> { Ok(files::read_number(&path(file))?.unwrap_or(0)) };
    Ok(Some(MemoryStats {
        usage,
        max_usage: files::read_number(&path("memory.max_usage_in_bytes"))?,
        limit,
        swap: both.map(|both| both.saturating_sub(usage)),
        swap_limit: both_limit.zip(limit).map(|(both, limit)| both.saturating_sub(limit)),
        // The names with `total_` include nested cgroups, like every other number here.
        cache: of("total_cache"),
        inactive_file: of("total_inactive_file"),
        failures: failures("memory.failcnt")? + failures("memory.memsw.failcnt")?,
        oom_kills: files::keyed(&control, "oom_kill").unwrap_or(0),
        detail,
    }))
}

fn memory_v2(directory: &Path) -> Result<Option<MemoryStats>> {
    let path = |file: &str| directory.join(file);
    let Some(detail) = files::read_existing(&path("memory.stat"))? else {
        return Ok(None);
    };
    let detail = flat(&detail);
    let of = |key: &str| detail.get(key).copied().unwrap_or(0);
    let events = files::read_existing(&path("memory.events"))?.unwrap_or_default();
    Ok(Some(MemoryStats {
        usage: files::read_number(&path("memory.current"))?.unwrap_or(0),
        max_usage: files::read_number(&path("memory.peak"))?,
        limit: files::read_limit(&path("memory.max"))?,
        swap: files::read_number(&path("memory.swap.current"))?,
        swap_limit: files::read_limit(&path("memory.swap.max"))?,
        cache: of("file"),
        inactive_file: of("inactive_file"),
        failures: files::keyed(&events, "max").unwrap_or(0),
        oom_kills: files::keyed(&events, "oom_kill").unwrap_or(0),
        detail,
    }))
}

fn pids(directory: &Path) -> Result<Option<PidsStats>> {
    let Some(current) = files::read_number(&directory.join("pids.current"))? else {
        return Ok(None);
    };
    Ok(Some(PidsStats { current, limit: files::read_limit(&directory.join("pids.max"))? }))
}

/// BFQ counts what it schedules; the throttling layer counts everything, in two files of the same form.
fn block_v1(directory: &Path) -> Result<BlockStats> {
    let counts = |files: [&str; 2]| -> Result<Vec<BlockCount>> {
        for file in files {
            let text = files::read_existing(&directory.join(file))?.unwrap_or_default();
            let counts: Vec<BlockCount> = text.lines().filter_map(count_v1).collect();
            if !counts.is_empty() {
                return Ok(counts);
            }
        }
        Ok(Vec::new())
    };
    Ok(BlockStats {
        bytes: counts(["blkio.throttle.io_service_bytes_recursive", "blkio.bfq.io_service_bytes_recursive"])?,
        operations: counts(["blkio.throttle.io_serviced_recursive", "blkio.bfq.io_serviced_recursive"])?,
    })
}

/// `8:0 Read 4096`; the last line, `Total 4096`, is of no device.
fn count_v1(line: &str) -> Option<BlockCount> {
    let mut fields = line.split(' ');
    let (major, minor) = fields.next()?.split_once(':')?;
    let operation = fields.next()?.to_ascii_lowercase();
    let value = fields.next()?.trim().parse().ok()?;
    Some(BlockCount { major: major.parse().ok()?, minor: minor.parse().ok()?, operation, value })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` (cgroup-v2.rst, "io.stat").
fn block_v2(directory: &Path) -> Result<BlockStats> {
    let text = files::read_existing(&directory.join("io.stat"))?.unwrap_or_default();
    let mut stats = BlockStats::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let numbers = fields.next().and_then(|device| device.split_once(':'));
        let Some((major, minor)) = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, operation) = match key {
                "rbytes" => (&mut stats.bytes, "read"),
                "wbytes" => (&mut stats.bytes, "write"),
                "dbytes" => (&mut stats.bytes, "discard"),
                "rios" => (&mut stats.operations, "read"),
                "wios" => (&mut stats.operations, "write"),
                "dios" => (&mut stats.operations, "discard"),
                _ => continue,
            };
            list.push(BlockCount { major, minor, operation: operation.to_owned(), value });
        }
    }
    Ok(stats)
}
