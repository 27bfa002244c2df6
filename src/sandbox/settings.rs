//! The configuration file, `/etc/sbx/config.toml`: what holds where a command does not say otherwise.
//!
//! Every key is optional; a key that does not exist is an error, so that a slip of the pen is not a silent default.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::isolation::Isolation;

/// Where the file is.
pub const DEFAULT_PATH: &str = "/etc/sbx/config.toml";

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// `process`, `vm` or `auto`; default `process`. `--isolation` and `SBX_ISOLATION` are stronger.
    pub isolation: Option<Isolation>,
    /// `[paths]`
    pub paths: Paths,
    /// `[container]`: defaults of containers.
    pub container: ContainerDefaults,
    /// `[log]`: where output goes.
    pub log: LogDefaults,
    /// `[network]`
    pub network: NetworkSettings,
    /// `[registry]`
    pub registry: RegistrySettings,
}

/// Where things are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Paths {
    /// Images, containers and volumes; absolute; default `/var/lib/sbx`.
    pub root: PathBuf,
    /// Sockets and what a reboot may lose; absolute; default `/run/sbx`.
    pub run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { root: "/var/lib/sbx".into(), run: "/run/sbx".into() }
    }
}

/// Defaults of containers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ContainerDefaults {
    /// Run a small reaper as PID 1 (`--init`); default false.
    pub init: bool,
    /// `--security-opt no-new-privileges`; default false.
    pub no_new_privileges: bool,
    /// Every container gets a user namespace of its own (`--userns=host` opts out); default false.
    pub userns_remap: bool,
    /// Parent of the containers' control groups: a path, or a slice where systemd manages them; default `sbx`, or
    /// `system.slice`.
    pub cgroup_parent: String,
    /// Limits by name (`nofile = { soft = 1024, hard = 4096 }`); -1 is unlimited; default none: what the
    /// command that starts the container has.
    pub ulimits: BTreeMap<String, Limit>,
    /// Highest number of processes and threads of a container; 0 (the default) is no limit.
    pub pids_limit: i64,
    /// Bytes of `/dev/shm`; default 67108864 (64 MiB).
    pub shm_size: i64,
    /// `private` or `shareable`; default `private`.
    pub ipc_mode: String,
    /// `private` or `host`; default empty: `private` on cgroup v2, `host` on v1.
    pub cgroupns_mode: String,
    /// Seconds that `stop` waits before it kills; default 10.
    pub stop_timeout: i64,
    /// Seconds that all containers together get when the host shuts down; default 15.
    pub shutdown_timeout: u32,
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            init: false,
            no_new_privileges: false,
            userns_remap: false,
            cgroup_parent: String::new(),
            ulimits: BTreeMap::new(),
            pids_limit: 0,
            shm_size: 64 << 20,
            ipc_mode: "private".to_owned(),
            cgroupns_mode: String::new(),
            stop_timeout: 10,
            shutdown_timeout: 15,
        }
    }
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// -1 is unlimited.
    pub soft: i64,
    /// -1 is unlimited.
    pub hard: i64,
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LogDefaults {
    /// `json-file` or `none`; default `json-file`.
    pub driver: String,
    /// `max-size`, `max-file` and the like, for containers of the default driver; default none: one file that grows.
    pub options: BTreeMap<String, String>,
}

impl Default for LogDefaults {
    fn default() -> Self {
        Self { driver: "json-file".to_owned(), options: BTreeMap::new() }
    }
}

