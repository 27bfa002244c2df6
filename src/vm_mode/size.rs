//! How large a machine is for a container of a given size.
//!
//! `--memory` means what the application may use, so the machine has the guest kernel's own part on top; the container's
//! limit is enforced by the guest's control group, as on the host.

use sbx_sandbox::cpu_list;
use sbx_sandbox::host_config::HostConfig;

const MIB: u64 = 1 << 20;
/// Memory of a machine whose container has no limit, in bytes. A page of it that nobody has touched costs the host
/// nothing but its share of the guest's page descriptors (64 bytes).
pub const DEFAULT_MEMORY: u64 = 1024 * MIB;
/// What the kernel, the agent and the page cache of an empty machine take, in bytes.
const OWN: u64 = 96 * MIB;
/// Most processors of a machine.
const MOST_CPUS: u32 = 64;

/// Memory and processors of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
}

impl Size {
    /// The machine for a container, on a host with `host_cpus` processors.
    #[must_use]
    pub fn of(host: &HostConfig, host_cpus: u32) -> Self {
        Self { memory: memory(host), cpus: cpus(host, host_cpus).clamp(1, MOST_CPUS) }
    }

    /// What the machine's process may use on the host: the guest's memory and as much again as the process itself needs.
    #[must_use]
    pub fn host_limit(self) -> u64 {
        self.memory + 64 * MIB
    }
}

fn memory(host: &HostConfig) -> u64 {
    let wanted = match u64::try_from(host.memory) {
        Ok(limit) if limit > 0 => limit.saturating_add(OWN).saturating_add(limit / 32),
        _ => DEFAULT_MEMORY,
    };
    wanted.next_multiple_of(2 * MIB)
}

/// As many as the container may use: `--cpuset-cpus` counted, `--cpus` rounded up, else all of the host.
fn cpus(host: &HostConfig, host_cpus: u32) -> u32 {
    let listed = cpu_list::parse(&host.cpuset_cpus).map(|list| u32::try_from(list.len()).unwrap_or(u32::MAX));
    let listed = listed.filter(|count| *count > 0).unwrap_or(host_cpus);
    let whole = |billionths: i64| u32::try_from(billionths.max(0).cast_unsigned().div_ceil(1_000_000_000)).ok();
    let quota = whole(host.nano_cpus).filter(|count| *count > 0).unwrap_or(listed);
    listed.min(quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_the_application_may_use() {
        let host = HostConfig { memory: 256 << 20, ..HostConfig::default() };
        let size = Size::of(&host, 4);
        assert!(size.memory >= (256 << 20) + OWN && size.memory < 400 << 20);
        assert_eq!(Size::of(&HostConfig::default(), 4), Size { memory: DEFAULT_MEMORY, cpus: 4 });
    }

    #[test]
    fn processors_are_rounded_up() {
        let cpus = |nano_cpus, cpuset_cpus: &str| {
            Size::of(&HostConfig { nano_cpus, cpuset_cpus: cpuset_cpus.into(), ..HostConfig::default() }, 8).cpus
        };
        assert_eq!(cpus(1_500_000_000, ""), 2);
        assert_eq!(cpus(0, "0-2"), 3);
        assert_eq!(cpus(500_000_000, "0,1"), 1);
        assert_eq!(cpus(0, ""), 8);
    }
}
