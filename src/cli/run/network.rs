//! `--network` in both forms, the address flags, `--add-host` and `--dns*`.

use std::{collections::BTreeMap, net::IpAddr};

use sbx_sandbox::config::{EndpointAddresses, EndpointConfig};

use crate::{flags::parse::Parsed, quote::quote, run::mounts::split_fields};

/// One `--network`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attachment {
    pub(crate) network: String,
    pub(crate) endpoint: EndpointConfig,
}

/// `name`, or `name=net,alias=a,ip=10.0.0.5,…`.
///
/// # Errors
/// An unknown key, a bad option, no name.
pub(crate) fn parse_attachment(text: &str) -> Result<Attachment, String> {
    let mut found = Attachment::default();
    if !is_long_form(text) {
        found.network = text.to_owned();
        return Ok(found);
    }
    let mut addresses = EndpointAddresses::default();
    for field in split_fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => found.network = value.to_owned(),
            "alias" => found.endpoint.aliases.push(value.to_owned()),
            "ip" => addresses.ipv4 = value.to_owned(),
            "ip6" => addresses.ipv6 = value.to_owned(),
            "mac-address" => found.endpoint.mac_address = value.to_owned(),
            "link-local-ip" => addresses.link_local.push(value.to_owned()),
            "driver-opt" => {
                let pair = value.split_once('=').filter(|(name, _)| !name.is_empty());
                let (name, value) = pair.ok_or("invalid key value pair format in driver options")?;
                found.endpoint.driver_opts.insert(name.trim().to_owned(), value.trim().to_owned());
            }
            "gw-priority" => match value.parse::<i64>() {
                Ok(0) => {}
                Ok(_) => {
                    return Err("gw-priority is not supported: the first network given is the gateway".to_owned());
                }
                Err(_) => return Err(format!("invalid gw-priority ({value}): invalid syntax")),
            },
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if found.network.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    found.endpoint.ipam_config = (addresses != EndpointAddresses::default()).then_some(addresses);
    Ok(found)
}

fn is_long_form(text: &str) -> bool {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split_once('=').is_some_and(|(key, value)| key.ends_with(word) && value.starts_with(word))
}

pub(crate) fn check_attachment(text: &str) -> Result<(), String> {
    parse_attachment(text).map(drop)
}

fn is_user_defined(network: &str) -> bool {
    !["default", "bridge", "host", "none"].contains(&network) && !network.starts_with("container:")
}

/// Where the container is connected: the mode, and what is asked of each network.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Networks {
    pub(crate) mode: String,
    pub(crate) endpoints: BTreeMap<String, EndpointConfig>,
}