/// The default network and names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NetworkSettings {
    /// Interface of the default bridge, at most 15 bytes; default `sbx0`.
    pub bridge: String,
    /// Its IPv4 addresses; default the first private range that the host does not use.
    pub subnet: Option<Ipv4Net>,
    /// Its IPv6 addresses; default none.
    pub subnet6: Option<Ipv6Net>,
    /// Bytes; default 1500.
    pub mtu: u32,
    /// Name servers of containers; default those of the host.
    pub dns: Vec<std::net::IpAddr>,
    /// Search domains of containers; default those of the host.
    pub dns_search: Vec<String>,
    /// Resolver options of containers; default those of the host.
    pub dns_options: Vec<String>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            bridge: "sbx0".to_owned(),
            subnet: None,
            subnet6: None,
            mtu: 1500,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
        }
    }
}

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RegistrySettings {
    /// Tried first for images of docker.io, in order: `https://HOST[:PORT][/PREFIX]`; default none.
    pub mirrors: Vec<String>,
    /// The same for other registries: `"HOST" = ["https://…"]`; default none.
    pub host_mirrors: BTreeMap<String, Vec<String>>,
    /// Registries whose certificate is not verified and that may speak plain HTTP: `HOST[:PORT]` or a network
    /// `10.0.0.0/8`; default none. Loopback always may.
    pub insecure: Vec<String>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or type that does not exist.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{}: {key}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// `container.shm-size`.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Settings {
    /// Reads a file; the defaults when it does not exist.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads a text; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        let syntax = |source| SettingsError::Syntax { path: path.to_owned(), source: Box::new(source) };
        let settings: Self = toml::from_str(text).map_err(syntax)?;
        settings.check().map_err(|(key, reason)| SettingsError::Value { path: path.to_owned(), key, reason })?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, path) in [("paths.root", &self.paths.root), ("paths.run", &self.paths.run)] {
            if !path.is_absolute() {
                return Err((key, format!("{} is not an absolute path", path.display())));
            }
        }
        let container = &self.container;
        one_of("container.ipc-mode", &container.ipc_mode, &["private", "shareable"])?;
        one_of("container.cgroupns-mode", &container.cgroupns_mode, &["", "private", "host"])?;
        one_of("log.driver", &self.log.driver, &["json-file", "none"])?;
        if container.shm_size <= 0 {
            return Err(("container.shm-size", format!("{} is not a number of bytes", container.shm_size)));
        }
        if container.stop_timeout < -1 {
            return Err(("container.stop-timeout", "want seconds, or -1 to wait for ever".to_owned()));
        }
        let network = &self.network;
        if network.bridge.is_empty() || network.bridge.len() > 15 || network.bridge.contains(['/', ' ']) {
            return Err(("network.bridge", format!("{:?} is not the name of an interface", network.bridge)));
        }
        if !(68..=65_535).contains(&network.mtu) {
            return Err(("network.mtu", format!("{} is not between 68 and 65535", network.mtu)));
        }
        if let Some(subnet) = network.subnet.filter(|subnet| subnet.prefix_len() > 29) {
            return Err(("network.subnet", format!("{subnet} has no room for containers")));
        }
        Ok(())
    }
}

fn one_of(key: &'static str, value: &str, known: &[&str]) -> Result<(), (&'static str, String)> {
    if known.contains(&value) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().filter(|name| !name.is_empty()).map(|name| format!("{name:?}")).collect();
    Err((key, format!("{value:?} is unknown, want {}", known.join(" or "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, SettingsError> {
        Settings::parse(text, Path::new("/etc/sbx/config.toml"))
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(parse("").unwrap(), Settings::default());
        let absent = Path::new("/nonexistent/config.toml");
        assert_eq!(Settings::load(absent).unwrap(), Settings::default());
    }

    #[test]
    fn every_key_can_be_written_and_read_back() {
        let text = "isolation = \"auto\"\n[paths]\nroot = \"/srv/sbx\"\n[container]\ninit = true\nuserns-remap = true\n\
            ulimits = { nofile = { soft = 1024, hard = -1 } }\nshm-size = 1048576\n[log]\ndriver = \"none\"\n\
            [network]\nsubnet = \"10.9.0.0/24\"\nsubnet6 = \"fd00:9::/64\"\nmtu = 1400\ndns = [\"192.0.2.1\"]\n\
            [registry]\nmirrors = [\"https://mirror.example\"]\ninsecure = [\"10.0.0.0/8\"]\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.isolation, Some(Isolation::Auto));
        assert_eq!(settings.container.ulimits["nofile"], Limit { soft: 1024, hard: -1 });
        assert_eq!(settings.paths.run, Path::new("/run/sbx"));
        let again = toml::to_string(&settings).unwrap();
        assert_eq!(parse(&again).unwrap(), settings);
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        for (text, expected) in [
            ("isolaton = \"vm\"", "isolaton"),
            ("isolation = \"lxc\"", "lxc"),
            ("[container]\nint = true", "int"),
            ("[container]\ninit = 1", "init"),
            ("[container]\nshm-size = 0", "container.shm-size"),
            ("[container]\nipc-mode = \"host\"", "container.ipc-mode"),
            ("[container]\nstop-timeout = -2", "container.stop-timeout"),
            ("[log]\ndriver = \"syslog\"", "log.driver: \"syslog\" is unknown, want \"json-file\" or \"none\""),
            ("[network]\nsubnet = \"10.0.0.0/30\"", "network.subnet"),
            ("[network]\nsubnet = \"10.0.0.0/33\"", "subnet"),
            ("[network]\nmtu = 9", "network.mtu"),
            ("[network]\nbridge = \"a-name-that-is-too-long\"", "network.bridge"),
            ("[paths]\nroot = \"here\"", "paths.root: here is not an absolute path"),
            ("[registry\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("/etc/sbx/config.toml") && error.contains(expected), "{text}: {error}");
        }
    }
}
