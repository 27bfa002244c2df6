//! What `inspect` shows of a container: Docker's JSON (Engine API, `ContainerInspect`), and where each limit is
//! enforced.

mod enforcement;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::EndpointAddresses;
use crate::host_config::PortBinding;
use crate::spec::{MountOrigin, MountPoint, SandboxSpec};
use crate::state::{State, Status};
use crate::store::Files;

/// What the specification and the state do not hold.
#[derive(Clone, Debug, Default)]
pub struct InspectFacts {
    /// Shown as the `Driver` of the root file system: `overlayfs`.
    pub driver: String,
    /// What there is to know of the root file system: `MergedDir`, `UpperDir` and the like.
    pub driver_data: BTreeMap<String, String>,
    /// Ids of running `exec`s.
    pub exec_ids: Vec<String>,
    /// Bytes of the writable layer and of everything, when they were asked for.
    pub sizes: Option<Sizes>,
    /// What the network has given.
    pub network: NetworkFacts,
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of the writable layer.
    pub writable: u64,
    /// Of the writable layer and the image.
    pub root: u64,
}

/// What a container has of the network.
#[derive(Clone, Debug, Default)]
pub struct NetworkFacts {
    /// 64 hexadecimal digits; empty when it does not run.
    pub sandbox_id: String,
    /// Path of its network namespace.
    pub sandbox_key: String,
    /// `80/tcp` → where it is published; an empty list is exposed only.
    pub ports: BTreeMap<String, Vec<PortBinding>>,
    /// By network name.
    pub networks: BTreeMap<String, EndpointFacts>,
}

/// What a container has of one network. Empty texts and zeros are "none".
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "named as Docker's EndpointSettings")]
pub struct EndpointFacts {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointAddresses>,
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    pub mac_address: String,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i64,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Docker's JSON of a container.
pub fn inspect(spec: &SandboxSpec, state: &State, files: &Files, facts: &InspectFacts) -> Value {
    let mut args = spec.args().into_iter();
    let path = args.next().unwrap_or_default();
    let log_path = if spec.host_config.log_config.r#type == "json-file" { files.log() } else { "".into() };
    let mut container = json!({
        "Id": spec.id,
        "Created": spec.created,
        "Path": path,
        "Args": args.collect::<Vec<_>>(),
        "State": state_json(state),
        "Image": spec.image.id,
        "ResolvConfPath": files.resolv_conf(),
        "HostnamePath": files.hostname(),
        "HostsPath": files.hosts(),
        "LogPath": log_path,
        "Name": format!("/{}", spec.name),
        "RestartCount": state.restart_count,
        "Driver": facts.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": spec.security.apparmor.clone().unwrap_or_default(),
        "ExecIDs": non_empty(&facts.exec_ids),
        "HostConfig": host_config_json(spec),
        "GraphDriver": { "Name": facts.driver, "Data": non_empty_map(&facts.driver_data) },
        "Mounts": mounts_json(&spec.mounts),
        "Config": config_json(spec),
        "NetworkSettings": network_json(&facts.network),
        "Enforcement": enforcement::enforcement(spec),
    });
    if let Some(sizes) = facts.sizes {
        container["SizeRw"] = json!(sizes.writable);
        container["SizeRootFs"] = json!(sizes.root);
    }
    container
}

/// Go writes an empty list that nobody set as `null`.
fn non_empty(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn non_empty_map(map: &BTreeMap<String, String>) -> Value {
    if map.is_empty() { Value::Null } else { json!(map) }
}

/// `Running` stays true while a container is paused or restarting, as in Docker.
fn state_json(state: &State) -> Value {
    let mut json = json!({
        "Status": state.status,
        "Running": state.status.is_active(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    });
    if let Some(health) = &state.health {
        json["Health"] = json!(health);
    }
    json
}

/// Lists of the request that Docker shows as `null` when nobody set them.
const NULL_WHEN_EMPTY: [&str; 10] = [
    "Binds",
    "CapAdd",
    "CapDrop",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "SecurityOpt",
    "VolumesFrom",
    "DeviceCgroupRules",
    "DeviceRequests",
];

fn object(value: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        // Our own types are objects with text keys.
        _ => Map::new(),
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn host_config_json(spec: &SandboxSpec) -> Value {
    let mut json = object(&spec.host_config);
    for key in NULL_WHEN_EMPTY {
        if is_empty(json.get(key)) {
            json.insert(key.to_owned(), Value::Null);
        }
    }
    if is_empty(json.get("Mounts")) {
        json.remove("Mounts");
    }
    // Fields of Docker's type that only Windows uses: clients' templates may name them.
    for key in ["CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"] {
        json.insert(key.to_owned(), json!(0));
    }
    json.insert("Isolation".to_owned(), json!(spec.isolation.isolation));
    json.insert("IsolationReason".to_owned(), json!(spec.isolation.reason));
    Value::Object(json)
}

fn config_json(spec: &SandboxSpec) -> Value {
    let mut json = object(&spec.config);
    for key in ["Volumes", "OnBuild", "Entrypoint"] {
        if is_empty(json.get(key)) {
            json.insert(key.to_owned(), Value::Null);
        }
    }
    if is_empty(json.get("ExposedPorts")) {
        json.remove("ExposedPorts");
    }
    Value::Object(json)
}

/// Those of `--tmpfs` stand in `HostConfig.Tmpfs` only.
fn mounts_json(mounts: &[MountPoint]) -> Value {
    let shown = mounts.iter().filter(|mount| mount.origin != MountOrigin::Tmpfs);
    shown.map(mount_json).collect()
}

fn mount_json(mount: &MountPoint) -> Value {
    let mut json = json!({
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.destination,
        "Mode": mount.mode,
        "RW": mount.rw,
        "Propagation": mount.propagation,
    });
    for (key, value) in [("Name", &mount.name), ("Driver", &mount.driver)] {
        if !value.is_empty() {
            json[key] = json!(value);
        }
    }
    json
}

fn network_json(facts: &NetworkFacts) -> Value {
    let ports: Map<String, Value> =
        facts.ports.iter().map(|(port, bindings)| (port.clone(), bindings_json(bindings))).collect();
    let mut json = json!({
        "Bridge": "",
        "SandboxID": facts.sandbox_id,
        "SandboxKey": facts.sandbox_key,
        "Ports": ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "Networks": facts.networks,
    });
    // The fields of the default bridge stand beside the list of networks as well, for clients from before it.
    let bridge = object(facts.networks.get("bridge").cloned().unwrap_or_default());
    for key in [
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        json[key] = bridge.get(key).cloned().unwrap_or_default();
    }
    json
}

fn bindings_json(bindings: &[PortBinding]) -> Value {
    if bindings.is_empty() { Value::Null } else { json!(bindings) }
}

#[cfg(test)]
mod tests;
