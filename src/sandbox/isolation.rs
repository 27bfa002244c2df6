//! How a container is kept apart from the host, and how that is decided.
//!
//! What was asked for comes from the flag, else `SBX_ISOLATION`, else the configuration file, else it is `process`.
//! An explicit mode is never changed; only `auto` looks at the machine. The decision and its reason are stored.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Isolation {
    /// Namespaces and a cgroup on the host's kernel.
    #[default]
    Process,
    /// A virtual machine with a kernel of its own; Docker for Windows calls it `hyperv`.
    Vm,
    /// `vm` where the machine can run one, else `process`.
    Auto,
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Namespaces and a cgroup on the host's kernel.
    Process,
    /// A virtual machine with a kernel of its own.
    Vm,
}

/// The decision and why it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// What is run.
    pub isolation: Mode,
    /// A clause for people: `--isolation`, `SBX_ISOLATION=vm`, `default`.
    pub reason: String,
}

/// The places where a mode can be asked for, strongest first. An empty text or `default` passes on to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// `--isolation` or `HostConfig.Isolation`.
    pub flag: &'a str,
    /// The environment variable `SBX_ISOLATION`; empty when it is not set.
    pub environment: &'a str,
    /// `isolation` of the configuration file.
    pub settings: Isolation,
    /// Whether the configuration file says anything.
    pub settings_given: bool,
    /// A container whose namespaces are joined: how it is kept apart, and its name. It must be the same for both; where nothing
    /// was asked for, or `auto`, it is.
    pub beside: Option<(Mode, &'a str)>,
}

/// A mode that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid isolation {name:?} in {source_name}: want process, vm, auto or default")]
pub struct UnknownIsolation {
    /// What was given.
    pub name: String,
    /// Where it was given.
    pub source_name: &'static str,
}

/// The reason where nothing was asked for.
const DEFAULT: &str = "default";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsolationError {
    /// The container whose namespaces are joined is in a virtual machine.
    #[error(
        "{origin}: container {name} is in a virtual machine, and who joins its namespaces has to be in it: use \
         --isolation=vm"
    )]
    BesideVm {
        /// The other's name.
        name: String,
        /// What was asked for.
        origin: String,
    },
    /// It is on the host's kernel.
    #[error(
        "{origin}: container {name} runs on the host's kernel, of which a virtual machine shares nothing: use \
         --isolation=process"
    )]
    BesideProcess {
        /// The other's name.
        name: String,
        /// What was asked for.
        origin: String,
    },
    /// What was asked for does not exist.
    #[error(transparent)]
    Unknown(#[from] UnknownIsolation),
}

/// Decides by [`Sources`]; `vm_obstacle` is why this machine cannot run a virtual machine, `None` when it can.
pub fn resolve(sources: Sources<'_>, vm_obstacle: Option<&str>) -> Result<Resolved, IsolationError> {
    let (asked, origin) = ask(sources)?;
    if let Some((mode, name)) = sources.beside {
        return match (asked, mode) {
            (Isolation::Auto, _) => Ok(Resolved { isolation: mode, reason: format!("{origin}: as container {name}") }),
            _ if origin == DEFAULT => {
                Ok(Resolved { isolation: mode, reason: format!("{origin}: as container {name}") })
            }
            (Isolation::Process, Mode::Vm) => Err(IsolationError::BesideVm { name: name.to_owned(), origin }),
            (Isolation::Vm, Mode::Process) => Err(IsolationError::BesideProcess { name: name.to_owned(), origin }),
            (Isolation::Process, Mode::Process) | (Isolation::Vm, Mode::Vm) => {
                Ok(Resolved { isolation: mode, reason: origin })
            }
        };
    }
    Ok(match asked {
        Isolation::Process => Resolved { isolation: Mode::Process, reason: origin },
        Isolation::Vm => Resolved { isolation: Mode::Vm, reason: origin },
        Isolation::Auto => match vm_obstacle {
            None => {
                Resolved { isolation: Mode::Vm, reason: format!("{origin}: this machine can run virtual machines") }
            }
            Some(obstacle) => {
                Resolved { isolation: Mode::Process, reason: format!("{origin}: no virtual machine here, {obstacle}") }
            }
        },
    })
}

fn ask(sources: Sources<'_>) -> Result<(Isolation, String), UnknownIsolation> {
    if let Some(isolation) = named(sources.flag, "--isolation")? {
        return Ok((isolation, format!("--isolation={}", sources.flag)));
    }
    if let Some(isolation) = named(sources.environment, "SBX_ISOLATION")? {
        return Ok((isolation, format!("SBX_ISOLATION={}", sources.environment)));
    }
    if sources.settings_given {
        return Ok((sources.settings, format!("isolation = \"{}\" in the configuration file", sources.settings)));
    }
    Ok((Isolation::Process, DEFAULT.to_owned()))
}

