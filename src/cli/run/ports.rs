//! `--publish` and `--expose`.

use std::{collections::BTreeMap, net::IpAddr};

use sbx_sandbox::{config::Empty, host_config::PortBinding};

use crate::flags::values::parse_uint;

type Bindings = BTreeMap<String, Vec<PortBinding>>;
type Exposed = BTreeMap<String, Empty>;

/// What is published and what is exposed; publishing exposes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ports {
    pub(crate) bindings: Bindings,
    pub(crate) exposed: Exposed,
}

/// Reads both flags.
///
/// # Errors
/// Anything that is not an address, a port, a range or a protocol; ranges of different lengths.
pub(crate) fn ports(publish: &[String], expose: &[String]) -> Result<Ports, String> {
    let mut ports = Ports::default();
    for text in publish {
        let plain = if text.contains('=') { from_fields(text)? } else { text.clone() };
        add_published(&mut ports, &plain)?;
    }
    for text in expose {
        add_exposed(&mut ports.exposed, text)?;
    }
    Ok(ports)
}

/// `target=80,published=8080,protocol=udp` → `8080:80/udp`.
fn from_fields(text: &str) -> Result<String, String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            // One host publishes in one way only.
            "mode" if value == "host" || value == "ingress" => {}
            "mode" => return Err(format!("invalid publish mode: {value}")),
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn add_published(ports: &mut Ports, text: &str) -> Result<(), String> {
    let (address, host, container) = split_three(text);
    let address = unbracketed(address);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (container, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let inside = parse_range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let outside = match host {
        "" => None,
        host => Some(parse_range(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    let protocol = protocol_of(protocol)?;
    let count = |(first, last): (u16, u16)| last - first;
    if let Some(outside) = outside
        && count(outside) != count(inside)
        && count(inside) != 0
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    for port in inside.0..=inside.1 {
        let host_port = match outside {
            None => String::new(),
            Some((first, last)) if count(inside) == 0 && first != last => format!("{first}-{last}"),
            Some((first, _)) => (first + (port - inside.0)).to_string(),
        };
        let key = format!("{port}/{protocol}");
        ports.exposed.insert(key.clone(), Empty {});
        let binding = PortBinding { host_ip: address.to_owned(), host_port };
        ports.bindings.entry(key).or_default().push(binding);
    }
    Ok(())
}

/// Address, host port, container port; the address may itself have colons.
fn split_three(text: &str) -> (&str, &str, &str) {
    let Some((before, container)) = text.rsplit_once(':') else {
        return ("", "", text);
    };
    match before.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", before, container),
    }
}

fn unbracketed(address: &str) -> &str {
    address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address)
}

fn protocol_of(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "" => Ok("tcp".to_owned()),
        "tcp" | "udp" | "sctp" => Ok(lower),
        _ => Err(format!("invalid proto: {text}")),
    }
}

fn parse_range(text: &str) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_port(first)?, parse_port(last)?),
        None => {
            let port = parse_port(text)?;
            (port, port)
        }
    };
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((first, last))
}

fn parse_port(text: &str) -> Result<u16, String> {
    // Ports are decimal whatever they start with: `080` is 80.
    let digits = text.trim_start_matches('0');
    let digits = if digits.is_empty() && !text.is_empty() { "0" } else { digits };
    let value = parse_uint(digits, u64::from(u16::MAX))
        .map_err(|why| why.replace(&format!("\"{digits}\""), &format!("\"{text}\"")))?;
    u16::try_from(value).map_err(|error| error.to_string())
}

fn add_exposed(exposed: &mut Exposed, text: &str) -> Result<(), String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) =
        parse_range(range).map_err(|why| format!("invalid range format for --expose: {text}, error: {why}"))?;
    let protocol = protocol_of(protocol)?;
    exposed.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    Ok(())
}

/// `80`, `80/udp`: what `port` takes.
///
/// # Errors
/// Not a port or not a protocol.
pub(crate) fn parse_private_port(text: &str) -> Result<(u16, String), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = parse_port(port).map_err(|_| format!("invalid port '{text}'"))?;
    Ok((number, protocol_of(protocol)?))
}
