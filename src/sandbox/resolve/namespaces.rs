//! Namespace modes, their conflicts, and kernel parameters, which belong to namespaces.

use crate::config::CreateRequest;
use crate::facts::CgroupVersion;
use crate::host_config::HostConfig;

use super::{Invalid, Resolver};

/// Conflicts that are reported before anything else (moby `daemon/internal/runconfig`).
pub(super) fn conflicts(request: &CreateRequest) -> Result<(), Invalid> {
    let (config, host) = (&request.config, &request.host_config);
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Invalid::new("Config.Hostname", "conflicting options: hostname and the UTS mode"));
    }
    if host.network_mode != "container" && !host.network_mode.starts_with("container:") {
        return Ok(());
    }
    if joined(&host.network_mode).is_none() {
        let message = "invalid network mode: invalid container format container:<name|id>";
        return Err(Invalid::new("HostConfig.NetworkMode", message));
    }
    for (present, field, message) in [
        (!config.hostname.is_empty(), "Config.Hostname", "conflicting options: hostname and the network mode"),
        (!host.dns.is_empty(), "HostConfig.Dns", "conflicting options: dns and the network mode"),
        (
            !host.extra_hosts.is_empty(),
            "HostConfig.ExtraHosts",
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "HostConfig.PortBindings",
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            !config.exposed_ports.is_empty(),
            "Config.ExposedPorts",
            "conflicting options: port exposing and the container type network mode",
        ),
    ] {
        if present {
            return Err(Invalid::new(field, message));
        }
    }
    Ok(())
}

/// `X` of `container:X`.
fn joined(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:").filter(|name| !name.is_empty())
}

pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    modes(&resolver.request.host_config)?;
    defaults(resolver)?;
    user_namespace(&resolver.request.host_config)?;
    let machine = resolver.context.machine;
    let host = &resolver.request.host_config;
    if host.cgroupns_mode == "private" && !machine.namespaces.cgroup {
        return Err(Invalid::new(
            "HostConfig.CgroupnsMode",
            "--cgroupns=private: your kernel has no cgroup namespaces",
        ));
    }
    cgroup_parent(host, machine.systemd_cgroups)?;
    let outside = !matches!(host.network_mode.as_str(), "host" | "none");
    if outside && !machine.ipv4_forwarding {
        resolver.warn("IPv4 forwarding is disabled. Networking will not work.");
    }
    Ok(())
}

