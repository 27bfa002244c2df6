//! What this machine can do, looked up cheaply enough for every start.

use std::fs;
use std::path::Path;

use sbx_container::cgroup::{Hierarchies, Mode};
use sbx_container::plan::{IdMap, IdMaps};
use sbx_sandbox::facts::{CgroupVersion, Controllers, MachineFacts, NamespaceSupport};

/// First id, on the host, of the range that user namespaces of containers get when `/etc/subuid` sets none aside.
const FALLBACK_IDS: u32 = 1_000_000_000;
/// Ids of a user namespace.
const ID_COUNT: u32 = 65_536;
/// Whose line of `/etc/subuid` and `/etc/subgid` is taken.
const ID_OWNERS: [&str; 2] = ["sbx", "root"];

/// Looks everything up.
pub(crate) fn machine() -> MachineFacts {
    let system = nix::sys::utsname::uname().ok();
    let field = |take: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        system.as_ref().map(|system| take(system).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let release = field(nix::sys::utsname::UtsName::release);
    let hierarchies = Hierarchies::detect().ok();
    let cpu_list = read("/sys/devices/system/cpu/online");
    MachineFacts {
        kernel: kernel_version(&release),
        platform: format!("linux/{}", architecture(&field(nix::sys::utsname::UtsName::machine))),
        hostname: field(nix::sys::utsname::UtsName::nodename),
        cpus: count_of_list(&cpu_list).max(1),
        thermal_throttle: thermal_throttle(&cpu_list),
        cpu_list,
        memory_nodes: read("/sys/devices/system/node/online"),
        memory: memory(),
        cgroup: match hierarchies.as_ref().map(Hierarchies::mode) {
            Some(Mode::V1) => CgroupVersion::V1,
            Some(Mode::Hybrid) => CgroupVersion::Hybrid,
            Some(Mode::V2) | None => CgroupVersion::V2,
        },
        controllers: hierarchies.as_ref().map_or(Controllers::ALL_V2, controllers),
        systemd_cgroups: false,
        namespaces: NamespaceSupport {
            user: exists("/proc/self/ns/user"),
            cgroup: exists("/proc/self/ns/cgroup"),
            time: exists("/proc/self/ns/time"),
        },
        cap_last_cap: sbx_container::capabilities::last(),
        apparmor: read("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux: exists("/sys/fs/selinux/enforce"),
        // A kernel without filters refuses to tell the mode (prctl(2), PR_GET_SECCOMP).
        seccomp: sbx_container::sys::prctl(libc::PR_GET_SECCOMP, 0).is_ok(),
        // The bridge network turns it on when it is first used.
        ipv4_forwarding: true,
        id_maps: Some(id_maps()),
        // Found out only where it matters, see `isolation`.
        vm_obstacle: None,
    }
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// The trimmed text of a small file; a missing one is empty.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Tells this boot from every other.
pub(crate) fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// How many numbers a list like `0-3,8` names.
fn count_of_list(list: &str) -> u32 {
    ranges(list).map(|(first, last)| last - first + 1).sum()
}

fn ranges(list: &str) -> impl Iterator<Item = (u32, u32)> + '_ {
    list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        (range.0 <= range.1).then_some(range)
    })
}

fn thermal_throttle(cpu_list: &str) -> Vec<u32> {
    ranges(cpu_list)
        .flat_map(|(first, last)| first..=last)
        .filter(|cpu| exists(&format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle")))
        .collect()
}

fn memory() -> u64 {
    let text = read("/proc/meminfo");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn controllers(hierarchies: &Hierarchies) -> Controllers {
    let has = |controller: &str, file: &str| {
        hierarchies.v1(controller).is_some_and(|hierarchy| hierarchy.mount_point.join(file).exists())
    };
    if hierarchies.mode() == Mode::V2 {
        return controllers_v2(hierarchies);
    }
    Controllers {
        memory: hierarchies.v1("memory").is_some(),
        swap: has("memory", "memory.memsw.limit_in_bytes"),
        memory_reservation: has("memory", "memory.soft_limit_in_bytes"),
        memory_swappiness: has("memory", "memory.swappiness"),
        oom_kill_disable: has("memory", "memory.oom_control"),
        cpu_shares: has("cpu", "cpu.shares"),
        cpu_bandwidth: hierarchies.v1("cpu").is_some() && exists("/proc/sys/kernel/sched_cfs_bandwidth_slice_us"),
        cpu_realtime: has("cpu", "cpu.rt_runtime_us"),
        cpuset: hierarchies.v1("cpuset").is_some(),
        pids: hierarchies.v1("pids").is_some(),
        block_weight: has("blkio", "blkio.weight") || has("blkio", "blkio.bfq.weight"),
        block_weight_device: has("blkio", "blkio.weight_device") || has("blkio", "blkio.bfq.weight_device"),
        block_throttle: has("blkio", "blkio.throttle.read_bps_device"),
        devices: hierarchies.v1("devices").is_some(),
    }
}

fn controllers_v2(hierarchies: &Hierarchies) -> Controllers {
    let mount = hierarchies.v2().map(|hierarchy| hierarchy.mount_point.join("cgroup.controllers"));
    let text = mount.map(|path| read(&path.to_string_lossy())).unwrap_or_default();
    let has = |controller: &str| text.split_whitespace().any(|one| one == controller);
    Controllers {
        memory: has("memory"),
        swap: has("memory"),
        memory_reservation: has("memory"),
        cpu_shares: has("cpu"),
        cpu_bandwidth: has("cpu"),
        cpuset: has("cpuset"),
        pids: has("pids"),
        block_weight: has("io"),
        block_weight_device: has("io"),
        block_throttle: has("io"),
        ..Controllers::ALL_V2
    }
}

/// The range of `/etc/subuid` and `/etc/subgid` that is set aside for us, or one that nobody uses.
fn id_maps() -> IdMaps {
    let map = |path: &str| {
        let text = read(path);
        let first = ID_OWNERS.iter().find_map(|owner| text.lines().find_map(|line| id_range(line, owner)));
        vec![IdMap { inside: 0, outside: first.unwrap_or(FALLBACK_IDS), count: ID_COUNT }]
    };
    IdMaps { uids: map("/etc/subuid"), gids: map("/etc/subgid") }
}

fn id_range(line: &str, owner: &str) -> Option<u32> {
    let mut fields = line.trim().split(':');
    if fields.next()? != owner {
        return None;
    }
    let first = fields.next()?.parse().ok()?;
    let count: u32 = fields.next()?.parse().ok()?;
    (count >= ID_COUNT).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_lists_are_read() {
        assert_eq!(kernel_version("6.12.48+deb13-amd64"), (6, 12));
        assert_eq!(count_of_list("0-3,8"), 5);
        assert_eq!(count_of_list("0"), 1);
        assert_eq!(count_of_list(""), 0);
    }

    #[test]
    fn ranges_of_ids_must_be_ours_and_large_enough() {
        assert_eq!(id_range("sbx:100000:65536", "sbx"), Some(100_000));
        assert_eq!(id_range("sbx:100000:100", "sbx"), None);
        assert_eq!(id_range("bob:100000:65536", "sbx"), None);
    }
}
