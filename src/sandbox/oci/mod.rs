//! The OCI runtime configuration of a sandbox: what `dockerd` would hand to `runc` for the same request.
//!
//! Pure: everything that has to be looked up on the host comes in [`HostPaths`] and [`MachineFacts`]. The result is
//! what the container plan is made from, and what `inspect` can show to people who know `config.json`.
//!
//! Docker's defaults are in `daemon/pkg/oci/defaults.go` of moby, how requests change them in `daemon/oci_linux.go`.

mod devices;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;

use std::collections::HashMap;

use oci_spec::runtime::{Linux, RootBuilder, Spec};

use crate::facts::MachineFacts;
use crate::host_config::HostConfig;
use crate::spec::{HostPaths, SandboxSpec};

pub use devices::wanted_devices;
pub(crate) use process::process;
pub use seccomp::profile;

/// Version of the runtime specification that the result follows.
pub const VERSION: &str = "1.2.1";
/// Docker's masked paths, without those that depend on the processors.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Docker's read-only paths.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Why no configuration can be made of a specification that was accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device of the request is not among those that were looked up.
    #[error(
        "error gathering device information while adding custom device {path:?}: no such file or directory ({field})"
    )]
    NoDevice {
        /// `HostConfig` field.
        field: &'static str,
        /// As the user gave it.
        path: String,
    },
    /// A namespace is to be joined and the caller did not say which.
    #[error("{field} is {mode:?}, but the namespace of that container is not known: is it running?")]
    NoNamespace {
        /// `HostConfig` field.
        field: &'static str,
        /// Its value.
        mode: String,
    },
    /// A mount has no source yet.
    #[error("mount at {destination}: {kind} {name:?} has not been prepared")]
    NoSource {
        /// Inside the container.
        destination: String,
        /// `volume`, `image`.
        kind: &'static str,
        /// Of the volume or image.
        name: String,
    },
    /// A value that `resolve` would have refused.
    #[error("{field}: {reason}")]
    Invalid {
        /// Field of the specification.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    fn invalid(field: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { field, reason: reason.to_string() }
    }
}

/// The configuration of a sandbox for one start.
///
/// Errors name the field of the specification that asks for something that the caller did not look up.
pub fn runtime_config(spec: &SandboxSpec, machine: &MachineFacts, paths: &HostPaths) -> Result<Spec, Error> {
    let mut config = Spec::default();
    config.set_version(VERSION.to_owned());
    let root = RootBuilder::default().path(paths.rootfs.clone()).readonly(spec.host_config.readonly_rootfs).build();
    config.set_root(Some(root.map_err(|error| Error::invalid("root", error))?));
    config.set_process(Some(process::process(spec)?));
    let own_uts = spec.host_config.uts_mode != "host";
    config.set_hostname(own_uts.then(|| spec.config.hostname.clone()));
    config.set_domainname((own_uts && !spec.config.domainname.is_empty()).then(|| spec.config.domainname.clone()));
    config.set_mounts(Some(mounts::mounts(spec, machine, paths)?));
    let annotations: HashMap<String, String> = spec.host_config.annotations.clone().into_iter().collect();
    config.set_annotations((!annotations.is_empty()).then_some(annotations));
    config.set_linux(Some(linux(spec, machine, paths)?));
    Ok(config)
}

fn linux(spec: &SandboxSpec, machine: &MachineFacts, paths: &HostPaths) -> Result<Linux, Error> {
    let host = &spec.host_config;
    let mut linux = Linux::default();
    let maps = namespaces::id_maps(spec, machine)?;
    linux.set_namespaces(Some(namespaces::namespaces(spec, machine, paths)?));
    linux.set_uid_mappings(maps.as_ref().map(|maps| namespaces::oci_maps(&maps.uids)).transpose()?);
    linux.set_gid_mappings(maps.as_ref().map(|maps| namespaces::oci_maps(&maps.gids)).transpose()?);
    linux.set_sysctl(Some(sysctls(host)));
    linux.set_resources(Some(resources::resources(spec, paths)?));
    linux.set_cgroups_path(Some(cgroups_path(spec, machine).into()));
    linux.set_devices(Some(devices::nodes(spec, paths)?));
    linux.set_seccomp(seccomp::filter(spec, machine)?);
    linux.set_rootfs_propagation(mounts::root_propagation(spec).map(str::to_owned));
    linux.set_masked_paths(host.masked_paths.clone());
    linux.set_readonly_paths(host.readonly_paths.clone());
    Ok(linux)
}

/// Docker's masked paths for a machine.
pub fn default_masked_paths(machine: &MachineFacts) -> Vec<String> {
    let throttles = machine.thermal_throttle.iter();
    let throttles = throttles.map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    MASKED_PATHS.iter().map(|&path| path.to_owned()).chain(throttles).collect()
}

/// Docker's read-only paths.
pub fn default_readonly_paths() -> Vec<String> {
    READONLY_PATHS.iter().map(|&path| path.to_owned()).collect()
}

/// What Docker sets in a network namespace of the container's own, under what the user sets.
fn sysctls(host: &HostConfig) -> HashMap<String, String> {
    let mut sysctls = HashMap::new();
    let own_network = host.network_mode != "host" && !host.network_mode.starts_with("container:");
    if own_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        if host.userns_mode != "private" {
            // The kernel wants group ids of the initial user namespace here.
            sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        }
    }
    sysctls.extend(host.sysctls.clone());
    sysctls
}

/// `PARENT/ID`, or `SLICE:sbx:ID` where systemd manages the control groups.
fn cgroups_path(spec: &SandboxSpec, machine: &MachineFacts) -> String {
    let parent = spec.host_config.cgroup_parent.as_str();
    if machine.systemd_cgroups {
        format!("{}:sbx:{}", if parent.is_empty() { "system.slice" } else { parent }, spec.id)
    } else {
        let parent = if parent.is_empty() { "sbx" } else { parent };
        format!("/{}/{}", parent.trim_matches('/'), spec.id)
    }
}

#[cfg(test)]
mod tests;
