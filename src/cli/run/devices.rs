//! `--device`, `--device-cgroup-rule` and the block IO limits of single devices.

use sbx_sandbox::host_config::{DeviceMapping, ThrottleDevice, WeightDevice};

use crate::{flags::values::parse_uint, units::parse_size};

/// `/dev/a`, `/dev/a:/dev/b`, `/dev/a:r`, `/dev/a:/dev/b:rwm`.
///
/// # Errors
/// A path in the container that is not absolute, an unknown mode, too many parts.
pub(crate) fn parse_device(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let bad_format = || format!("bad format for path: {text}");
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] => (*host, *container, *mode),
        _ => return Err(bad_format()),
    };
    if host.is_empty() {
        return Err(bad_format());
    }
    if !is_mode(mode) {
        return Err(format!("bad mode specified: {mode}"));
    }
    if !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

fn is_mode(text: &str) -> bool {
    let once = |letter| text.bytes().filter(|byte| *byte == letter).count() <= 1;
    !text.is_empty() && text.bytes().all(|byte| b"rwm".contains(&byte)) && b"rwm".iter().all(|letter| once(*letter))
}

/// Whether the text names a device by its vendor (`vendor.com/class=name`), not by a path.
pub(crate) fn is_vendor_device(text: &str) -> bool {
    !text.starts_with('/') && text.split_once('=').is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
}

/// `c 42:* rwm`.
pub(crate) fn check_rule(text: &str) -> Result<(), String> {
    let number = |part: &str| part == "*" || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let parts: Vec<&str> = text.split(' ').collect();
    let valid = matches!(parts.as_slice(), [kind, numbers, mode]
        if ["a", "b", "c"].contains(kind)
            && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
            && (1..=3).contains(&mode.len())
            && mode.bytes().all(|byte| b"rwm".contains(&byte)));
    if valid { Ok(()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

fn split_device(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

/// `/dev/sda:200`.
pub(crate) fn parse_weight(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = split_device(text)?;
    let weight = parse_uint(value, 1000).ok().filter(|weight| *weight == 0 || *weight >= 10);
    let weight = weight.and_then(|weight| u16::try_from(weight).ok());
    let weight = weight.ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `/dev/sda:1mb`.
pub(crate) fn parse_rate_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = split_device(text)?;
    let rate = parse_size(value).ok().and_then(|rate| u64::try_from(rate).ok()).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `/dev/sda:100`.
pub(crate) fn parse_rate_operations(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = split_device(text)?;
    let rate = parse_uint(value, u64::MAX).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

pub(crate) fn check_weight(text: &str) -> Result<(), String> {
    parse_weight(text).map(drop)
}

pub(crate) fn check_rate_bytes(text: &str) -> Result<(), String> {
    parse_rate_bytes(text).map(drop)
}

pub(crate) fn check_rate_operations(text: &str) -> Result<(), String> {
    parse_rate_operations(text).map(drop)
}
