//! `info` and `version`. There is no daemon: client and server are this one program.

use nix::sys::utsname::uname;
use sbx_engine::{Engine, Info, STORAGE_DRIVER};
use sbx_sandbox::facts::CgroupVersion;
use serde_json::{Value, json};

use super::{Fault, Outcome, print};
use crate::command::Format;
use crate::table::one_object;
use crate::units::binary_size;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn shown(object: &Value, format: &Format, text: impl FnOnce() -> String) -> Outcome {
    match format.as_deref() {
        None | Some("") => print(&text()),
        Some(format) => print(&one_object(object, format).map_err(|error| Fault::plain(error.to_string()))?),
    }
}

/// Go's name of this processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `version`.
pub(super) fn version(format: &Format) -> Outcome {
    let system = uname().map_err(std::io::Error::from)?;
    let kernel = system.release().to_string_lossy().into_owned();
    let platform = "sbx (one program, no daemon)";
    let part = json!({
        "Platform": { "Name": platform },
        "Version": VERSION,
        "Os": std::env::consts::OS,
        "Arch": architecture(),
    });
    let (mut client, mut server) = (part.clone(), part);
    client["Context"] = json!("default");
    server["KernelVersion"] = json!(kernel);
    server["Components"] = json!([{ "Name": "Engine", "Version": VERSION, "Details": { "KernelVersion": kernel } }]);
    let object = json!({ "Client": client, "Server": server });
    shown(&object, format, || {
        let os = format!("{}/{}", std::env::consts::OS, architecture());
        format!(
            "Client: {platform}\n Version:           {VERSION}\n OS/Arch:           {os}\n\nServer: {platform}\n \
             Engine:\n  Version:          {VERSION}\n  OS/Arch:          {os}\n  Kernel Version:   {kernel}\n"
        )
    })
}

/// `info`.
pub(super) fn info(engine: &Engine, format: &Format) -> Outcome {
    let info = engine.info()?;
    let object = info_json(engine, &info)?;
    shown(&object, format, || info_text(&object))
}

fn info_json(engine: &Engine, info: &Info) -> Result<Value, Fault> {
    let settings = engine.settings();
    let machine = &info.machine;
    let has = &machine.controllers;
    let [all, running, paused, stopped] = info.containers;
    let system = uname().map_err(std::io::Error::from)?;
    let cgroup_version = if machine.cgroup == CgroupVersion::V2 { "2" } else { "1" };
    let wanted = &settings.registry;
    Ok(json!({
        "Containers": all,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": info.images,
        "Driver": STORAGE_DRIVER,
        "DriverStatus": [["Layers", "erofs"]],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "none"], "Log": ["json-file", "none"] },
        "MemoryLimit": has.memory,
        "SwapLimit": has.swap,
        "CpuCfsPeriod": has.cpu_bandwidth,
        "CpuCfsQuota": has.cpu_bandwidth,
        "CPUShares": has.cpu_shares,
        "CPUSet": has.cpuset,
        "PidsLimit": has.pids,
        "IPv4Forwarding": machine.ipv4_forwarding,
        "OomKillDisable": has.oom_kill_disable,
        "LoggingDriver": settings.log.driver,
        "CgroupDriver": if machine.systemd_cgroups { "systemd" } else { "cgroupfs" },
        "CgroupVersion": cgroup_version,
        "KernelVersion": info.kernel_release,
        "OperatingSystem": info.operating_system,
        "OSType": std::env::consts::OS,
        "Architecture": system.machine().to_string_lossy(),
        "NCPU": machine.cpus,
        "MemTotal": machine.memory,
        "DockerRootDir": engine.root(),
        "Name": machine.hostname,
        "ServerVersion": VERSION,
        "DefaultRuntime": "sbx",
        "Runtimes": { "sbx": {} },
        "DefaultIsolation": settings.isolation.unwrap_or_default(),
        "VmObstacle": machine.vm_obstacle,
        "LiveRestoreEnabled": true,
        "SecurityOptions": security(info, settings.container.userns_remap),
        "RegistryConfig": { "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "InsecureRegistries": wanted.insecure,
            "Mirrors": wanted.mirrors },
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Warnings": warnings(info),
        "ClientInfo": { "Version": VERSION, "Context": "default", "Os": std::env::consts::OS, "Arch": architecture() },
    }))
}