fn modes(host: &HostConfig) -> Result<(), Invalid> {
    let valid_pid = matches!(host.pid_mode.as_str(), "" | "host") || joined(&host.pid_mode).is_some();
    if !valid_pid {
        return Err(Invalid::new("HostConfig.PidMode", format!("invalid PID mode: {}", host.pid_mode)));
    }
    let simple_ipc = matches!(host.ipc_mode.as_str(), "" | "private" | "shareable" | "host" | "none");
    if !simple_ipc && joined(&host.ipc_mode).is_none() {
        return Err(Invalid::new("HostConfig.IpcMode", format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Invalid::new("HostConfig.UTSMode", format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host" | "private") {
        return Err(Invalid::new("HostConfig.UsernsMode", format!("invalid USER mode: {}", host.userns_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        let message = format!("invalid cgroup namespace mode: {}", host.cgroupns_mode);
        return Err(Invalid::new("HostConfig.CgroupnsMode", message));
    }
    Ok(())
}

fn defaults(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    let machine = resolver.context.machine;
    let settings = &resolver.context.settings.container;
    let host = &mut resolver.request.host_config;
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode.clone_from(&settings.ipc_mode);
    }
    if host.cgroupns_mode.is_empty() {
        let v2 = machine.cgroup == CgroupVersion::V2;
        host.cgroupns_mode = match settings.cgroupns_mode.as_str() {
            // On version 1 a private namespace would show a privileged container less than it may manage.
            _ if host.privileged && !v2 => "host",
            "" if v2 && machine.namespaces.cgroup => "private",
            "" => "host",
            configured => configured,
        }
        .to_owned();
    }
    if host.userns_mode.is_empty() {
        host.userns_mode = if settings.userns_remap { "private" } else { "host" }.to_owned();
    }
    if host.userns_mode == "private" {
        let field = "HostConfig.UsernsMode";
        if !machine.namespaces.user {
            return Err(Invalid::new(field, "--userns=private: your kernel has no user namespaces"));
        }
        if machine.id_maps.is_none() {
            let message = "--userns=private: no range of ids is set aside for sbx; add a line for \"sbx\" (or root) to \
                           /etc/subuid and /etc/subgid";
            return Err(Invalid::new(field, message));
        }
    }
    if host.cgroup_parent.is_empty() {
        host.cgroup_parent.clone_from(&settings.cgroup_parent);
    }
    if host.init.is_none() {
        host.init = Some(settings.init);
    }
    Ok(())
}

/// A user namespace owns only namespaces that are made with it.
fn user_namespace(host: &HostConfig) -> Result<(), Invalid> {
    if host.userns_mode != "private" {
        return Ok(());
    }
    if host.privileged {
        let message = "privileged mode is incompatible with user namespaces.  You must run the container in the host \
                       namespace when running privileged mode";
        return Err(Invalid::new("HostConfig.Privileged", message));
    }
    if host.network_mode == "host" {
        let message = "cannot share the host's network namespace when user namespaces are enabled";
        return Err(Invalid::new("HostConfig.NetworkMode", message));
    }
    if host.pid_mode == "host" {
        let message = "cannot share the host PID namespace when user namespaces are enabled";
        return Err(Invalid::new("HostConfig.PidMode", message));
    }
    Ok(())
}

fn cgroup_parent(host: &HostConfig, systemd: bool) -> Result<(), Invalid> {
    let parent = host.cgroup_parent.as_str();
    let field = "HostConfig.CgroupParent";
    if parent.is_empty() {
        return Ok(());
    }
    if systemd && (parent.len() <= 6 || !parent.ends_with(".slice") || parent.contains('/')) {
        let message = "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"";
        return Err(Invalid::new(field, message));
    }
    let components: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    let unsafe_part = components.iter().any(|part| matches!(*part, "." | ".."));
    if components.is_empty() || unsafe_part || parent.contains(['\0', ':']) || parent.contains(char::is_whitespace) {
        let message = format!("invalid cgroup-parent {parent:?}: want a path below the root of the control groups");
        return Err(Invalid::new(field, message));
    }
    Ok(())
}

/// Kernel parameters that exist once for each IPC namespace (runc `libcontainer/configs/validate`).
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// A parameter may be set only where it is the container's own.
pub(super) fn sysctls(host: &HostConfig) -> Result<(), Invalid> {
    for name in host.sysctls.keys() {
        sysctl(host, &name.replace('/', ".")).map_err(|message| Invalid::new("HostConfig.Sysctls", message))?;
    }
    for (name, value) in &host.sysctls {
        if value.contains(['\0', '\n']) || name.contains("..") {
            return Err(Invalid::new("HostConfig.Sysctls", format!("sysctl {name:?}: invalid value {value:?}")));
        }
    }
    Ok(())
}

fn sysctl(host: &HostConfig, name: &str) -> Result<(), String> {
    if IPC_SYSCTLS.contains(&name) || name.starts_with("fs.mqueue.") {
        return match host.ipc_mode.as_str() {
            "host" => Err(format!("sysctl {name:?} is not allowed in the hosts ipc namespace")),
            mode if mode.starts_with("container:") => {
                Err(format!("sysctl {name:?} belongs to the container whose ipc namespace is joined"))
            }
            _ => Ok(()),
        };
    }
    if name.starts_with("net.") {
        return match host.network_mode.as_str() {
            "host" => Err(format!("sysctl {name:?} not allowed in host network namespace")),
            mode if mode.starts_with("container:") => {
                Err(format!("sysctl {name:?} belongs to the container whose network namespace is joined"))
            }
            _ => Ok(()),
        };
    }
    match name {
        "kernel.domainname" if host.uts_mode != "host" => Ok(()),
        "kernel.hostname" => {
            Err(format!("sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field"))
        }
        _ => Err(format!("sysctl {name:?} is not in a separate kernel namespace")),
    }
}
