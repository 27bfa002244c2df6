//! Memory limits (`Documentation/admin-guide/cgroup-v1/memory.rst`; cgroup-v2.rst, "Memory").
//!
//! v1 limits memory plus swap, v2 swap alone, so v2 gets the difference. v1 further keeps "memory plus swap is not
//! below memory" true at every write, so the order of two writes depends on which way the limits move.

use std::path::Path;

use super::error::{Error, Result};
use super::limits::{Phase, number_or_max};
use super::{Place, Version, files};
use crate::plan::Memory;

const LIMIT: &str = "--memory";
const SWAP: &str = "--memory-swap";
const RESERVATION: &str = "--memory-reservation";
const SWAPPINESS: &str = "--memory-swappiness";
const OOM_KILL_DISABLE: &str = "--oom-kill-disable";

/// The first option that is set, if any.
pub(super) fn first_set(memory: &Memory) -> Option<&'static str> {
    let set = [
        (memory.limit.is_some(), LIMIT),
        (memory.swap.is_some(), SWAP),
        (memory.reservation.is_some(), RESERVATION),
        (memory.swappiness.is_some(), SWAPPINESS),
        (memory.disable_oom_killer, OOM_KILL_DISABLE),
    ];
    set.into_iter().find_map(|(set, option)| set.then_some(option))
}

/// Writes the limits that are set.
pub(super) fn apply(place: &Place, memory: &Memory, phase: Phase) -> Result<()> {
    if let Some(swappiness) = memory.swappiness.filter(|&swappiness| swappiness > 100) {
        let (setting, value) = (SWAPPINESS.to_owned(), swappiness.to_string());
        return Err(Error::BadValue { setting, value, reason: "it must be between 0 and 100".to_owned() });
    }
    match place.version {
        Version::V1 => apply_v1(&place.directory, memory, phase),
        Version::V2 => apply_v2(&place.directory, memory),
    }
}

fn apply_v1(directory: &Path, memory: &Memory, phase: Phase) -> Result<()> {
    let swap = match (memory.swap, memory.limit) {
        (Some(swap), _) => Some(swap),
        // Memory cannot become unlimited below a limit of memory plus swap.
        (None, Some(limit)) if limit < 0 && phase == Phase::Live => Some(-1),
        (None, _) => None,
    };
    match (memory.limit, swap) {
        (Some(limit), Some(swap)) if swap_goes_first(directory, swap, phase)? => {
            set_swap_v1(directory, swap)?;
            set_limit_v1(directory, limit)?;
        }
        (limit, swap) => {
            limit.map_or(Ok(()), |limit| set_limit_v1(directory, limit))?;
            swap.map_or(Ok(()), |swap| set_swap_v1(directory, swap))?;
        }
    }
    if let Some(reservation) = memory.reservation {
        let value = reservation.max(-1).to_string();
        files::set(RESERVATION, directory, "memory.soft_limit_in_bytes", &value)?;
    }
    if let Some(swappiness) = memory.swappiness {
        files::set(SWAPPINESS, directory, "memory.swappiness", &swappiness.to_string())?;
    }
    if memory.disable_oom_killer {
        files::set(OOM_KILL_DISABLE, directory, "memory.oom_control", "1")?;
    }
    Ok(())
}

/// The limit of memory plus swap is written first when it is not below the memory limit of now.
fn swap_goes_first(directory: &Path, swap: i64, phase: Phase) -> Result<bool> {
    if phase == Phase::Fresh || swap < 0 {
        return Ok(phase == Phase::Live);
    }
    let current = files::read_limit(&directory.join("memory.limit_in_bytes"))?;
    Ok(current.is_some_and(|current| swap.unsigned_abs() >= current))
}

