//! The JSON form of a profile: Docker's format, and OCI's as the part of it without conditions.
//!
//! Unlike Docker, which reads past what it does not know, a field or value that is not known is an error: a profile
//! that is misspelt must not run with fewer rules than its author wrote.

use sbx_container::capabilities;
use sbx_container::plan::{SeccompArg, SeccompRule};
use serde::{Deserialize, Deserializer};

use super::profile::{Architecture, Conditions, Profile, Rule};
use super::{DEFAULT_FLAG, Error};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    default_action: Option<String>,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<ArchMap>,
    flags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable")]
    listener_path: String,
    #[serde(default, deserialize_with = "nullable")]
    listener_metadata: String,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<Syscall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Syscall {
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    /// The form of old profiles.
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    action: Option<String>,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<Arg>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Filter,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    min_kernel: String,
}

/// Go writes an empty slice, map or pointer as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];

const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];

const ARCHITECTURES: [&str; 18] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
];

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Docker's names, of `includes.arches`.
const DOCKER_ARCHITECTURES: [&str; 21] = [
    "x86",
    "amd64",
    "x32",
    "arm",
    "arm64",
    "loong64",
    "loongarch64",
    "mips",
    "mips64",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "mips3l64n32",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390",
    "s390x",
];

/// Reads a profile for hosts of one architecture.
pub(super) fn parse(text: &str, architecture: Architecture) -> Result<Profile, Error> {
    let document: Document = serde_json::from_str(text)?;
    for (field, value) in [("listenerPath", &document.listener_path), ("listenerMetadata", &document.listener_metadata)]
    {
        if !value.is_empty() {
            let reason = "no agent is notified; use another action than SCMP_ACT_NOTIFY";
            return Err(Error::Unsupported { field: field.to_owned(), reason });
        }
    }
    let default_action = action(document.default_action, "defaultAction")?;
    errno(document.default_errno_ret, &default_action, "defaultErrnoRet")?;
    if !document.architectures.is_empty() && !document.arch_map.is_empty() {
        return Err(Error::Both { first: "architectures".to_owned(), second: "archMap".to_owned() });
    }
    let mut architectures = known_all(document.architectures, "architectures", &ARCHITECTURES, AN_ARCHITECTURE)?;
    for (position, entry) in document.arch_map.into_iter().enumerate() {
        let field = format!("archMap[{position}]");
        let main = known(entry.architecture, &format!("{field}.architecture"), &ARCHITECTURES, AN_ARCHITECTURE)?;
        let field = format!("{field}.subArchitectures");
        let subs = known_all(entry.sub_architectures, &field, &ARCHITECTURES, AN_ARCHITECTURE)?;
        if architectures.is_empty() && main == architecture.libseccomp_name() {
            architectures.push(main);
            architectures.extend(subs);
        }
    }
    let flags = match document.flags {
        Some(flags) => known_all(flags, "flags", &FLAGS, "a flag such as \"SECCOMP_FILTER_FLAG_LOG\"")?,
        None => vec![DEFAULT_FLAG.to_owned()],
    };
    let rules = document.syscalls.into_iter().enumerate();
    let rules =
        rules.map(|(position, syscall)| rule(syscall, &format!("syscalls[{position}]"))).collect::<Result<_, _>>()?;
    Ok(Profile { default_action, default_errno: document.default_errno_ret, architectures, flags, rules })
}

const AN_ARCHITECTURE: &str = "an architecture such as \"SCMP_ARCH_X86_64\"";

