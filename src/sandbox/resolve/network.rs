//! Published ports, names and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::EndpointConfig;
use crate::host_config::HostConfig;

use super::{Invalid, Resolver};

pub(super) fn check(resolver: &Resolver<'_>) -> Result<(), Invalid> {
    let host = &resolver.request.host_config;
    network_name(&host.network_mode)?;
    for entry in &host.extra_hosts {
        extra_host(entry).map_err(|message| Invalid::new("HostConfig.ExtraHosts", message))?;
    }
    ports(host)?;
    name_service(host)?;
    for (name, endpoint) in &resolver.request.networking.endpoints_config {
        network_name(name)?;
        check_endpoint(name, endpoint)?;
    }
    let endpoints: Vec<_> = resolver.request.networking.endpoints_config.values().collect();
    let shared =
        host.network_mode == "host" || host.network_mode == "none" || host.network_mode.starts_with("container:");
    let addressed = endpoints.iter().any(|endpoint| endpoint.ipam_config.is_some() || !endpoint.aliases.is_empty());
    if shared && (addressed || !resolver.request.config.mac_address.is_empty()) {
        let message = format!(
            "invalid config for network {}: an address or alias cannot be given with this network mode",
            host.network_mode
        );
        return Err(Invalid::new("NetworkingConfig", message));
    }
    if host.network_mode == "host" && !host.port_bindings.is_empty() {
        let message = "conflicting options: port publishing and the host's network (its ports are the container's): \
                       remove -p or --network=host";
        return Err(Invalid::new("HostConfig.PortBindings", message));
    }
    if host.network_mode == "none" && !host.port_bindings.is_empty() {
        let message = "conflicting options: port publishing and no network: remove -p or --network=none";
        return Err(Invalid::new("HostConfig.PortBindings", message));
    }
    Ok(())
}

fn network_name(name: &str) -> Result<(), Invalid> {
    if matches!(name, "" | "default") || name.starts_with("container:") {
        return Ok(());
    }
    crate::names::validate(name).map_err(|_| {
        Invalid::new(
            "HostConfig.NetworkMode",
            format!("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        )
    })
}

/// `80`, `80/tcp`, `53/udp`.
pub(super) fn port(text: &str) -> Result<(), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp") {
        return Err(format!("invalid proto in {text:?}: {protocol:?} (tcp and udp can be published)"));
    }
    match port_number(number) {
        Some(1..) => Ok(()),
        _ => Err(format!("invalid port specification: {text:?}")),
    }
}

fn port_number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A port, or a range of them with its ends in order.
fn host_port(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    matches!((port_number(first), port_number(last)), (Some(first), Some(last)) if first <= last)
}

fn ports(host: &HostConfig) -> Result<(), Invalid> {
    let field = "HostConfig.PortBindings";
    for (container_port, bindings) in &host.port_bindings {
        port(container_port).map_err(|message| Invalid::new(field, message))?;
        for binding in bindings {
            if !host_port(&binding.host_port) {
                return Err(Invalid::new(field, format!("invalid port specification: {:?}", binding.host_port)));
            }
            let address = binding.host_ip.trim_start_matches('[').trim_end_matches(']');
            if !address.is_empty() && address.parse::<IpAddr>().is_err() {
                return Err(Invalid::new(field, format!("invalid IP address: {}", binding.host_ip)));
            }
        }
    }
    Ok(())
}

fn extra_host(entry: &str) -> Result<(), String> {
    let Some((name, address)) = entry.split_once([':', '=']).filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("bad format for add-host: {entry:?}"));
    };
    if name.contains(|character: char| character.is_whitespace() || character.is_control() || character == '#') {
        return Err(format!("bad format for add-host: {entry:?}"));
    }
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(())
}

fn name_service(host: &HostConfig) -> Result<(), Invalid> {
    if let Some(server) = host.dns.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(Invalid::new("HostConfig.Dns", format!("{server} is not an ip address")));
    }
    let word =
        |text: &str| !text.is_empty() && !text.contains(|other: char| other.is_whitespace() || other.is_control());
    // A lone dot removes the search domains.
    let domain = |text: &str| word(text) && text.len() <= 255 && (text == "." || !text.starts_with(['.', '-']));
    if let Some(domain) = host.dns_search.iter().find(|name| !domain(name)) {
        return Err(Invalid::new("HostConfig.DnsSearch", format!("{domain} is not a valid domain")));
    }
    if let Some(option) = host.dns_options.iter().find(|option| !word(option)) {
        return Err(Invalid::new("HostConfig.DnsOptions", format!("invalid DNS option {option:?}")));
    }
    Ok(())
}

/// Six octets of a unicast address, `02:42:ac:11:00:02`; empty is none.
pub(super) fn mac(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Ok(());
    }
    let separator = if text.contains('-') { '-' } else { ':' };
    let octet = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())?
    };
    let octets: Option<Vec<u8>> = text.split(separator).map(octet).collect();
    match octets {
        Some(octets) if octets.len() == 6 && octets[0] & 1 == 0 && octets.iter().any(|&octet| octet != 0) => Ok(()),
        Some(octets) if octets.len() == 6 => {
            Err(Invalid::new(field, format!("{text} is not a valid mac address: it is not one of a single interface")))
        }
        _ => Err(Invalid::new(field, format!("{text} is not a valid mac address"))),
    }
}

fn check_endpoint(name: &str, endpoint: &EndpointConfig) -> Result<(), Invalid> {
    let field = "NetworkingConfig";
    let wrong = |message: String| Err(Invalid::new(field, format!("invalid config for network {name}: {message}")));
    if !endpoint.links.is_empty() {
        return wrong("links are not supported: use the container's name".to_owned());
    }
    if let Some(option) = endpoint.driver_opts.keys().next() {
        return wrong(format!("unknown driver option {option:?}"));
    }
    mac(field, &endpoint.mac_address)?;
    let alias_ok = |alias: &String| {
        !alias.is_empty() && !alias.contains(|other: char| other.is_whitespace() || other.is_control())
    };
    if let Some(alias) = endpoint.aliases.iter().find(|alias| !alias_ok(alias)) {
        return wrong(format!("invalid alias {alias:?}"));
    }
    let Some(addresses) = &endpoint.ipam_config else {
        return Ok(());
    };
    if !addresses.ipv4.is_empty() && addresses.ipv4.parse::<Ipv4Addr>().is_err() {
        return wrong(format!("invalid IPv4 address: {}", addresses.ipv4));
    }
    if !addresses.ipv6.is_empty() && addresses.ipv6.parse::<Ipv6Addr>().is_err() {
        return wrong(format!("invalid IPv6 address: {}", addresses.ipv6));
    }
    match addresses.link_local.first() {
        None => Ok(()),
        Some(address) => wrong(format!("link-local address {address}: --link-local-ip is not supported")),
    }
}
