//! The filter of system calls in OCI form.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall};
use sbx_container::plan::{Seccomp, SeccompArg, SeccompRule};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;
use crate::facts::MachineFacts;
use crate::spec::SandboxSpec;

/// The filter that holds for a sandbox, in the plan's form; `None` is unconfined.
///
/// A privileged container has none unless it names one, as in Docker.
pub fn profile(spec: &SandboxSpec, machine: &MachineFacts) -> Result<Option<Seccomp>, Error> {
    crate::profile::seccomp(&spec.security, &spec.host_config, machine)
        .map_err(|error| Error::invalid("SecurityOpt", error))
}

pub(super) fn filter(spec: &SandboxSpec, machine: &MachineFacts) -> Result<Option<LinuxSeccomp>, Error> {
    profile(spec, machine)?.map(|profile| to_oci(&profile)).transpose()
}

fn to_oci(profile: &Seccomp) -> Result<LinuxSeccomp, Error> {
    let mut filter = LinuxSeccomp::default();
    filter
        .set_default_action(named(&profile.default_action)?)
        .set_default_errno_ret(profile.default_errno)
        .set_architectures(optional(list(&profile.architectures)?))
        .set_flags(optional(list(&profile.flags)?))
        .set_syscalls(Some(profile.rules.iter().map(rule).collect::<Result<_, _>>()?));
    Ok(filter)
}

fn rule(rule: &SeccompRule) -> Result<LinuxSyscall, Error> {
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(rule.names.clone())
        .set_action(named(&rule.action)?)
        .set_errno_ret(rule.errno)
        .set_args(optional(rule.args.iter().map(argument).collect::<Result<_, _>>()?));
    Ok(syscall)
}

fn argument(argument: &SeccompArg) -> Result<LinuxSeccompArg, Error> {
    let index = usize::try_from(argument.index).map_err(|error| Error::invalid("seccomp", error))?;
    let mut condition = LinuxSeccompArgBuilder::default()
        .index(index)
        .value(argument.value)
        .op(named::<LinuxSeccompOperator>(&argument.op)?);
    if argument.value_two != 0 {
        condition = condition.value_two(argument.value_two);
    }
    condition.build().map_err(|error| Error::invalid("seccomp", error))
}

fn list<T: DeserializeOwned>(names: &[String]) -> Result<Vec<T>, Error> {
    names.iter().map(|name| named(name)).collect()
}

/// The value of an enumeration by its name in the specification.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, Error> {
    serde_json::from_value(Value::String(name.to_owned())).map_err(|error| Error::invalid("seccomp", error))
}

fn optional<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
