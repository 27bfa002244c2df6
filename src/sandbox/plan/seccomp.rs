//! The OCI filter of system calls becomes the plan's.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use sbx_container::plan::{Seccomp, SeccompArg, SeccompRule};
use serde::Serialize;
use serde_json::Value;

use super::Error;

pub(super) fn filter(filter: &LinuxSeccomp) -> Result<Seccomp, Error> {
    if filter.listener_path().is_some() || filter.listener_metadata().is_some() {
        return Err(Error::unsupported("linux.seccomp.listenerPath", "nobody here passes the listener on"));
    }
    Ok(Seccomp {
        default_action: name("defaultAction", filter.default_action())?,
        default_errno: filter.default_errno_ret(),
        architectures: list("architectures", filter.architectures().as_deref())?,
        flags: list("flags", filter.flags().as_deref())?,
        rules: filter.syscalls().iter().flatten().map(rule).collect::<Result<_, _>>()?,
    })
}

fn rule(syscall: &LinuxSyscall) -> Result<SeccompRule, Error> {
    Ok(SeccompRule {
        names: syscall.names().clone(),
        action: name("syscalls.action", syscall.action())?,
        errno: syscall.errno_ret(),
        args: syscall.args().iter().flatten().map(argument).collect::<Result<_, _>>()?,
    })
}

fn argument(argument: &LinuxSeccompArg) -> Result<SeccompArg, Error> {
    let index = argument.index();
    let index = u32::try_from(index).ok().filter(|&index| index < 6);
    let index = index
        .ok_or_else(|| Error::invalid("linux.seccomp.syscalls.args.index", "a system call has arguments 0 to 5"))?;
    Ok(SeccompArg {
        index,
        value: argument.value(),
        value_two: argument.value_two().unwrap_or(0),
        op: name("syscalls.args.op", argument.op())?,
    })
}

fn list<T: Serialize + Copy>(field: &str, values: Option<&[T]>) -> Result<Vec<String>, Error> {
    values.unwrap_or_default().iter().map(|&value| name(field, value)).collect()
}

/// The name of an enumeration's value in the specification.
fn name<T: Serialize>(field: &str, value: T) -> Result<String, Error> {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => Ok(name),
        other => Err(Error::invalid(format!("linux.seccomp.{field}"), format!("{other:?} has no name"))),
    }
}
