//! Capabilities and `--security-opt`.

use crate::capabilities::Error;
use crate::profile;
use crate::spec::{SeccompChoice, Security};

use super::logging::boolean;
use super::{Invalid, Resolver};

const FIELD: &str = "HostConfig.SecurityOpt";

/// Checked early, as in Docker; the names are normalised to `CAP_CHOWN` or `ALL`.
pub(super) fn check_capabilities(resolver: &Resolver<'_>) -> Result<(), Invalid> {
    capabilities(resolver).map(drop)
}

fn capabilities(resolver: &Resolver<'_>) -> Result<Vec<String>, Invalid> {
    let last = resolver.context.machine.cap_last_cap;
    profile::capabilities(&resolver.request.host_config, last).map_err(|error| {
        let (Error::Unknown { field, .. } | Error::Unsupported { field, .. }) = &error;
        let field = if *field == "CapDrop" { "HostConfig.CapDrop" } else { "HostConfig.CapAdd" };
        Invalid::new(field, error.to_string())
    })
}

pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Result<Security, Invalid> {
    let mut security = Security {
        no_new_privileges: resolver.context.settings.container.no_new_privileges,
        capabilities: capabilities(resolver)?,
        ..Security::default()
    };
    for option in resolver.request.host_config.security_opt.clone() {
        apply(resolver, &mut security, &option)?;
    }
    let host = &resolver.request.host_config;
    if security.writable_cgroups == Some(true) && host.userns_mode == "private" {
        return Err(Invalid::new(FIELD, "option WritableCgroups conflicts with user namespaces and rootless mode"));
    }
    seccomp(resolver, &mut security)?;
    paths(resolver);
    Ok(security)
}

fn apply(resolver: &Resolver<'_>, security: &mut Security, option: &str) -> Result<(), Invalid> {
    match option {
        "no-new-privileges" => {
            security.no_new_privileges = true;
            return Ok(());
        }
        "writable-cgroups" => {
            security.writable_cgroups = Some(true);
            return Ok(());
        }
        "disable" => return label(resolver, option),
        _ => {}
    }
    // `:` is Docker's old separator; it still takes it.
    let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
        return Err(Invalid::new(FIELD, format!("invalid --security-opt 1: {option:?}")));
    };
    let unknown = || Invalid::new(FIELD, format!("invalid --security-opt 2: {option:?}"));
    match key {
        "label" => label(resolver, value)?,
        "apparmor" => security.apparmor = apparmor(resolver, value)?,
        "seccomp" => {
            security.seccomp = match value {
                "unconfined" => SeccompChoice::Unconfined,
                "builtin" | "" => SeccompChoice::Default,
                text => SeccompChoice::Custom(text.to_owned()),
            }
        }
        "no-new-privileges" => security.no_new_privileges = boolean(value).ok_or_else(unknown)?,
        "writable-cgroups" => security.writable_cgroups = Some(boolean(value).ok_or_else(unknown)?),
        _ => return Err(unknown()),
    }
    Ok(())
}

/// Only "no label" can be had: nothing here labels files.
fn label(resolver: &Resolver<'_>, value: &str) -> Result<(), Invalid> {
    if value == "disable" {
        return Ok(());
    }
    let reason = if resolver.context.machine.selinux {
        "sbx does not label files for SELinux; only label=disable is supported"
    } else {
        "SELinux is not enabled in your kernel"
    };
    Err(Invalid::new(FIELD, format!("--security-opt label={value}: {reason}")))
}

fn apparmor(resolver: &Resolver<'_>, profile: &str) -> Result<Option<String>, Invalid> {
    if resolver.context.machine.apparmor {
        let named = !profile.is_empty() && !profile.contains(char::is_whitespace);
        return match named {
            true => Ok(Some(profile.to_owned())),
            false => Err(Invalid::new(FIELD, format!("invalid AppArmor profile {profile:?}"))),
        };
    }
    if profile == "unconfined" {
        return Ok(None);
    }
    Err(Invalid::new(FIELD, format!("--security-opt apparmor={profile}: AppArmor is not enabled in your kernel")))
}

fn seccomp(resolver: &mut Resolver<'_>, security: &mut Security) -> Result<(), Invalid> {
    let machine = resolver.context.machine;
    let custom = matches!(security.seccomp, SeccompChoice::Custom(_));
    if custom && !machine.seccomp {
        let message = "seccomp is not enabled in your kernel, cannot run a custom seccomp profile";
        return Err(Invalid::new(FIELD, message));
    }
    if custom {
        profile::seccomp(security, &resolver.request.host_config, machine)
            .map_err(|error| Invalid::new(FIELD, format!("decoding seccomp profile failed: {error}")))?;
    }
    if security.seccomp == SeccompChoice::Default && !machine.seccomp {
        security.seccomp = SeccompChoice::Unconfined;
        resolver.warn("seccomp is not enabled in your kernel, running container without default profile");
    }
    Ok(())
}

/// Masked and read-only paths: Docker's, none for a privileged container, or those of the request.
fn paths(resolver: &mut Resolver<'_>) {
    let machine = resolver.context.machine;
    let host = &mut resolver.request.host_config;
    let privileged = host.privileged;
    host.masked_paths
        .get_or_insert_with(|| if privileged { Vec::new() } else { crate::oci::default_masked_paths(machine) });
    host.readonly_paths.get_or_insert_with(
        || {
            if privileged { Vec::new() } else { crate::oci::default_readonly_paths() }
        },
    );
}
