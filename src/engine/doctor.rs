//! `doctor`: what this machine can do for either mode, in words a user can act on.
//!
//! Nothing is assumed from version numbers where it can be tried: namespaces and file systems are asked of the kernel, and
//! KVM has to run guest code. Nothing is changed.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use sbx_container::cgroup::{Hierarchies, Mode as Hierarchy};
use serde::Serialize;

use crate::Paths;

/// Open files below which many containers or a machine with many shares cannot be run.
const ENOUGH_FILES: u64 = 1024;
/// Free space below which images will hardly fit, in bytes.
const ENOUGH_SPACE: u64 = 2 << 30;

/// How a check has come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is there.
    Ok,
    /// Something that a container may ask for is not there; others run.
    Limited,
    /// The mode cannot be used.
    Missing,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// The modes that need it.
    pub modes: &'static [&'static str],
    /// How it has come out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub advice: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Process mode can be used.
    pub process: bool,
    /// VM mode can be used.
    pub vm: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

const BOTH: &[&str] = &["process", "vm"];
const PROCESS: &[&str] = &["process"];
const VM: &[&str] = &["vm"];

/// Looks the machine over. Needs no state of sbx, so that it tells what is wrong where nothing else would work.
#[must_use]
pub fn doctor(paths: &Paths) -> Report {
    let mut checks = vec![
        root(),
        kernel(),
        namespaces(),
        control_groups(),
        filesystem("overlay", BOTH, "load the module: modprobe overlay"),
        filesystem("erofs", PROCESS, "load the module: modprobe erofs, or use a kernel with CONFIG_EROFS_FS"),
        seccomp(),
        firewall(),
        user_namespaces(),
        open_files(),
        space(&paths.root),
        tap(),
    ];
    checks.extend(virtual_machines(paths));
    let usable =
        |mode: &str| !checks.iter().any(|check| check.modes.contains(&mode) && check.verdict == Verdict::Missing);
    Report { process: usable("process"), vm: usable("vm"), checks }
}