fn rule(syscall: Syscall, field: &str) -> Result<Rule, Error> {
    let names = match (syscall.names, syscall.name) {
        (names, name) if name.is_empty() => names,
        (names, name) if names.is_empty() => vec![name],
        _ => {
            return Err(Error::Both { first: format!("{field}.name"), second: format!("{field}.names") });
        }
    };
    if names.is_empty() {
        return Err(Error::Missing { field: format!("{field}.names") });
    }
    if let Some(position) = names.iter().position(String::is_empty) {
        let field = format!("{field}.names[{position}]");
        return Err(Error::Value { field, value: String::new(), expected: "the name of a system call" });
    }
    let action = action(syscall.action, &format!("{field}.action"))?;
    errno(syscall.errno_ret, &action, &format!("{field}.errnoRet"))?;
    let args = syscall.args.into_iter().enumerate();
    let args =
        args.map(|(position, arg)| self::arg(arg, &format!("{field}.args[{position}]"))).collect::<Result<_, _>>()?;
    let rule = SeccompRule { names, action, errno: syscall.errno_ret, args };
    let includes = conditions(syscall.includes, &format!("{field}.includes"))?;
    let excludes = conditions(syscall.excludes, &format!("{field}.excludes"))?;
    Ok(Rule { rule, includes, excludes })
}

fn action(action: Option<String>, field: &str) -> Result<String, Error> {
    let action = action.ok_or_else(|| Error::Missing { field: field.to_owned() })?;
    if action == "SCMP_ACT_NOTIFY" {
        let reason = "SCMP_ACT_NOTIFY needs an agent that answers; use another action";
        return Err(Error::Unsupported { field: field.to_owned(), reason });
    }
    known(action, field, &ACTIONS, "an action such as \"SCMP_ACT_ALLOW\"")
}

/// Checks the data of the actions that have some; for the others Docker carries it along without a meaning.
fn errno(errno: Option<u32>, action: &str, field: &str) -> Result<(), Error> {
    let (highest, expected) = match action {
        "SCMP_ACT_ERRNO" => (4094, "an errno from 0 to 4094"),
        "SCMP_ACT_TRACE" => (65535, "a number from 0 to 65535"),
        _ => return Ok(()),
    };
    match errno.filter(|errno| *errno > highest) {
        Some(errno) => Err(Error::Value { field: field.to_owned(), value: errno.to_string(), expected }),
        None => Ok(()),
    }
}

fn arg(arg: Arg, field: &str) -> Result<SeccompArg, Error> {
    if arg.index > 5 {
        let (field, value) = (format!("{field}.index"), arg.index.to_string());
        return Err(Error::Value { field, value, expected: "an argument from 0 to 5" });
    }
    let op = known(arg.op, &format!("{field}.op"), &OPERATORS, "an operator such as \"SCMP_CMP_EQ\"")?;
    Ok(SeccompArg { index: arg.index, value: arg.value, value_two: arg.value_two, op })
}

fn conditions(filter: Filter, field: &str) -> Result<Conditions, Error> {
    let capabilities = known_all(
        filter.caps,
        &format!("{field}.caps"),
        &capabilities::NAMES,
        "a capability such as \"CAP_SYS_ADMIN\"",
    )?;
    let architectures = known_all(
        filter.arches,
        &format!("{field}.arches"),
        &DOCKER_ARCHITECTURES,
        "an architecture such as \"amd64\"",
    )?;
    let min_kernel = kernel(filter.min_kernel, &format!("{field}.minKernel"))?;
    Ok(Conditions { capabilities, architectures, min_kernel })
}

/// `4.8`: two numbers up to 255, not both 0.
fn kernel(text: String, field: &str) -> Result<Option<(u32, u32)>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<u8>().ok().map(u32::from);
    let version = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    match version.filter(|version| *version != (0, 0)) {
        Some(version) => Ok(Some(version)),
        None => {
            Err(Error::Value { field: field.to_owned(), value: text, expected: "a kernel version such as \"4.8\"" })
        }
    }
}

fn known_all(
    values: Vec<String>,
    field: &str,
    known_values: &[&str],
    expected: &'static str,
) -> Result<Vec<String>, Error> {
    let values = values.into_iter().enumerate();
    values.map(|(position, value)| known(value, &format!("{field}[{position}]"), known_values, expected)).collect()
}

fn known(value: String, field: &str, known_values: &[&str], expected: &'static str) -> Result<String, Error> {
    if known_values.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(Error::Value { field: field.to_owned(), value, expected })
}
