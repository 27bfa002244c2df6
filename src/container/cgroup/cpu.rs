//! Processor shares, bandwidth, real-time budget and processor sets
//! (`Documentation/scheduler/sched-bwc.rst`, cgroup-v1/cpusets.rst; cgroup-v2.rst, "CPU", "Cpuset").

use std::path::Path;

use super::error::{Error, Result};
use super::limits::Phase;
use super::{Place, Version, files};
use crate::plan::Cpu;

const SHARES: &str = "--cpu-shares";
const QUOTA: &str = "--cpu-quota (--cpus)";
const PERIOD: &str = "--cpu-period";
const REALTIME_RUNTIME: &str = "--cpu-rt-runtime";
const REALTIME_PERIOD: &str = "--cpu-rt-period";
const CPUS: &str = "--cpuset-cpus";
const MEMS: &str = "--cpuset-mems";

/// `cpu.shares` outside of this is silently brought inside by the kernel (`MIN_SHARES`, `MAX_SHARES`).
const SHARES_RANGE: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The first option of the `cpu` controller that is set, if any.
pub(super) fn first_set(cpu: &Cpu) -> Option<&'static str> {
    let set = [
        (cpu.shares.is_some(), SHARES),
        (cpu.quota.is_some(), QUOTA),
        (cpu.period.is_some(), PERIOD),
        (cpu.realtime_runtime.is_some(), REALTIME_RUNTIME),
        (cpu.realtime_period.is_some(), REALTIME_PERIOD),
    ];
    set.into_iter().find_map(|(set, option)| set.then_some(option))
}

/// The first option of the `cpuset` controller that is set, if any.
pub(super) fn first_set_of_sets(cpu: &Cpu) -> Option<&'static str> {
    match (cpu.cpus.is_empty(), cpu.mems.is_empty()) {
        (false, _) => Some(CPUS),
        (true, false) => Some(MEMS),
        (true, true) => None,
    }
}

/// Writes the limits of the `cpu` controller that are set.
pub(super) fn apply(place: &Place, cpu: &Cpu, phase: Phase) -> Result<()> {
    if let Some(shares) = cpu.shares.filter(|shares| !SHARES_RANGE.contains(shares)) {
        let reason = "it must be between 2 and 262144".to_owned();
        return Err(Error::BadValue { setting: SHARES.to_owned(), value: shares.to_string(), reason });
    }
    match place.version {
        Version::V1 => apply_v1(&place.directory, cpu),
        Version::V2 => apply_v2(&place.directory, cpu, phase),
    }
}

fn apply_v1(directory: &Path, cpu: &Cpu) -> Result<()> {
    if let Some(shares) = cpu.shares {
        files::set(SHARES, directory, "cpu.shares", &shares.to_string())?;
    }
    set_bandwidth_v1(directory, cpu)?;
    if let Some(period) = cpu.realtime_period {
        files::set(REALTIME_PERIOD, directory, "cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime {
        let result = files::set(REALTIME_RUNTIME, directory, "cpu.rt_runtime_us", &runtime.to_string());
        return result.map_err(|error| match error {
            Error::Refused { setting, value, source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                let parent = directory.parent().unwrap_or(directory).join("cpu.rt_runtime_us");
                let reason =
                    format!("it must fit in the period and in the budget of its parent ({})", parent.display());
                Error::BadValue { setting, value, reason }
            }
            other => other,
        });
    }
    Ok(())
}

/// Period, then quota: but when the period does not go with the quota of now (EINVAL), the quota goes first.
fn set_bandwidth_v1(directory: &Path, cpu: &Cpu) -> Result<()> {
    let set_period = |period: u64| files::set(PERIOD, directory, "cpu.cfs_period_us", &period.to_string());
    let set_quota = |quota: i64| files::set(QUOTA, directory, "cpu.cfs_quota_us", &quota.max(-1).to_string());
    match (cpu.period, cpu.quota) {
        (Some(period), Some(quota)) => match set_period(period) {
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                set_quota(quota)?;
                set_period(period)
            }
            Err(other) => Err(other),
            Ok(()) => set_quota(quota),
        },
        (period, quota) => {
            period.map_or(Ok(()), set_period)?;
            quota.map_or(Ok(()), set_quota)
        }
    }
}

