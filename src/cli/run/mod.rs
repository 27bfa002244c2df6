//! `run` and `create`: from flags to a [`CreateRequest`] and to what the caller itself has to do ([`RunOptions`]).
//!
//! The request says what Docker's client would send for the same line (recorded ones are the tests); what this client adds
//! is that a flag that nobody would enforce is refused by its name.

pub(crate) mod devices;
pub(crate) mod flags;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod network;
mod options;
pub(crate) mod ports;
pub(crate) mod process;
mod refused;

use sbx_sandbox::{
    config::{Config, CreateRequest, NetworkingConfig},
    host_config::{HostConfig, LogConfig, RestartPolicy},
};

pub(crate) use self::options::parse_platform as platform;
pub use self::options::{PullPolicy, RunOptions, Streams};
use crate::{
    error::Fault,
    flags::{parse::Parsed, values::parse_uint},
    surroundings::Surroundings,
    units,
};

/// A container to create, and for `run` to start.
#[derive(Clone, Debug, PartialEq)]
pub struct RunCommand {
    /// What to create.
    pub request: CreateRequest,
    /// What the caller does.
    pub options: RunOptions,
}

/// Which of the two verbs asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Run,
    Create,
}

impl RunCommand {
    /// Puts the flags of one line together.
    pub(crate) fn read(parsed: &Parsed, around: &Surroundings, caller: Caller) -> Result<Self, Fault> {
        let options = RunOptions::read(parsed, caller)?;
        refused::refuse(parsed)?;
        let ports = ports::ports(parsed.list("publish"), parsed.list("expose"))?;
        let volumes = mounts::volumes(parsed.list("volume"), around.directory())?;
        let networks = network::networks(parsed)?;
        let config = Config {
            exposed_ports: ports.exposed,
            volumes: volumes.anonymous,
            ..read_config(parsed, around, options.attach)?
        };
        let host_config = HostConfig {
            binds: volumes.binds,
            port_bindings: ports.bindings,
            network_mode: networks.mode,
            ..read_host_config(parsed, around)?
        };
        let request = CreateRequest {
            name: parsed.text("name").to_owned(),
            platform: options.platform.clone(),
            config,
            host_config,
            networking: NetworkingConfig { endpoints_config: networks.endpoints },
        };
        Ok(Self { request, options })
    }
}

fn read_config(parsed: &Parsed, around: &Surroundings, attach: Streams) -> Result<Config, String> {
    let interactive = parsed.on("interactive");
    let (image, command) = parsed.operands.split_first().map_or(("", &[][..]), |(image, rest)| (image.as_str(), rest));
    Ok(Config {
        hostname: parsed.text("hostname").to_owned(),
        domainname: parsed.text("domainname").to_owned(),
        user: parsed.text("user").to_owned(),
        attach_stdin: attach.stdin,
        attach_stdout: attach.stdout,
        attach_stderr: attach.stderr,
        tty: parsed.on("tty"),
        open_stdin: interactive,
        stdin_once: interactive && attach.stdin,
        env: process::environment(parsed, around)?,
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        healthcheck: process::health(parsed)?,
        image: image.to_owned(),
        working_dir: parsed.text("workdir").to_owned(),
        // An empty entry point takes the image's away.
        entrypoint: parsed.last("entrypoint").map(|entry| vec![entry.to_owned()]),
        labels: process::labels(parsed, around)?,
        stop_signal: parsed.text("stop-signal").to_owned(),
        stop_timeout: parsed.int("stop-timeout"),
        ..Config::default()
    })
}

fn read_host_config(parsed: &Parsed, around: &Surroundings) -> Result<HostConfig, Fault> {
    let text = |flag: &str| parsed.text(flag).to_owned();
    let list = |flag: &str| parsed.list(flag).to_vec();
    let restart_policy = parse_restart(parsed.last("restart").unwrap_or("no"))?;
    let auto_remove = parsed.on("rm");
    if auto_remove && !["", "no"].contains(&restart_policy.name.as_str()) {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned().into());
    }
    let security = process::security(parsed.list("security-opt"), around)?;
    let system_paths = security.open_system_paths.then(Vec::new);
    let domains = map(parsed, "dns-search", network::parse_search_domain)?;
    Ok(HostConfig {
        container_id_file: text("cidfile"),
        log_config: read_logging(parsed)?,
        restart_policy,
        auto_remove,
        volume_driver: text("volume-driver"),
        volumes_from: list("volumes-from"),
        annotations: process::pairs(parsed.list("annotation")),
        cap_add: capabilities(parsed.list("cap-add")),
        cap_drop: capabilities(parsed.list("cap-drop")),
        cgroupns_mode: namespace(parsed, "cgroupns", "CGROUP", &["host", "private"])?,
        dns: map(parsed, "dns", network::parse_name_server)?,
        dns_options: list("dns-option"),
        dns_search: domains,
        extra_hosts: map(parsed, "add-host", network::parse_extra_host)?,
        group_add: list("group-add"),
        ipc_mode: text("ipc"),
        pid_mode: namespace(parsed, "pid", "PID", &["host", "container:"])?,
        privileged: parsed.on("privileged"),
        publish_all_ports: parsed.on("publish-all"),
        readonly_rootfs: parsed.on("read-only"),
        security_opt: security.options,
        tmpfs: mounts::tmpfs(parsed.list("tmpfs"))?,
        uts_mode: namespace(parsed, "uts", "UTS", &["host"])?,
        userns_mode: namespace(parsed, "userns", "USER", &["host", "private"])?,
        shm_size: size(parsed, "shm-size")?,
        sysctls: process::pairs(parsed.list("sysctl")),
        storage_opt: process::pairs(parsed.list("storage-opt")),
        isolation: text("isolation"),
        cgroup_parent: text("cgroup-parent"),
        mounts: map(parsed, "mount", |text| mounts::parse_mount(text, around.directory()))?,
        masked_paths: system_paths.clone(),
        readonly_paths: system_paths,
        init: parsed.switch("init"),
        ..read_resources(parsed)?
    })
}

