//! The flags of `run` and `create`: Docker's, name by name, with the check of each value.

use crate::{
    flags::{
        Flag,
        values::{check_uint16, check_uint64},
    },
    run::{devices, limits, mounts, network, process},
    units,
};

fn check_size(text: &str) -> Result<(), String> {
    units::parse_size(text).map(drop)
}

fn check_swap(text: &str) -> Result<(), String> {
    units::parse_size_or_unlimited(text).map(drop)
}

fn check_cpus(text: &str) -> Result<(), String> {
    units::parse_cpus(text).map(drop)
}

fn check_duration(text: &str) -> Result<(), String> {
    units::parse_duration(text).map(drop)
}

/// What both verbs take.
pub(crate) static SHARED: &[Flag] = &[
    Flag::list("add-host", "Add a line to /etc/hosts (host:ip)").checked("list", network::check_extra_host),
    Flag::list("annotation", "Add an annotation for the runtime").checked("map", process::check_any),
    Flag::list("attach", "Attach to STDIN, STDOUT or STDERR").short('a').checked("list", process::check_stream),
    Flag::text("blkio-weight", "Relative block IO weight, 10 to 1000, or 0 for none").checked("uint16", check_uint16),
    Flag::list("blkio-weight-device", "Relative block IO weight of one device").checked("list", devices::check_weight),
    Flag::list("cap-add", "Add Linux capabilities"),
    Flag::list("cap-drop", "Drop Linux capabilities"),
    Flag::text("cgroup-parent", "Parent cgroup of the container"),
    Flag::text("cgroupns", "Cgroup namespace to use: host or private"),
    Flag::text("cidfile", "Write the container ID to this file"),
    Flag::int("cpu-count", "Number of processors (Windows only)").hidden(),
    Flag::int("cpu-percent", "Share of the processors in percent (Windows only)").hidden(),
    Flag::int("cpu-period", "Period of the CPU quota in microseconds"),
    Flag::int("cpu-quota", "CPU time per period in microseconds"),
    Flag::int("cpu-rt-period", "Period of the real-time quota in microseconds"),
    Flag::int("cpu-rt-runtime", "Real-time CPU time per period in microseconds"),
    Flag::int("cpu-shares", "Relative CPU weight").short('c'),
    Flag::text("cpus", "Number of CPUs, as a decimal").checked("decimal", check_cpus),
    Flag::text("cpuset-cpus", "CPUs that may be used (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes that may be used (0-3, 0,1)"),
    Flag::list("device", "Give the container a device of the host"),
    Flag::list("device-cgroup-rule", "Add a rule to the allowed devices").checked("list", devices::check_rule),
    Flag::list("device-read-bps", "Limit the read rate of a device in bytes per second")
        .checked("list", devices::check_rate_bytes),
    Flag::list("device-read-iops", "Limit the read rate of a device in operations per second")
        .checked("list", devices::check_rate_operations),
    Flag::list("device-write-bps", "Limit the write rate of a device in bytes per second")
        .checked("list", devices::check_rate_bytes),
    Flag::list("device-write-iops", "Limit the write rate of a device in operations per second")
        .checked("list", devices::check_rate_operations),
    Flag::switch("disable-content-trust", "Skip the verification of image signatures").default("true"),
    Flag::list("dns", "Use these name servers").checked("list", network::check_name_server),
    Flag::list("dns-opt", "").stands_for("dns-option"),
    Flag::list("dns-option", "Set resolver options"),
    Flag::list("dns-search", "Use these search domains").checked("list", network::check_search_domain),
    Flag::text("domainname", "NIS domain name of the container"),
    Flag::text("entrypoint", "Replace the image's ENTRYPOINT"),
    Flag::list("env", "Set environment variables").short('e').checked("list", process::check_variable),
    Flag::list("env-file", "Read environment variables from a file"),
    Flag::list("expose", "Expose a port or a range of ports"),
    Flag::text("gpus", "Give the container GPUs").checked("gpu-request", process::check_any),
    Flag::list("group-add", "Join further groups"),
    Flag::text("health-cmd", "Command that checks the health"),
    Flag::text("health-interval", "Time between two checks (ms|s|m|h)")
        .checked("duration", check_duration)
        .default("0s"),
    Flag::int("health-retries", "Failures in a row that mean unhealthy"),
    Flag::text("health-start-interval", "Time between two checks in the start period (ms|s|m|h)")
        .checked("duration", check_duration)
        .default("0s"),
    Flag::text("health-start-period", "Time to start before failures count (ms|s|m|h)")
        .checked("duration", check_duration)
        .default("0s"),
    Flag::text("health-timeout", "Longest time of one check (ms|s|m|h)")
        .checked("duration", check_duration)
        .default("0s"),
    Flag::text("hostname", "Host name of the container").short('h'),
    Flag::switch("init", "Run an init inside the container that forwards signals and reaps processes"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::text("io-maxbandwidth", "Bandwidth of the system drive (Windows only)").checked("bytes", check_size).hidden(),
    Flag::text("io-maxiops", "Operations of the system drive (Windows only)").checked("uint", check_uint64).hidden(),
    Flag::text("ip", "IPv4 address (e.g., 172.30.100.104)"),
    Flag::text("ip6", "IPv6 address (e.g., 2001:db8::33)"),
    Flag::text("ipc", "IPC namespace to use"),
    Flag::text("isolation", "How the container is kept apart: process, vm or auto"),
    Flag::text("kernel-memory", "Kernel memory limit").checked("bytes", check_size).hidden(),
    Flag::list("label", "Set metadata on the container").short('l').checked("list", process::check_label),
    Flag::list("label-file", "Read labels from a file, one a line"),
    Flag::list("link", "Add a link to another container"),
    Flag::list("link-local-ip", "Link-local addresses of the container"),
    Flag::text("log-driver", "Log driver of the container"),
    Flag::list("log-opt", "Options of the log driver"),
    Flag::text("mac-address", "MAC address of the container (e.g., 92:d0:c6:0a:29:33)"),
    Flag::text("memory", "Memory limit").short('m').checked("bytes", check_size),
    Flag::text("memory-reservation", "Soft memory limit").checked("bytes", check_size),
    Flag::text("memory-swap", "Limit of memory and swap together, -1 for unlimited swap").checked("bytes", check_swap),
    Flag::int("memory-swappiness", "How readily memory is swapped, 0 to 100").default("-1"),
    Flag::list("mount", "Attach a file system to the container").checked("mount", mounts::check_mount),
    Flag::text("name", "Name of the container"),
    Flag::list("net", "").checked("network", network::check_attachment).stands_for("network"),
    Flag::list("net-alias", "").stands_for("network-alias"),
    Flag::list("network", "Connect the container to a network").checked("network", network::check_attachment),
    Flag::list("network-alias", "Another name of the container on its network"),
    Flag::switch("no-healthcheck", "Disable the image's HEALTHCHECK"),
    Flag::switch("oom-kill-disable", "Do not kill processes when memory runs out"),
    Flag::int("oom-score-adj", "Preference of the out-of-memory killer (-1000 to 1000)"),
    Flag::text("pid", "PID namespace to use"),
    Flag::int("pids-limit", "Number of processes allowed, -1 for unlimited"),
    Flag::text("platform", "Platform of the image, os[/arch[/variant]]"),
    Flag::switch("privileged", "Give the container all privileges of the host"),
    Flag::list("publish", "Publish ports of the container on the host").short('p'),
    Flag::switch("publish-all", "Publish every exposed port on a free port of the host").short('P'),
    Flag::text("pull", "When to pull the image: always, missing or never").default("\"missing\""),
    Flag::switch("quiet", "No output while pulling").short('q'),
    Flag::switch("read-only", "Mount the root file system read-only"),
    Flag::text("restart", "What to do when the container exits").default("\"no\""),
    Flag::switch("rm", "Remove the container and its anonymous volumes when it exits"),
    Flag::text("runtime", "Runtime of the container"),
    Flag::list("security-opt", "Security options"),
    Flag::text("shm-size", "Size of /dev/shm").checked("bytes", check_size),
    Flag::text("stop-signal", "Signal that stops the container"),
    Flag::int("stop-timeout", "Seconds to wait for the container to stop"),
    Flag::list("storage-opt", "Options of the writable layer"),
    Flag::list("sysctl", "Set kernel parameters of the container's namespaces").checked("map", limits::check_sysctl),
    Flag::list("tmpfs", "Mount a tmpfs directory"),
    Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
    Flag::list("ulimit", "Resource limits").checked("ulimit", limits::check_ulimit),
    Flag::switch("use-api-socket", "Give the container the API socket"),
    Flag::text("user", "User and group (<name|uid>[:<group|gid>])").short('u'),
    Flag::text("userns", "User namespace to use"),
    Flag::text("uts", "UTS namespace to use"),
    Flag::list("volume", "Mount a directory or a volume").short('v'),
    Flag::text("volume-driver", "Driver of the volumes that are made"),
    Flag::list("volumes-from", "Mount the volumes of other containers"),
    Flag::text("workdir", "Working directory inside the container").short('w'),
];

/// What only `run` takes.
pub(crate) static RUN_ONLY: &[Flag] = &[
    Flag::switch("detach", "Run in the background and print the container ID").short('d'),
    Flag::text("detach-keys", "Key sequence that detaches from the container"),
    Flag::switch("sig-proxy", "Pass received signals to the process").default("true"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_recorded_client_is_here() {
        // The names in `docker run --help` of 28.2.2.
        let names = include_str!("../tests/run_flags.txt");
        for name in names.split_whitespace() {
            assert!(SHARED.iter().chain(RUN_ONLY).any(|flag| flag.long == name), "--{name} is missing");
        }
    }
}
