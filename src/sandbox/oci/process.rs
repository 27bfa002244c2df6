//! The first process in OCI form.

use std::str::FromStr;

use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, User,
};

use super::Error;
use crate::environment::{self, Stdio};
use crate::host_config::Ulimit;
use crate::spec::SandboxSpec;

pub(crate) fn process(spec: &SandboxSpec) -> Result<Process, Error> {
    let (config, host) = (&spec.config, &spec.host_config);
    let stdio = if config.tty { Stdio::Terminal } else { Stdio::Streams };
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_console_size(console_size(spec)?)
        .set_user(user(&config.user))
        .set_args(Some(spec.args()))
        .set_env(Some(environment::of_container(config, stdio)))
        .set_cwd(cwd.into())
        .set_capabilities(Some(capabilities(&spec.security.capabilities)?))
        .set_rlimits(rlimits(&host.ulimits)?)
        .set_no_new_privileges(Some(spec.security.no_new_privileges))
        .set_apparmor_profile(spec.security.apparmor.clone())
        .set_oom_score_adj(Some(host.oom_score_adj));
    Ok(process)
}

fn console_size(spec: &SandboxSpec) -> Result<Option<ConsoleSize>, Error> {
    let [height, width] = spec.host_config.console_size;
    if !spec.config.tty || (height == 0 && width == 0) {
        return Ok(None);
    }
    let size = BoxBuilder::default().height(height).width(width).build();
    size.map(Some).map_err(|error| Error::invalid("ConsoleSize", error))
}

/// Numbers as they are. A name is resolved by the image's own files inside the container (the plan carries it), so
/// that here stands root.
fn user(user: &str) -> User {
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    let mut numbers = User::default();
    numbers.set_uid(uid.parse().unwrap_or(0));
    numbers.set_gid(gid.parse().unwrap_or(0));
    numbers
}

/// Docker gives the same set as bounding, permitted and effective, and nothing inheritable (CVE-2022-24769).
fn capabilities(names: &[String]) -> Result<LinuxCapabilities, Error> {
    let mut set = Capabilities::new();
    for name in names {
        let known = Capability::from_str(name.trim_start_matches("CAP_"));
        set.insert(known.map_err(|_| Error::invalid("CapAdd", format!("unknown capability {name}")))?);
    }
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    Ok(capabilities)
}

fn rlimits(ulimits: &[Ulimit]) -> Result<Option<Vec<PosixRlimit>>, Error> {
    let mut limits = Vec::new();
    for ulimit in ulimits {
        let kind = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let kind = PosixRlimitType::from_str(&kind)
            .map_err(|_| Error::invalid("Ulimits", format!("invalid ulimit type: {}", ulimit.name)))?;
        // -1 is RLIM_INFINITY, all bits set.
        let (soft, hard) = (ulimit.soft.cast_unsigned(), ulimit.hard.cast_unsigned());
        let limit = PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
        let limit = limit.map_err(|error| Error::invalid("Ulimits", error))?;
        limits.push(limit);
    }
    Ok((!limits.is_empty()).then_some(limits))
}