fn named(name: &str, source_name: &'static str) -> Result<Option<Isolation>, UnknownIsolation> {
    if name.is_empty() || name.eq_ignore_ascii_case("default") {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|error: UnknownIsolation| UnknownIsolation { source_name, ..error })
}

impl FromStr for Isolation {
    type Err = UnknownIsolation;

    fn from_str(name: &str) -> Result<Self, UnknownIsolation> {
        match name.to_ascii_lowercase().as_str() {
            "process" => Ok(Self::Process),
            "vm" | "hyperv" => Ok(Self::Vm),
            "auto" => Ok(Self::Auto),
            _ => Err(UnknownIsolation { name: name.to_owned(), source_name: "isolation" }),
        }
    }
}

impl TryFrom<String> for Isolation {
    type Error = UnknownIsolation;

    fn try_from(name: String) -> Result<Self, UnknownIsolation> {
        if name.eq_ignore_ascii_case("default") { Ok(Self::Process) } else { name.parse() }
    }
}

impl From<Isolation> for String {
    fn from(isolation: Isolation) -> Self {
        isolation.to_string()
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Process => "process",
            Self::Vm => "vm",
            Self::Auto => "auto",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Process => "process",
            Self::Vm => "vm",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_source_decides() {
        let all = Sources { flag: "vm", environment: "process", settings_given: true, ..Sources::default() };
        assert_eq!(resolve(all, None).unwrap().isolation, Mode::Vm);
        let no_flag = Sources { flag: "", environment: "hyperv", ..all };
        assert_eq!(
            resolve(no_flag, None).unwrap(),
            Resolved { isolation: Mode::Vm, reason: "SBX_ISOLATION=hyperv".into() }
        );
        let file = Sources { flag: "default", settings: Isolation::Vm, settings_given: true, ..Sources::default() };
        assert_eq!(resolve(file, None).unwrap().isolation, Mode::Vm);
        assert_eq!(
            resolve(Sources::default(), None).unwrap(),
            Resolved { isolation: Mode::Process, reason: "default".into() }
        );
    }

    #[test]
    fn only_auto_looks_at_the_machine() {
        let auto = Sources { flag: "auto", ..Sources::default() };
        assert_eq!(resolve(auto, None).unwrap().isolation, Mode::Vm);
        let without = resolve(auto, Some("/dev/kvm does not exist")).unwrap();
        assert_eq!(without.isolation, Mode::Process);
        assert!(without.reason.contains("/dev/kvm"));
        let explicit = Sources { flag: "vm", ..Sources::default() };
        assert_eq!(resolve(explicit, Some("no KVM")).unwrap().isolation, Mode::Vm);
    }

    #[test]
    fn who_joins_another_is_kept_apart_as_that_one() {
        let beside =
            |flag, mode| resolve(Sources { flag, beside: Some((mode, "db")), ..Sources::default() }, Some("no KVM"));
        assert_eq!(beside("", Mode::Vm).unwrap().reason, "default: as container db");
        assert_eq!(beside("auto", Mode::Vm).unwrap().isolation, Mode::Vm);
        assert_eq!(beside("vm", Mode::Vm).unwrap().reason, "--isolation=vm");
        let refused = beside("process", Mode::Vm).unwrap_err().to_string();
        assert!(refused.contains("--isolation=process: container db is in a virtual machine"), "{refused}");
        let refused = beside("hyperv", Mode::Process).unwrap_err().to_string();
        assert!(refused.contains("container db runs on the host's kernel"), "{refused}");
        assert!(matches!(beside("lxc", Mode::Vm), Err(IsolationError::Unknown(_))));
        // A setting is an answer, the default is none.
        let settings = Sources { settings_given: true, beside: Some((Mode::Vm, "db")), ..Sources::default() };
        assert!(resolve(settings, None).is_err());
    }

    #[test]
    fn unknown_modes_name_their_source() {
        let error = resolve(Sources { flag: "lxc", ..Sources::default() }, None).unwrap_err();
        assert_eq!(error.to_string(), "invalid isolation \"lxc\" in --isolation: want process, vm, auto or default");
        let error = resolve(Sources { environment: "x", ..Sources::default() }, None).unwrap_err();
        assert!(error.to_string().contains("SBX_ISOLATION"));
    }
}