fn read_resources(parsed: &Parsed) -> Result<HostConfig, String> {
    let int = |flag: &str| parsed.int(flag).unwrap_or(0);
    let swappiness = parsed.int("memory-swappiness").unwrap_or(-1);
    if !(-1..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    let oom_score_adj = int("oom-score-adj");
    if !(-1000..=1000).contains(&oom_score_adj) {
        return Err(format!("Invalid value {oom_score_adj}, range for oom score adj is [-1000, 1000]"));
    }
    Ok(HostConfig {
        oom_score_adj: i32::try_from(oom_score_adj).map_err(|error| error.to_string())?,
        cpu_shares: int("cpu-shares"),
        memory: size(parsed, "memory")?,
        nano_cpus: parsed.last("cpus").map_or(Ok(0), units::parse_cpus)?,
        blkio_weight: parsed
            .last("blkio-weight")
            .and_then(|text| parse_uint(text, u64::from(u16::MAX)).ok())
            .and_then(|weight| u16::try_from(weight).ok())
            .unwrap_or(0),
        blkio_weight_device: map(parsed, "blkio-weight-device", devices::parse_weight)?,
        blkio_device_read_bps: map(parsed, "device-read-bps", devices::parse_rate_bytes)?,
        blkio_device_write_bps: map(parsed, "device-write-bps", devices::parse_rate_bytes)?,
        blkio_device_read_iops: map(parsed, "device-read-iops", devices::parse_rate_operations)?,
        blkio_device_write_iops: map(parsed, "device-write-iops", devices::parse_rate_operations)?,
        cpu_period: int("cpu-period"),
        cpu_quota: int("cpu-quota"),
        cpu_realtime_period: int("cpu-rt-period"),
        cpu_realtime_runtime: int("cpu-rt-runtime"),
        cpuset_cpus: parsed.text("cpuset-cpus").to_owned(),
        cpuset_mems: parsed.text("cpuset-mems").to_owned(),
        devices: map(parsed, "device", devices::parse_device)?,
        device_cgroup_rules: parsed.list("device-cgroup-rule").to_vec(),
        memory_reservation: size(parsed, "memory-reservation")?,
        memory_swap: parsed.last("memory-swap").map_or(Ok(0), units::parse_size_or_unlimited)?,
        memory_swappiness: (swappiness >= 0).then_some(swappiness),
        oom_kill_disable: Some(parsed.on("oom-kill-disable")),
        pids_limit: Some(int("pids-limit")),
        ulimits: limits::ulimits(parsed.list("ulimit"))?,
        ..HostConfig::default()
    })
}

fn map<T>(parsed: &Parsed, flag: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    parsed.list(flag).iter().map(|text| parse(text)).collect()
}

fn size(parsed: &Parsed, flag: &str) -> Result<i64, String> {
    parsed.last(flag).map_or(Ok(0), units::parse_size)
}

/// A namespace is ours (empty), one of `allowed`, or with a colon at the end one that a name follows.
fn namespace(parsed: &Parsed, flag: &str, name: &str, allowed: &[&str]) -> Result<String, String> {
    let mode = parsed.text(flag);
    let fits = allowed.iter().any(|known| match known.ends_with(':') {
        true => mode.len() > known.len() && mode.starts_with(known),
        false => mode == *known,
    });
    if mode.is_empty() || fits { Ok(mode.to_owned()) } else { Err(format!("--{flag}: invalid {name} mode")) }
}

fn read_logging(parsed: &Parsed) -> Result<LogConfig, String> {
    let driver = parsed.text("log-driver");
    let options = process::pairs(parsed.list("log-opt"));
    if driver == "none" && !options.is_empty() {
        return Err(format!("invalid logging opts for driver {driver}"));
    }
    Ok(LogConfig { r#type: driver.to_owned(), config: options })
}

fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() && !text.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let maximum_retry_count = match count {
        "" => 0,
        count => crate::flags::values::parse_decimal(count)
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned())?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

/// `net_admin` → `CAP_NET_ADMIN`, sorted, each once; `ALL` stays.
fn capabilities(given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = given
        .iter()
        .map(|name| {
            let upper = name.trim().to_ascii_uppercase();
            if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