fn check(name: &'static str, modes: &'static [&'static str], verdict: Verdict, found: String, advice: &str) -> Check {
    let advice = if verdict == Verdict::Ok { String::new() } else { advice.to_owned() };
    Check { name, modes, verdict, found, advice }
}

fn ok_or(good: bool, otherwise: Verdict) -> Verdict {
    if good { Verdict::Ok } else { otherwise }
}

fn root() -> Check {
    let uid = nix::unistd::geteuid();
    check("user", BOTH, ok_or(uid.is_root(), Verdict::Missing), format!("uid {uid}"), "run sbx as root: sudo sbx …")
}

fn kernel() -> Check {
    let facts = crate::facts::machine();
    let (major, minor) = facts.kernel;
    let verdict = if (major, minor) >= (5, 12) { Verdict::Ok } else { Verdict::Missing };
    let advice = "sbx needs the mount calls of Linux 5.12 or newer";
    check("kernel", BOTH, verdict, format!("{major}.{minor}, {}", facts.platform), advice)
}

fn namespaces() -> Check {
    let absent: Vec<&str> = ["mnt", "pid", "ipc", "uts", "net", "cgroup", "time"]
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    let found = if absent.is_empty() { "all kinds".to_owned() } else { format!("missing: {}", absent.join(", ")) };
    let advice = "use a kernel with CONFIG_NAMESPACES and every kind below it";
    check("namespaces", PROCESS, ok_or(absent.is_empty(), Verdict::Missing), found, advice)
}

fn control_groups() -> Check {
    let name = "control groups";
    match Hierarchies::detect() {
        Err(error) => check(name, BOTH, Verdict::Missing, error.to_string(), "mount cgroup2 at /sys/fs/cgroup"),
        Ok(hierarchies) => {
            let version = match hierarchies.mode() {
                Hierarchy::V1 => "version 1",
                Hierarchy::Hybrid => "version 1 with an empty version 2",
                Hierarchy::V2 => "version 2",
            };
            let has = crate::facts::machine().controllers;
            let kinds = [
                ("memory", has.memory),
                ("cpu", has.cpu_shares),
                ("cpuset", has.cpuset),
                ("pids", has.pids),
                ("io", has.block_throttle),
            ];
            let absent: Vec<&str> = kinds.iter().filter(|(_, there)| !there).map(|(kind, _)| *kind).collect();
            let found = if absent.is_empty() {
                format!("{version}, every controller")
            } else {
                format!("{version}, without {}", absent.join(", "))
            };
            let advice = "limits of these kinds are refused; enable the controllers on the kernel's command line";
            check(name, BOTH, ok_or(absent.is_empty(), Verdict::Limited), found, advice)
        }
    }
}

fn filesystem(name: &'static str, modes: &'static [&'static str], advice: &str) -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let there = known.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    // A module that is not loaded yet is loaded by the first mount.
    let module = !there && module_exists(name);
    let found = if there {
        "there"
    } else if module {
        "a module, loaded when it is first used"
    } else {
        "not in this kernel"
    };
    check(name, modes, ok_or(there || module, Verdict::Missing), found.to_owned(), advice)
}

fn module_exists(name: &str) -> bool {
    let release = nix::sys::utsname::uname().map(|system| system.release().to_owned()).unwrap_or_default();
    let list = Path::new("/lib/modules").join(release).join("modules.dep");
    let file = format!("/{name}.ko");
    fs::read_to_string(list)
        .is_ok_and(|text| text.lines().filter_map(|line| line.split(':').next()).any(|path| path.contains(&file)))
}

fn seccomp() -> Check {
    let there = crate::facts::machine().seccomp;
    let found = if there { "filters can be installed" } else { "not in this kernel" };
    let advice = "containers need --security-opt seccomp=unconfined; use a kernel with CONFIG_SECCOMP_FILTER";
    check("seccomp", BOTH, ok_or(there, Verdict::Limited), found.to_owned(), advice)
}

fn firewall() -> Check {
    let answer = sbx_network::firewall_answers();
    let found = answer.as_ref().map_or_else(|error| error.to_string(), |()| "nf_tables answers".to_owned());
    let advice = "the bridge network cannot be used; load nf_tables, or run with --network none or host";
    check("firewall", BOTH, ok_or(answer.is_ok(), Verdict::Limited), found, advice)
}

fn user_namespaces() -> Check {
    let most: u64 = fs::read_to_string("/proc/sys/user/max_user_namespaces")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let found = format!("{most} allowed");
    let advice = "--userns private is refused; raise the sysctl user.max_user_namespaces";
    check("user namespaces", PROCESS, ok_or(most > 0, Verdict::Limited), found, advice)
}

fn open_files() -> Check {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    let advice = "raise the hard limit: ulimit -Hn 65536";
    check("open files", BOTH, ok_or(hard >= ENOUGH_FILES, Verdict::Limited), format!("{soft}, at most {hard}"), advice)
}

fn space(root: &Path) -> Check {
    let mut there = root;
    // Before the first use the directory is not there yet.
    while !there.exists() {
        let Some(parent) = there.parent() else { break };
        there = parent;
    }
    let free = nix::sys::statvfs::statvfs(there).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    let found = format!("{} MiB free for {}", free >> 20, root.display());
    let advice = "free some space, or keep sbx elsewhere with --root";
    check("disk space", BOTH, ok_or(free >= ENOUGH_SPACE, Verdict::Limited), found, advice)
}

fn tap() -> Check {
    let there = Path::new("/dev/net/tun").exists();
    let found = if there { "/dev/net/tun is there" } else { "/dev/net/tun is not there" };
    let advice = "virtual machines have only --network none; load the module: modprobe tun";
    check("tap devices", VM, ok_or(there, Verdict::Limited), found.to_owned(), advice)
}

fn virtual_machines(paths: &Paths) -> [Check; 2] {
    let library = crate::isolation::artifacts();
    let found = match &library {
        Ok(artifacts) => artifacts.directory().unwrap_or(Path::new("/")).display().to_string(),
        Err(error) => error.to_string(),
    };
    let files =
        check("guest kernel and agent", VM, ok_or(library.is_ok(), Verdict::Missing), found, "run scripts/build");
    let kvm = crate::isolation::kvm_obstacle(paths);
    let found = kvm.clone().unwrap_or_else(|| "runs guest code".to_owned());
    let advice = "run sbx on a machine with hardware virtualisation, or in scripts/nested-kvm";
    [files, check("KVM", VM, ok_or(kvm.is_none(), Verdict::Missing), found, advice)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_usable_when_nothing_that_it_needs_is_missing() {
        let directory = std::env::temp_dir();
        let paths = Paths { root: directory.join("sbx-doctor"), run: directory.clone(), config: directory };
        let report = doctor(&paths);
        for (mode, usable) in [("process", report.process), ("vm", report.vm)] {
            let missing = report.checks.iter().filter(|check| check.modes.contains(&mode));
            assert_eq!(usable, missing.clone().all(|check| check.verdict != Verdict::Missing));
            assert!(missing.count() > 3);
        }
        for check in &report.checks {
            assert_eq!(check.advice.is_empty(), check.verdict == Verdict::Ok, "{check:?}");
            assert!(!check.found.is_empty());
        }
    }
}