fn security(info: &Info, remaps_users: bool) -> Vec<String> {
    let machine = &info.machine;
    let all = [
        (machine.apparmor, "name=apparmor"),
        (machine.seccomp, "name=seccomp,profile=builtin"),
        (machine.selinux, "name=selinux"),
        (machine.namespaces.cgroup, "name=cgroupns"),
        (remaps_users, "name=userns"),
    ];
    all.iter().filter(|(has, _)| *has).map(|(_, name)| (*name).to_owned()).collect()
}

fn warnings(info: &Info) -> Vec<String> {
    let has = &info.machine.controllers;
    let all = [
        (has.memory, "WARNING: No memory limit support"),
        (has.swap, "WARNING: No swap limit support"),
        (has.cpu_bandwidth, "WARNING: No cpu cfs quota support"),
        (has.cpu_shares, "WARNING: No cpu shares support"),
        (has.cpuset, "WARNING: No cpuset support"),
        (has.pids, "WARNING: No pids limit support"),
        (info.machine.ipv4_forwarding, "WARNING: IPv4 forwarding is disabled"),
        (info.machine.seccomp, "WARNING: No seccomp support"),
    ];
    all.iter().filter(|(has, _)| !has).map(|(_, text)| (*text).to_owned()).collect()
}

/// Titles with the keys that stand behind them; two blanks are a level.
const LINES: [(&str, &str); 21] = [
    (" Containers", "Containers"),
    ("  Running", "ContainersRunning"),
    ("  Paused", "ContainersPaused"),
    ("  Stopped", "ContainersStopped"),
    (" Images", "Images"),
    (" Server Version", "ServerVersion"),
    (" Storage Driver", "Driver"),
    (" Logging Driver", "LoggingDriver"),
    (" Cgroup Driver", "CgroupDriver"),
    (" Cgroup Version", "CgroupVersion"),
    (" Default Isolation", "DefaultIsolation"),
    (" VM Isolation", "VmObstacle"),
    (" Security Options", "SecurityOptions"),
    (" Kernel Version", "KernelVersion"),
    (" Operating System", "OperatingSystem"),
    (" OSType", "OSType"),
    (" Architecture", "Architecture"),
    (" CPUs", "NCPU"),
    (" Total Memory", "MemTotal"),
    (" Name", "Name"),
    (" Root Dir", "DockerRootDir"),
];

fn info_text(object: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let list = |key: &str| object[key].as_array().cloned().unwrap_or_default();
    let mut text = format!("Client:\n Version:    {VERSION}\n Context:    default\n\nServer:\n");
    for (title, key) in LINES {
        let value = &object[key];
        match key {
            "MemTotal" => text.push_str(&format!("{title}: {}\n", binary_size(value.as_u64().unwrap_or(0)))),
            "SecurityOptions" => {
                text.push_str(&format!("{title}:\n"));
                for option in list(key) {
                    let option = word(&option);
                    let (name, rest) = option.split_once(',').unwrap_or((&option, ""));
                    text.push_str(&format!("  {}\n", name.trim_start_matches("name=")));
                    if let Some((name, value)) = rest.split_once('=') {
                        text.push_str(&format!("   {}: {value}\n", if name == "profile" { "Profile" } else { name }));
                    }
                }
            }
            "VmObstacle" if value.is_null() => text.push_str(&format!("{title}: available\n")),
            _ => text.push_str(&format!("{title}: {}\n", word(value))),
        }
        if key == "Driver" {
            text.push_str("  Layers: erofs\n");
        }
    }
    for warning in list("Warnings") {
        text.push_str(&format!("{}\n", word(&warning)));
    }
    text
}
