//! What a container is asked to be: Docker's `Config` and `NetworkingConfig` (Engine API, `ContainerCreate`).
//!
//! One set of types serves the command line, the store, `inspect` and the API, so that a field that exists here is
//! a field that all four know. Like Docker's own (Go) types, a zero value means "the default"; `resolve` replaces
//! it by the value that holds, so that after it nothing is left unsaid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host_config::HostConfig;

/// A request to create a container: the body of `POST /containers/create` and its query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CreateRequest {
    /// `--name`; empty makes one up.
    pub name: String,
    /// `--platform`, `linux/amd64`; empty is the host's.
    pub platform: String,
    /// The part that can move to another host.
    pub config: Config,
    /// The part that belongs to this host.
    pub host_config: HostConfig,
    /// Per-network settings.
    pub networking: NetworkingConfig,
}

/// The part of a container's configuration that can move to another host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Host name; empty is the short id.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// The client wants the standard input.
    pub attach_stdin: bool,
    /// The client wants the standard output.
    pub attach_stdout: bool,
    /// The client wants the standard error.
    pub attach_stderr: bool,
    /// `80/tcp` → `{}`.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// A terminal as stdio.
    pub tty: bool,
    /// Keep the standard input open even if nobody is attached.
    pub open_stdin: bool,
    /// Close the standard input when the first client that attached goes away.
    pub stdin_once: bool,
    /// `NAME=value`, or `NAME` to remove one of the image.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Arguments, or the whole command where there is no entry point; `None` is the image's.
    pub cmd: Option<Vec<String>>,
    /// How the container is found to be healthy; `None` is the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The command line is already escaped (Windows only; kept for images that carry it).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// The image as the user named it.
    pub image: String,
    /// Anonymous volumes, path → `{}`.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory; empty is the image's, or `/`.
    pub working_dir: String,
    /// Entry point; `None` is the image's, `[""]` removes it.
    pub entrypoint: Option<Vec<String>>,
    /// Build triggers of the image.
    #[serde(deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    /// User metadata.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal name or number; empty is the image's, or `SIGTERM`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds; `None` is 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of the shell form of a Dockerfile's instructions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub shell: Vec<String>,
    /// MAC address of the first interface.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

/// An object without members: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How a container is found to be healthy. Durations are nanoseconds; 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty is the image's.
    #[serde(deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Between two probes; default 30 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one probe; default 30 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// After the start, while failures do not count; default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two probes in the start period; default 5 s.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; default 3.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// Per-network settings, by network name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    /// Network name → settings.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints_config: BTreeMap<String, EndpointConfig>,
}

/// What is asked of one network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointConfig {
    /// Fixed addresses.
    #[serde(rename = "IPAMConfig", skip_serializing_if = "Option::is_none")]
    pub ipam_config: Option<EndpointAddresses>,
    /// Other names of the container on this network.
    #[serde(deserialize_with = "null_as_default")]
    pub aliases: Vec<String>,
    /// Links of the old kind.
    #[serde(deserialize_with = "null_as_default")]
    pub links: Vec<String>,
    /// MAC address; empty is derived from the IPv4 address.
    pub mac_address: String,
    /// Driver options.
    #[serde(deserialize_with = "null_as_default")]
    pub driver_opts: BTreeMap<String, String>,
}

/// Fixed addresses on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointAddresses {
    /// `--ip`.
    #[serde(rename = "IPv4Address", default, skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// `--ip6`.
    #[serde(rename = "IPv6Address", default, skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
    /// `--link-local-ip`.
    #[serde(rename = "LinkLocalIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<String>,
}

pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes an empty slice or map as `null`.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
