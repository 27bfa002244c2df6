//! From an OCI runtime configuration to a container plan.
//!
//! Every field of the configuration is translated or refused by its name: nothing is dropped. What OCI's form has no
//! place for (users by name, interfaces, the reaper) comes in [`PlanExtras`]. Where the specification leaves
//! something to the runtime (default devices, default device access), this does what runc does.

mod devices;
mod exec;
mod mounts;
mod options;
mod process;
mod refuse;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};
use sbx_container::plan::{
    CgroupPlan, ContainerPlan, First, IdMap, IdMaps, Interface, Namespace, Namespaces, Root, TerminalSize, User,
};

pub use exec::{ExecRequest, exec_process};

/// What a plan needs and OCI's form has no place for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanExtras {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The user by name, with supplementary groups; `None` takes the numbers of the configuration.
    pub user: Option<User>,
    /// What somebody puts into the network namespace.
    pub interfaces: Vec<Interface>,
    /// What the first process executes.
    pub first: First,
    /// Size of the terminal; `None` takes that of the configuration.
    pub console: Option<TerminalSize>,
    /// Without a terminal: a pipe as standard input; otherwise it is `/dev/null`.
    pub stdin: bool,
}

impl PlanExtras {
    /// The extras of a sandbox, without interfaces.
    pub fn of(spec: &crate::spec::SandboxSpec) -> Self {
        let own_pid_namespace = spec.host_config.pid_mode.is_empty();
        Self {
            id: spec.id.to_string(),
            user: Some(User::Named { spec: spec.config.user.clone(), group_add: spec.host_config.group_add.clone() }),
            interfaces: Vec::new(),
            first: match spec.host_config.init {
                _ if spec.only_kept => First::Keeper,
                // Where PID 1 is somebody else's there is nothing to reap for.
                Some(true) if own_pid_namespace => First::Reaper,
                _ => First::Program,
            },
            console: None,
            stdin: spec.config.open_stdin,
        }
    }
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The field is part of the specification and not of this runtime.
    #[error("config.json: {field} is not supported: {reason}")]
    Unsupported {
        /// Path of the field: `linux.intelRdt`.
        field: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The field has a value that makes no sense.
    #[error("config.json: {field}: {reason}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }

    fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

/// Makes the plan of a container. Errors name the field that cannot be honoured.
pub fn plan(config: &Spec, extras: PlanExtras) -> Result<ContainerPlan, Error> {
    refuse::unsupported(config)?;
    let linux = config.linux().clone().unwrap_or_else(empty_linux);
    let process = config.process().as_ref().ok_or_else(|| Error::invalid("process", "missing"))?;
    let namespaces = namespaces(&linux)?;
    let mounts = mounts::mounts(config.mounts().as_deref().unwrap_or_default())?;
    mounts::check_root_propagation(linux.rootfs_propagation().as_deref(), &mounts)?;
    let mut process = process::process(process, extras.user, extras.console)?;
    process.stdin = extras.stdin;
    process.seccomp = linux.seccomp().as_ref().map(seccomp::filter).transpose()?;
    Ok(ContainerPlan {
        id: extras.id,
        hostname: config.hostname().clone().filter(|name| !name.is_empty()),
        domainname: config.domainname().clone().filter(|name| !name.is_empty()),
        id_maps: id_maps(&linux, &namespaces)?,
        namespaces,
        root: Root { read_only: config.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) },
        mounts,
        devices: devices::nodes(linux.devices().as_deref().unwrap_or_default())?,
        masked_paths: absolute("linux.maskedPaths", linux.masked_paths())?,
        readonly_paths: absolute("linux.readonlyPaths", linux.readonly_paths())?,
        sysctls: sysctls(&linux),
        cgroup: CgroupPlan { path: cgroup_path(&linux)?, resources: resources::resources(linux.resources().as_ref())? },
        interfaces: extras.interfaces,
        process,
        first: extras.first,
    })
}

fn empty_linux() -> Linux {
    let mut linux = Linux::default();
    linux.set_namespaces(None).set_resources(None).set_masked_paths(None).set_readonly_paths(None);
    linux
}

fn absolute(field: &str, paths: &Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let paths = paths.clone().unwrap_or_default();
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(relative) => Err(Error::invalid(field, format!("{relative:?} is not an absolute path"))),
        None => Ok(paths),
    }
}

fn sysctls(linux: &Linux) -> BTreeMap<String, String> {
    let sysctls = linux.sysctl().clone().unwrap_or_default();
    // The kernel's own spelling with slashes is allowed by sysctl(8) too.
    sysctls.into_iter().map(|(name, value)| (name.replace('/', "."), value)).collect()
}

