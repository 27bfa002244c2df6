//! `/etc/hosts` and `/etc/hostname` of a container, as Docker writes them, and `--add-host`.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::{Error, Result};

/// The names that every container has (Docker's text).
const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The word that stands for an address of the host in `--add-host`.
const HOST_GATEWAY: &str = "host-gateway";

/// Where an extra name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTarget {
    /// An address.
    Address(IpAddr),
    /// The host, as the container reaches it (`host-gateway`).
    Gateway,
}

/// One `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Where it leads.
    pub target: HostTarget,
}

/// Reads `name:address`, `name=address`, `name:[address6]`, `name:host-gateway`. The texts of errors are Docker's.
pub fn parse_extra_host(text: &str) -> Result<ExtraHost> {
    // `=` wins, so that an IPv6 address needs no brackets after it.
    let (name, target) = match text.split_once('=') {
        Some(parts) => parts,
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if name.is_empty() || target.is_empty() || name.contains(|letter: char| letter.is_whitespace() || letter == '#') {
        return Err(Error::Invalid(format!("bad format for add-host: {text:?}")));
    }
    if target == HOST_GATEWAY {
        return Ok(ExtraHost { name: name.into(), target: HostTarget::Gateway });
    }
    let bare = target.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(target);
    match bare.parse() {
        Ok(address) => Ok(ExtraHost { name: name.into(), target: HostTarget::Address(address) }),
        Err(_) => Err(Error::Invalid(format!("invalid IP address in add-host: {target:?}"))),
    }
}

/// What `/etc/hosts` is made of.
#[derive(Clone, Copy, Debug)]
pub struct HostsFile<'a> {
    /// Extra names, in order.
    pub extra: &'a [ExtraHost],
    /// What `host-gateway` stands for: the addresses of the bridge. Empty where the container has no way to the host.
    pub host_gateway: &'a [IpAddr],
    /// The container's own addresses; empty for none.
    pub addresses: &'a [IpAddr],
    /// The container's host name.
    pub hostname: &'a str,
    /// Its NIS domain name; may be empty.
    pub domainname: &'a str,
}

/// The text of `/etc/hosts`.
pub fn hosts_file(hosts: &HostsFile<'_>) -> Result<String> {
    let mut text = String::from(LOCAL_NAMES);
    append_extra(&mut text, hosts.extra, hosts.host_gateway)?;
    for address in hosts.addresses {
        append(&mut text, *address, &own_names(hosts.hostname, hosts.domainname));
    }
    Ok(text)
}

/// The text of `/etc/hosts` of a container in the host's network namespace: the host's own and the extra names.
pub fn hosts_file_of_host(host: &str, extra: &[ExtraHost]) -> Result<String> {
    let mut text = String::from(host);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    // In the host's own namespace the host is reached by loopback.
    append_extra(&mut text, extra, &[IpAddr::from([127, 0, 0, 1])])?;
    Ok(text)
}

fn append_extra(text: &mut String, extra: &[ExtraHost], host_gateway: &[IpAddr]) -> Result<()> {
    for host in extra {
        match host.target {
            HostTarget::Address(address) => append(text, address, &host.name),
            HostTarget::Gateway if host_gateway.is_empty() => {
                return Err(Error::Invalid(format!(
                    "unable to derive the IP value for {HOST_GATEWAY} of {:?}: the container's network does not reach the host",
                    host.name
                )));
            }
            HostTarget::Gateway => host_gateway.iter().for_each(|address| append(text, *address, &host.name)),
        }
    }
    Ok(())
}

fn append(text: &mut String, address: IpAddr, names: &str) {
    let _ = writeln!(text, "{address}\t{names}"); // writing to a String cannot fail
}

/// The full name first, then its first label, as Docker orders them.
fn own_names(hostname: &str, domainname: &str) -> String {
    let full = if domainname.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domainname}") };
    match full.split_once('.') {
        Some((short, _)) if !short.is_empty() => format!("{full} {short}"),
        _ => full,
    }
}

/// The text of `/etc/hostname`.
pub fn hostname_file(hostname: &str) -> String {
    format!("{hostname}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(texts: &[&str]) -> Vec<ExtraHost> {
        texts.iter().map(|text| parse_extra_host(text).unwrap()).collect()
    }

    #[test]
    fn writes_dockers_text() {
        let text = hosts_file(&HostsFile {
            extra: &extra(&[
                "db:10.0.0.7",
                "six=2001:db8::1",
                "six:[2001:db8::2]",
                "host.docker.internal:host-gateway",
            ]),
            host_gateway: &["172.17.0.1".parse().unwrap()],
            addresses: &["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            hostname: "5d3b7c2a4f1e",
            domainname: "",
        })
        .unwrap();
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.7\tdb\n2001:db8::1\tsix\n2001:db8::2\tsix\n\
             172.17.0.1\thost.docker.internal\n172.17.0.2\t5d3b7c2a4f1e\nfd00::2\t5d3b7c2a4f1e\n"
        );
    }

    #[test]
    fn a_domain_gives_the_full_and_the_short_name() {
        assert_eq!(own_names("web", "example.org"), "web.example.org web");
        assert_eq!(own_names("web.example.org", ""), "web.example.org web");
        assert_eq!(own_names("web", ""), "web");
    }

    #[test]
    fn the_hosts_own_file_is_kept_and_extended() {
        let text = hosts_file_of_host("127.0.0.1 localhost box", &extra(&["a:1.2.3.4", "me:host-gateway"])).unwrap();
        assert_eq!(text, "127.0.0.1 localhost box\n1.2.3.4\ta\n127.0.0.1\tme\n");
    }

    #[test]
    fn refuses_with_dockers_words() {
        for (text, expected) in [
            ("foo", "bad format for add-host: \"foo\""),
            ("", "bad format for add-host: \"\""),
            (":1.2.3.4", "bad format for add-host: \":1.2.3.4\""),
            ("a b:1.2.3.4", "bad format for add-host: \"a b:1.2.3.4\""),
            ("a\n1.1.1.1 b:1.2.3.4", "bad format for add-host: \"a\\n1.1.1.1 b:1.2.3.4\""),
            ("foo:bar", "invalid IP address in add-host: \"bar\""),
            ("foo:300.1.1.1", "invalid IP address in add-host: \"300.1.1.1\""),
        ] {
            assert_eq!(parse_extra_host(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn host_gateway_needs_a_way_to_the_host() {
        let hosts = HostsFile {
            extra: &extra(&["me:host-gateway"]),
            host_gateway: &[],
            addresses: &[],
            hostname: "h",
            domainname: "",
        };
        let error = hosts_file(&hosts).unwrap_err().to_string();
        assert!(error.contains("host-gateway") && error.contains("\"me\""), "{error}");
    }
}