fn set_limit_v1(directory: &Path, limit: i64) -> Result<()> {
    let result = files::set(LIMIT, directory, "memory.limit_in_bytes", &limit.max(-1).to_string());
    match result {
        Err(Error::Refused { value, source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            let used = files::read_number(&directory.join("memory.usage_in_bytes"))?.unwrap_or(0);
            let reason = format!("{used} bytes are in use and cannot be reclaimed");
            Err(Error::BadValue { setting: LIMIT.to_owned(), value, reason })
        }
        other => other,
    }
}

fn set_swap_v1(directory: &Path, swap: i64) -> Result<()> {
    let file = "memory.memsw.limit_in_bytes";
    if !directory.join(file).exists() {
        return without_swap_accounting(swap, file);
    }
    files::set(SWAP, directory, file, &swap.max(-1).to_string())
}

fn apply_v2(directory: &Path, memory: &Memory) -> Result<()> {
    if memory.swappiness.is_some() {
        return Err(Error::unsupported(SWAPPINESS, "cgroup v2 has no swappiness of its own for a cgroup"));
    }
    if memory.disable_oom_killer {
        return Err(Error::unsupported(OOM_KILL_DISABLE, "cgroup v2 cannot switch the OOM killer off for a cgroup"));
    }
    if let Some(swap) = memory.swap {
        let limit = match memory.limit {
            Some(limit) => u64::try_from(limit).ok(),
            None => files::read_limit(&directory.join("memory.max"))?,
        };
        let file = "memory.swap.max";
        let value = swap_alone(limit, swap)?;
        if directory.join(file).exists() {
            files::set(SWAP, directory, file, &value)?;
        } else {
            without_swap_accounting(swap, file)?;
        }
    }
    if let Some(limit) = memory.limit {
        files::set(LIMIT, directory, "memory.max", &number_or_max(limit))?;
    }
    if let Some(reservation) = memory.reservation {
        // v1's "no soft limit" is v2's "nothing is protected"; `max` would protect everything.
        files::set(RESERVATION, directory, "memory.low", &reservation.max(0).to_string())?;
    }
    Ok(())
}

/// v2 limits swap alone: the limit of memory plus swap, less that of memory.
fn swap_alone(limit: Option<u64>, swap: i64) -> Result<String> {
    let bad = |reason: &str| {
        Err(Error::BadValue { setting: SWAP.to_owned(), value: swap.to_string(), reason: reason.to_owned() })
    };
    let Ok(total) = u64::try_from(swap) else {
        return Ok("max".to_owned());
    };
    match limit {
        None => bad("it needs a memory limit (--memory) to be the rest of"),
        Some(limit) => match total.checked_sub(limit) {
            Some(rest) => Ok(rest.to_string()),
            None => bad("memory plus swap cannot be less than memory"),
        },
    }
}

/// Without the file nothing can be limited; that is an error unless there is nothing to limit.
fn without_swap_accounting(swap: i64, file: &str) -> Result<()> {
    // /proc/swaps exists exactly in kernels that can swap (CONFIG_SWAP): in others memory plus swap is memory.
    if swap < 0 || !Path::new("/proc/swaps").exists() {
        return Ok(());
    }
    Err(Error::unsupported(SWAP, format!("swap accounting is not available ({file} is missing)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_of_v2_is_the_rest() {
        assert_eq!(swap_alone(Some(100), 300).unwrap(), "200");
        assert_eq!(swap_alone(Some(100), 100).unwrap(), "0");
        assert_eq!(swap_alone(Some(100), -1).unwrap(), "max");
        assert_eq!(swap_alone(None, -1).unwrap(), "max");
        let error = swap_alone(Some(300), 100).unwrap_err().to_string();
        assert!(error.starts_with("--memory-swap: \"100\""), "{error}");
        assert!(swap_alone(None, 100).unwrap_err().to_string().contains("--memory"));
    }

    #[test]
    fn a_missing_swap_file_is_named() {
        let error = without_swap_accounting(1 << 30, "memory.memsw.limit_in_bytes").unwrap_err().to_string();
        let expected = "--memory-swap: swap accounting is not available (memory.memsw.limit_in_bytes is missing)";
        assert_eq!(error, expected);
        without_swap_accounting(-1, "memory.swap.max").unwrap();
    }
}
