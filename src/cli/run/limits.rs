//! `--ulimit` and `--sysctl`.

use std::collections::BTreeMap;

use sbx_sandbox::host_config::Ulimit;

use crate::flags::values::parse_decimal;

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

const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// `nofile=1024:2048`, `core=-1`.
///
/// # Errors
/// An unknown limit, something that is not a number, or a soft limit above the hard one.
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let mut numbers = value.split(':');
    let soft = parse_decimal(numbers.next().unwrap_or_default())?;
    let hard = numbers.next().map_or(Ok(soft), parse_decimal)?;
    if numbers.next().is_some() {
        return Err(format!("too many limit value arguments - {value}, can only have up to two, `soft[:hard]`"));
    }
    if soft == -1 && hard != -1 {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        ));
    }
    if hard != -1 && soft > hard {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// The limits by name; of several with one name the last holds.
pub(crate) fn ulimits(given: &[String]) -> Result<Vec<Ulimit>, String> {
    let mut by_name = BTreeMap::new();
    for text in given {
        let limit = parse_ulimit(text)?;
        by_name.insert(limit.name.clone(), limit);
    }
    Ok(by_name.into_values().collect())
}

pub(crate) fn check_ulimit(text: &str) -> Result<(), String> {
    parse_ulimit(text).map(drop)
}

/// Only parameters that belong to a namespace of the container may be set.
pub(crate) fn check_sysctl(text: &str) -> Result<(), String> {
    let allowed = text
        .split_once('=')
        .is_some_and(|(name, _)| SYSCTLS.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue."));
    if allowed { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}