/// Puts `--network` and the flags of the first network (`--ip`, `--network-alias`, …) together.
///
/// # Errors
/// A network named twice, networks that exclude each other, one thing said twice, a bad MAC address.
pub(crate) fn networks(parsed: &Parsed) -> Result<Networks, String> {
    let mut given = parsed.list("network").iter().map(|text| parse_attachment(text)).collect::<Result<Vec<_>, _>>()?;
    if given.is_empty() {
        given.push(Attachment { network: "default".to_owned(), ..Attachment::default() });
    }
    let several = given.len() > 1;
    let user_defined = given.iter().filter(|one| is_user_defined(&one.network)).count();
    let mut found = Networks::default();
    for (index, mut one) in given.into_iter().enumerate() {
        if index == 0 {
            found.mode.clone_from(&one.network);
            add_flags(&mut one.endpoint, parsed)?;
        }
        if one.network.is_empty() {
            return Err("no name set for network".to_owned());
        }
        if found.endpoints.contains_key(&one.network) {
            return Err(format!("network {} is specified multiple times", quote(&one.network)));
        }
        if several && user_defined > 0 && !is_user_defined(&one.network) {
            return Err(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned()
            );
        }
        if !one.endpoint.aliases.is_empty() && !is_user_defined(&one.network) {
            return Err("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
        check_mac(&one.endpoint.mac_address)?;
        // One network with nothing asked of it is all said by the mode.
        found.endpoints.insert(one.network, one.endpoint);
    }
    if several && user_defined == 0 {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned()
        );
    }
    if !several {
        found.endpoints.retain(|_, endpoint| *endpoint != EndpointConfig::default());
    }
    Ok(found)
}

fn add_flags(endpoint: &mut EndpointConfig, parsed: &Parsed) -> Result<(), String> {
    let mut addresses = endpoint.ipam_config.clone().unwrap_or_default();
    let conflict = |flag: &str, what: &str| {
        Err(format!("conflicting options: cannot specify both --{flag} and per-network {what}"))
    };
    let aliases = parsed.list("network-alias");
    if !aliases.is_empty() && !endpoint.aliases.is_empty() {
        return conflict("network-alias", "alias");
    }
    if parsed.is_set("ip") && !addresses.ipv4.is_empty() {
        return conflict("ip", "IPv4 address");
    }
    if parsed.is_set("ip6") && !addresses.ipv6.is_empty() {
        return conflict("ip6", "IPv6 address");
    }
    if parsed.is_set("mac-address") && !endpoint.mac_address.is_empty() {
        return conflict("mac-address", "MAC address");
    }
    if parsed.is_set("link-local-ip") && !addresses.link_local.is_empty() {
        return conflict("link-local-ip", "link-local IP addresses");
    }
    endpoint.aliases.extend_from_slice(aliases);
    addresses.link_local.extend_from_slice(parsed.list("link-local-ip"));
    let replace = |field: &mut String, flag: &str| {
        if let Some(value) = parsed.filled(flag) {
            *field = value;
        }
    };
    replace(&mut addresses.ipv4, "ip");
    replace(&mut addresses.ipv6, "ip6");
    replace(&mut endpoint.mac_address, "mac-address");
    endpoint.ipam_config = (addresses != EndpointAddresses::default()).then_some(addresses);
    Ok(())
}

/// Six, eight or twenty bytes in hex, with `:` or `-` between bytes or `.` between pairs of bytes.
fn check_mac(text: &str) -> Result<(), String> {
    let lengths = [6, 8, 20];
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = |separator: char, digits: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        parts.iter().all(|part| hex(part, digits)) && lengths.contains(&(parts.len() * digits / 2))
    };
    if text.is_empty() || parts(':', 2) || parts('-', 2) || parts('.', 4) {
        return Ok(());
    }
    Err(format!("{text} is not a valid mac address"))
}

/// `host:ip`, `host=ip`, `host:[v6]`; the result is `host:ip`.
///
/// # Errors
/// No host, or something that is neither an address nor `host-gateway`.
pub(crate) fn parse_extra_host(text: &str) -> Result<String, String> {
    let pair = text.split_once('=').or_else(|| text.split_once(':')).filter(|(name, _)| !name.is_empty());
    let (name, address) = pair.ok_or_else(|| format!("bad format for add-host: {}", quote(text)))?;
    if address == "host-gateway" {
        return Ok(format!("{name}:{address}"));
    }
    let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {}", quote(address)));
    }
    Ok(format!("{name}:{plain}"))
}

pub(crate) fn check_extra_host(text: &str) -> Result<(), String> {
    parse_extra_host(text).map(drop)
}

/// An address of a name server, in its usual spelling.
pub(crate) fn parse_name_server(text: &str) -> Result<String, String> {
    let address: IpAddr = text.trim().parse().map_err(|_| format!("IP address is not correctly formatted: {text}"))?;
    Ok(address.to_canonical().to_string())
}

pub(crate) fn check_name_server(text: &str) -> Result<(), String> {
    parse_name_server(text).map(drop)
}

/// A search domain without its last dot; `.` alone means none.
pub(crate) fn parse_search_domain(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches(' ');
    if trimmed == "." {
        return Ok(trimmed.to_owned());
    }
    let domain = trimmed.strip_suffix('.').unwrap_or(trimmed);
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let named = domain.bytes().any(|byte| byte.is_ascii_alphabetic());
    if named && domain.len() < 255 && domain.split('.').all(label) {
        return Ok(domain.to_owned());
    }
    Err(format!("{trimmed} is not a valid domain"))
}

pub(crate) fn check_search_domain(text: &str) -> Result<(), String> {
    parse_search_domain(text).map(drop)
}
