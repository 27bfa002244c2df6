//! Logging, restart policy and automatic removal.

use std::collections::BTreeMap;

use crate::host_config::HostConfig;
use crate::size;

use super::{Invalid, Resolver};

/// Options that every driver takes.
const JSON_FILE_OPTIONS: [&str; 10] = [
    "max-file",
    "max-size",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
    "max-buffer-size",
];

/// Checks the restart policy and makes an empty one `no`.
pub(super) fn restart(host: &mut HostConfig) -> Result<(), Invalid> {
    let policy = &mut host.restart_policy;
    let field = "HostConfig.RestartPolicy";
    if policy.name.is_empty() {
        "no".clone_into(&mut policy.name);
        policy.maximum_retry_count = 0;
    }
    let retries = policy.maximum_retry_count;
    let message = match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if retries != 0 => {
            let negative = if retries < 0 { " and cannot be negative" } else { "" };
            format!("invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}")
        }
        "on-failure" if retries < 0 => "invalid restart policy: maximum retry count cannot be negative".to_owned(),
        "no" | "always" | "unless-stopped" | "on-failure" => String::new(),
        other => format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
             'unless-stopped'"
        ),
    };
    if !message.is_empty() {
        return Err(Invalid::new(field, message));
    }
    if host.auto_remove && policy.name != "no" {
        return Err(Invalid::new("HostConfig.AutoRemove", "can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    let defaults = &resolver.context.settings.log;
    let log = &mut resolver.request.host_config.log_config;
    if log.r#type.is_empty() {
        log.r#type.clone_from(&defaults.driver);
    }
    if log.r#type == defaults.driver {
        for (key, value) in &defaults.options {
            log.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    match log.r#type.as_str() {
        "none" => match log.config.keys().next() {
            None => Ok(()),
            Some(key) => Err(wrong(format!("unknown log opt '{key}' for none log driver"))),
        },
        "json-file" => json_file(resolver),
        other => Err(wrong(format!(
            "logger: no log driver named '{other}' is registered: --log-driver takes json-file or none"
        ))),
    }
}

fn wrong(message: String) -> Invalid {
    Invalid::new("HostConfig.LogConfig", message)
}

fn json_file(resolver: &mut Resolver<'_>) -> Result<(), Invalid> {
    let options = resolver.request.host_config.log_config.config.clone();
    let (files, size) = rotation(&options)?;
    buffering(&options)?;
    if files > 1 && size < 0 {
        resolver.warn("log opt max-file has no effect without max-size: the log grows without a limit");
    }
    Ok(())
}

/// Number of files and bytes of each; -1 is unlimited.
fn rotation(options: &BTreeMap<String, String>) -> Result<(i64, i64), Invalid> {
    if let Some(key) = options.keys().find(|key| !JSON_FILE_OPTIONS.contains(&key.as_str())) {
        return Err(wrong(format!("unknown log opt '{key}' for json-file log driver")));
    }
    let files = options.get("max-file").map(|value| match value.parse::<i64>() {
        Ok(count) if count >= 1 => Ok(count),
        Ok(_) => Err(wrong("max-file cannot be less than 1".to_owned())),
        Err(_) => Err(wrong(format!("invalid value for max-file: {value:?} is not a number"))),
    });
    let files = files.transpose()?.unwrap_or(1);
    let size = options.get("max-size").map(|value| match size::parse_bytes(value) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ if value == "-1" => Ok(-1),
        Ok(_) => Err(wrong("max-size must be a positive number".to_owned())),
        Err(error) => Err(wrong(format!("max-size: {error}"))),
    });
    let size = size.transpose()?.unwrap_or(-1);
    if let Some(value) = options.get("compress") {
        let compress = boolean(value).ok_or_else(|| wrong(format!("invalid value for compress: {value:?}")))?;
        if compress && (files == 1 || size < 0) {
            return Err(wrong(
                "compress cannot be true when max-file is less than 2 or max-size is not set".to_owned(),
            ));
        }
        if compress {
            return Err(wrong("compress=true is not available: rotated files are kept as they are".to_owned()));
        }
    }
    Ok((files, size))
}

fn buffering(options: &BTreeMap<String, String>) -> Result<(), Invalid> {
    match options.get("mode").map(String::as_str) {
        None | Some("blocking") => {}
        // Output is written to the page cache by the process that reads it; there is no queue to drop it from.
        Some("non-blocking") => {
            return Err(wrong("logging mode non-blocking is not available: use mode=blocking".to_owned()));
        }
        Some(other) => {
            return Err(wrong(format!("logger: logging mode not supported: {other}")));
        }
    }
    match options.get("max-buffer-size") {
        Some(_) => Err(wrong("logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned())),
        None => Ok(()),
    }
}

/// What Go's `strconv.ParseBool` takes.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
