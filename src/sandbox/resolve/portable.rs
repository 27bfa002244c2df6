//! `Config`: the part of a request that can move to another host.

use crate::config::{Config, Healthcheck};
use crate::environment::name_of;
use crate::path::clean_rooted;
use crate::signal;

use super::{Invalid, Resolver, mounts, network};

/// Bytes (HOST_NAME_MAX).
const LONGEST_HOSTNAME: usize = 64;
/// Nanoseconds; Docker's shortest interval.
const SHORTEST: i64 = 1_000_000;

/// Checked before the image is merged in, and again after, since an image can be wrong as well.
pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    no_null_bytes(config)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        let message =
            format!("the working directory '{}' is invalid, it needs to be an absolute path", config.working_dir);
        return Err(Invalid::new("Config.WorkingDir", message));
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal).map_err(|error| Invalid::new("Config.StopSignal", error.to_string()))?;
    }
    if let Some(timeout) = config.stop_timeout.filter(|&timeout| timeout < -1) {
        let message = format!("invalid stop timeout {timeout}: want seconds, or -1 to wait for ever");
        return Err(Invalid::new("Config.StopTimeout", message));
    }
    if let Some(entry) = config.env.iter().find(|entry| name_of(entry).is_empty()) {
        return Err(Invalid::new("Config.Env", format!("invalid environment variable: {entry}")));
    }
    if config.labels.keys().any(String::is_empty) {
        return Err(Invalid::new("Config.Labels", "invalid label: the key of a label is empty"));
    }
    if let Some(health) = &config.healthcheck {
        healthcheck(health)?;
    }
    hostname("Config.Hostname", &config.hostname)?;
    hostname("Config.Domainname", &config.domainname)?;
    user(&config.user)?;
    for port in config.exposed_ports.keys() {
        network::port(port).map_err(|message| Invalid::new("Config.ExposedPorts", message))?;
    }
    for path in config.volumes.keys() {
        mounts::anonymous_target(path)?;
    }
    network::mac("Config.MacAddress", &config.mac_address)
}

fn no_null_bytes(config: &Config) -> Result<(), Invalid> {
    let words = config.cmd.iter().flatten().chain(config.entrypoint.iter().flatten()).chain(&config.env);
    let single = [&config.working_dir, &config.user, &config.hostname, &config.domainname];
    if words.chain(single).any(|word| word.contains('\0')) {
        return Err(Invalid::new("Config", "a command, variable or name contains a null byte"));
    }
    Ok(())
}

fn healthcheck(health: &Healthcheck) -> Result<(), Invalid> {
    let field = "Config.Healthcheck";
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < SHORTEST {
            return Err(Invalid::new(field, format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(Invalid::new(field, "Retries in Healthcheck cannot be negative"));
    }
    match health.test.first().map(String::as_str) {
        None | Some("NONE") => Ok(()),
        Some("CMD") if health.test.len() > 1 => Ok(()),
        Some("CMD-SHELL") if health.test.len() == 2 => Ok(()),
        Some("CMD") => Err(Invalid::new(field, "Healthcheck CMD needs a command")),
        Some("CMD-SHELL") => Err(Invalid::new(field, "Healthcheck CMD-SHELL needs one command line")),
        Some(other) => {
            let message = format!("Unknown healthcheck type '{other}' (expected 'CMD', 'CMD-SHELL' or 'NONE')");
            Err(Invalid::new(field, message))
        }
    }
}

/// What sethostname(2) takes and what can stand in a line of `/etc/hosts`.
fn hostname(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.len() > LONGEST_HOSTNAME {
        let kind = if field == "Config.Hostname" { "hostname" } else { "domainname" };
        return Err(Invalid::new(field, format!("{kind} {name:?} is too long (maximum {LONGEST_HOSTNAME} bytes)")));
    }
    if name.contains(|character: char| character.is_whitespace() || character.is_control() || "/:#".contains(character))
    {
        return Err(Invalid::new(field, format!("invalid hostname format: {name:?}")));
    }
    Ok(())
}

/// Ids are numbers up to 2³¹ − 1 in plain decimal form, or names; what looks like a number is never a name
/// (CVE-2024-40635). Whether a name exists is found out inside the container.
fn user(user: &str) -> Result<(), Invalid> {
    let wrong = |message: String| Err(Invalid::new("Config.User", message));
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    for part in [uid, gid] {
        let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
        let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            || hexadecimal.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let plain = part.parse::<i32>().is_ok_and(|id| id >= 0 && id.to_string() == part);
        if numeric && !plain {
            let range = format!("uids and gids must be in range 0-{}, in plain decimal form", i32::MAX);
            return wrong(format!("invalid user {user:?}: {range}"));
        }
        if part.contains(|character: char| character.is_control() || "/: ".contains(character)) {
            return wrong(format!("invalid user {user:?}: want NAME|UID[:GROUP|GID]"));
        }
    }
    Ok(())
}

/// What holds where neither the user nor the image says anything.
pub(super) fn defaults(resolver: &mut Resolver<'_>) {
    let machine = resolver.context.machine;
    let short = resolver.context.identity.id.short().to_owned();
    let default_stop_timeout = resolver.context.settings.container.stop_timeout;
    let host = &resolver.request.host_config;
    let host_names = host.network_mode == "host" || host.uts_mode == "host";
    let config = &mut resolver.request.config;
    if config.hostname.is_empty() {
        config.hostname = if host_names { machine.hostname.clone() } else { short };
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = "SIGTERM".to_owned();
    }
    config.stop_timeout.get_or_insert(default_stop_timeout);
    config.working_dir = match config.working_dir.as_str() {
        "" => String::new(),
        path => clean_rooted(path),
    };
}