fn namespaces(linux: &Linux) -> Result<Namespaces, Error> {
    let mut namespaces = Namespaces {
        mount: Namespace::Inherit,
        pid: Namespace::Inherit,
        ipc: Namespace::Inherit,
        uts: Namespace::Inherit,
        net: Namespace::Inherit,
        cgroup: Namespace::Inherit,
        user: Namespace::Inherit,
        time: Namespace::Inherit,
    };
    for entry in linux.namespaces().as_deref().unwrap_or_default() {
        let kind = entry.typ();
        let slot = match kind {
            LinuxNamespaceType::Mount => &mut namespaces.mount,
            LinuxNamespaceType::Pid => &mut namespaces.pid,
            LinuxNamespaceType::Ipc => &mut namespaces.ipc,
            LinuxNamespaceType::Uts => &mut namespaces.uts,
            LinuxNamespaceType::Network => &mut namespaces.net,
            LinuxNamespaceType::Cgroup => &mut namespaces.cgroup,
            LinuxNamespaceType::User => &mut namespaces.user,
            LinuxNamespaceType::Time => &mut namespaces.time,
        };
        if *slot != Namespace::Inherit {
            return Err(Error::invalid("linux.namespaces", format!("{kind} is listed twice")));
        }
        *slot = match entry.path().as_ref().map(|path| path.as_os_str()) {
            None => Namespace::New,
            Some(path) if path.is_empty() => Namespace::New,
            Some(path) => Namespace::Join(text("linux.namespaces.path", path)?),
        };
    }
    if namespaces.mount == Namespace::Inherit {
        return Err(Error::unsupported("linux.namespaces", "a container without a mount namespace of its own"));
    }
    Ok(namespaces)
}

fn text(field: &str, path: &std::ffi::OsStr) -> Result<String, Error> {
    let text = path.to_str().ok_or_else(|| Error::invalid(field, format!("{} is not UTF-8", path.display())))?;
    if text.contains('\0') {
        return Err(Error::invalid(field, format!("{text:?} contains a null byte")));
    }
    Ok(text.to_owned())
}

fn id_maps(linux: &Linux, namespaces: &Namespaces) -> Result<Option<IdMaps>, Error> {
    let uids = maps(linux.uid_mappings().as_deref());
    let gids = maps(linux.gid_mappings().as_deref());
    match (&namespaces.user, uids.is_empty() && gids.is_empty()) {
        (Namespace::New, true) => Err(Error::invalid("linux.uidMappings", "a new user namespace needs identity maps")),
        (Namespace::New, false) if uids.is_empty() || gids.is_empty() => {
            Err(Error::invalid("linux.uidMappings", "uidMappings and gidMappings are needed both"))
        }
        (Namespace::New, false) => Ok(Some(IdMaps { uids, gids })),
        // A joined namespace has its maps already.
        (_, true) | (Namespace::Join(_), false) => Ok(None),
        (Namespace::Inherit, false) => {
            Err(Error::invalid("linux.uidMappings", "identity maps without a user namespace"))
        }
    }
}

fn maps(maps: Option<&[LinuxIdMapping]>) -> Vec<IdMap> {
    let convert =
        |map: &LinuxIdMapping| IdMap { inside: map.container_id(), outside: map.host_id(), count: map.size() };
    maps.unwrap_or_default().iter().map(convert).collect()
}

/// A path below the root of the hierarchies; systemd's `SLICE:PREFIX:NAME` becomes the path that systemd would make.
fn cgroup_path(linux: &Linux) -> Result<String, Error> {
    let field = "linux.cgroupsPath";
    let Some(path) = linux.cgroups_path() else {
        return Err(Error::invalid(field, "missing"));
    };
    let path = text(field, path.as_os_str())?;
    let parts: Vec<&str> = path.split(':').collect();
    let path = match parts.as_slice() {
        [slice, prefix, name] => format!("{}/{}", slice_path(slice)?, scope(prefix, name)),
        _ => path.clone(),
    };
    let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if components.is_empty() || components.contains(&"..") {
        return Err(Error::invalid(field, format!("{path:?} does not name a group below the root")));
    }
    Ok(components.join("/"))
}

fn scope(prefix: &str, name: &str) -> String {
    match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    }
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> Result<String, Error> {
    let bad = || Error::invalid("linux.cgroupsPath", format!("{slice:?} is not the name of a slice"));
    let stem = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if stem == "-" {
        return Ok(String::new());
    }
    if stem.contains('/') || stem.split('-').any(str::is_empty) {
        return Err(bad());
    }
    let mut path = Vec::new();
    for (index, byte) in stem.bytes().enumerate() {
        if byte == b'-' {
            path.push(format!("{}.slice", &stem[..index]));
        }
    }
    path.push(slice.to_owned());
    Ok(path.join("/"))
}

#[cfg(test)]
mod tests;