fn apply_v2(directory: &Path, cpu: &Cpu, phase: Phase) -> Result<()> {
    for (setting, set) in
        [(REALTIME_RUNTIME, cpu.realtime_runtime.is_some()), (REALTIME_PERIOD, cpu.realtime_period.is_some())]
    {
        if set {
            return Err(Error::unsupported(setting, "cgroup v2 has no real-time budget"));
        }
    }
    if let Some(shares) = cpu.shares {
        files::set(SHARES, directory, "cpu.weight", &weight(shares).to_string())?;
    }
    let setting = if cpu.quota.is_some() { QUOTA } else { PERIOD };
    let quota = match (cpu.quota, cpu.period) {
        (None, None) => return Ok(()),
        (Some(quota), _) => super::limits::number_or_max(quota),
        // A new period alone keeps the quota; the file takes both or the quota alone.
        (None, Some(_)) if phase == Phase::Live => {
            let text = files::read(&directory.join("cpu.max"))?;
            text.split_whitespace().next().unwrap_or("max").to_owned()
        }
        (None, Some(_)) => "max".to_owned(),
    };
    let value = cpu.period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
    files::set(setting, directory, "cpu.max", &value)
}

/// `cpu.shares` (2, default 1024, 262144) as a `cpu.weight` (1, default 100, 10000): the parabola through these three
/// points in logarithms, which runc and crun use since 2025, rounded up. With l = log2(shares):
/// log10(weight) = (l² + 125 l) / 612 - 7 / 34.
pub(super) fn weight(shares: u64) -> u64 {
    let l = (shares.clamp(*SHARES_RANGE.start(), *SHARES_RANGE.end()) as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // The subtrahend keeps 100.00000000000001 from becoming 101.
    (10_f64.powf(exponent) - 1e-6).ceil().clamp(1.0, 10_000.0) as u64
}

/// Writes the sets of the `cpuset` controller that are set.
pub(super) fn apply_sets(place: &Place, cpu: &Cpu) -> Result<()> {
    for (setting, file, list) in [(CPUS, "cpuset.cpus", &cpu.cpus), (MEMS, "cpuset.mems", &cpu.mems)] {
        if list.is_empty() {
            continue;
        }
        let bad = |reason: String| Error::BadValue { setting: setting.to_owned(), value: list.clone(), reason };
        let Some(wanted) = parse_list(list) else {
            return Err(bad("it must be a list of numbers and ranges such as 0-2,5".to_owned()));
        };
        if place.version == Version::V2 {
            // v1 refuses what the parent does not have; v2 takes it and then uses the parent's instead.
            let parent = place.directory.parent().unwrap_or(&place.top);
            let effective = files::read_existing(&parent.join(format!("{file}.effective")))?;
            if let Some(effective) = effective {
                let available = parse_list(effective.trim()).unwrap_or_default();
                if !wanted.iter().all(|range| covers(&available, *range)) {
                    return Err(bad(format!("only {} can be had", effective.trim())));
                }
            }
        }
        files::set(setting, &place.directory, file, list)?;
    }
    Ok(())
}

/// A list as the kernel writes them (`cpulist_parse`), as sorted ranges that do not touch; `None` when it is not one.
fn parse_list(list: &str) -> Option<Vec<(u32, u32)>> {
    let mut ranges = Vec::new();
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u32, u32) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        if low > high || high >= 1 << 20 {
            return None;
        }
        ranges.push((low, high));
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if low <= last.1 + 1 => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    Some(merged)
}

fn covers(available: &[(u32, u32)], (low, high): (u32, u32)) -> bool {
    available.iter().any(|range| range.0 <= low && high <= range.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1_000_000, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        // Never falls, and half or double the default is told apart.
        let weights: Vec<u64> = (2..=4096).map(weight).collect();
        assert!(weights.is_sorted());
        assert!(weight(512) < 100 && weight(2048) > 100);
    }

    #[test]
    fn lists_are_sets_of_ranges() {
        assert_eq!(parse_list("5,0-2,3"), Some(vec![(0, 3), (5, 5)]));
        assert_eq!(parse_list("0-1,1-4"), Some(vec![(0, 4)]));
        for bad in ["", "a", "2-1", "0,", "1-2-3", "-1", "99999999"] {
            assert_eq!(parse_list(bad), None, "{bad:?}");
        }
        let available = parse_list("0-3,8").unwrap();
        assert!(covers(&available, (1, 3)) && covers(&available, (8, 8)));
        assert!(!covers(&available, (3, 4)) && !covers(&available, (7, 7)));
    }
}
