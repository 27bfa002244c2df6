//! Where a registry is and how it may be spoken to.
//!
//! Plain HTTP is for loopback and for hosts that the user has listed; a registry can never talk us into it.

use std::net::IpAddr;

use super::Registries;
use crate::error::{Error, Result};
use crate::reference::DEFAULT_DOMAIN;

/// Where docker.io really is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// The key of docker.io in Docker's configuration and for its credential helpers.
pub(crate) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    /// TLS, certificate verified.
    Https,
    /// TLS, certificate not verified: a host listed as insecure.
    HttpsUnverified,
    /// No TLS: loopback or a host listed as insecure.
    Http,
}

impl Transport {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Transport::Https | Transport::HttpsUnverified => "https",
            Transport::Http => "http",
        }
    }
}

/// A registry or a mirror of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As in references and in credentials' keys: `docker.io`, `127.0.0.1:5000`.
    pub(crate) name: String,
    /// What is connected to.
    pub(crate) host: String,
    /// Put before the repository: a mirror may keep another registry's images in a namespace.
    pub(crate) prefix: String,
    /// Ways to try, in order.
    pub(crate) transports: Vec<Transport>,
    /// Whether it is a mirror; then its failures are not final.
    pub(crate) is_mirror: bool,
}

impl Endpoint {
    /// The registry of a reference's domain.
    pub(crate) fn of(domain: &str, registries: &Registries) -> Endpoint {
        let host = match domain {
            DEFAULT_DOMAIN => DOCKER_HUB,
            other => other,
        };
        Endpoint {
            name: domain.to_owned(),
            host: host.to_owned(),
            prefix: String::new(),
            transports: transports(host, registries),
            is_mirror: false,
        }
    }

    /// The mirrors of a domain in order, then its registry itself.
    pub(crate) fn all(domain: &str, registries: &Registries) -> Result<Vec<Endpoint>> {
        let hub: &[String] = if domain == DEFAULT_DOMAIN { &registries.mirrors } else { &[] };
        let others = registries.host_mirrors.get(domain).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints =
            hub.iter().chain(others).map(|url| Endpoint::mirror(url, registries)).collect::<Result<Vec<_>>>()?;
        endpoints.push(Endpoint::of(domain, registries));
        Ok(endpoints)
    }

    fn mirror(url: &str, registries: &Registries) -> Result<Endpoint> {
        let fail = |problem: &str| Error::Registry {
            host: url.chars().take(200).collect(),
            step: "use it as a mirror".to_owned(),
            problem: problem.to_owned(),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let reads_as_host =
            crate::Reference::parse(&format!("{host}/x")).is_ok_and(|reference| reference.domain() == host);
        if !reads_as_host && host != DEFAULT_DOMAIN {
            return Err(fail("it must be https://HOST[:PORT][/PATH]"));
        }
        let path_bytes = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.');
        if !prefix.bytes().all(path_bytes) || prefix.split('/').any(|part| part == ".." || part == ".") {
            return Err(fail("its path has other characters than letters, digits, '/', '-', '_' and '.'"));
        }
        let allowed = transports(host, registries);
        let transports: Vec<Transport> = match scheme {
            "" => allowed,
            "https" => allowed.into_iter().filter(|transport| transport.scheme() == "https").collect(),
            "http" if allowed.contains(&Transport::Http) => vec![Transport::Http],
            "http" => {
                return Err(fail("plain HTTP is only for loopback and for hosts listed as insecure"));
            }
            _ => return Err(fail("its scheme must be https or http")),
        };
        Ok(Endpoint {
            name: host.to_owned(),
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            transports,
            is_mirror: true,
        })
    }

    /// The key of this registry in Docker's configuration.
    pub(crate) fn credentials_key(&self) -> &str {
        match self.name.as_str() {
            DEFAULT_DOMAIN => DOCKER_HUB_KEY,
            other => other,
        }
    }
}

/// How a host may be spoken to, in the order to try. A loopback host with certificates of its own is meant to be HTTPS.
fn transports(host: &str, registries: &Registries) -> Vec<Transport> {
    if is_insecure(host, registries) {
        vec![Transport::HttpsUnverified, Transport::Http]
    } else if is_loopback(host) && registries.cert_dir(host).is_none() {
        vec![Transport::Http, Transport::Https]
    } else {
        vec![Transport::Https]
    }
}

/// Whether plain HTTP to this host is allowed.
pub(crate) fn may_be_plain(host: &str, registries: &Registries) -> bool {
    is_loopback(host) || is_insecure(host, registries)
}

pub(crate) fn is_insecure(host: &str, registries: &Registries) -> bool {
    let bare = without_port(host);
    registries.insecure.iter().any(|listed| listed == host || listed == bare || in_network(listed, bare))
}

/// Docker's list may hold networks: `10.0.0.0/8`.
fn in_network(listed: &str, host: &str) -> bool {
    let parse = || -> Option<bool> {
        let (network, bits) = listed.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        match (network.parse::<IpAddr>().ok()?, host.parse::<IpAddr>().ok()?) {
            (IpAddr::V4(net), IpAddr::V4(ip)) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                Some(u32::from(net) & mask == u32::from(ip) & mask)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                Some(u128::from(net) & mask == u128::from(ip) & mask)
            }
            _ => None,
        }
    };
    parse().unwrap_or(false)
}

/// 127.0.0.0/8, ::1 and `localhost`, with or without a port.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = without_port(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host without its port and without the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => match host.parse::<IpAddr>() {
            Ok(_) => host,
            Err(_) => host.split(':').next().unwrap_or(host),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries() -> Registries {
        Registries {
            insecure: vec!["plain.test".into(), "port.test:81".into(), "10.1.0.0/16".into()],
            mirrors: vec!["https://mirror.test".into(), "http://127.0.0.1:5000/hub".into()],
            cert_dirs: Vec::new(),
            ..Registries::default()
        }
    }

    #[test]
    fn plain_http_is_for_loopback_and_listed_hosts_only() {
        use Transport::{Http, Https, HttpsUnverified};
        let registries = registries();
        for (host, want) in [
            ("127.0.0.1:5000", vec![Http, Https]),
            ("127.9.9.9", vec![Http, Https]),
            ("localhost:5000", vec![Http, Https]),
            ("[::1]:5000", vec![Http, Https]),
            ("example.test", vec![Https]),
            ("128.0.0.1", vec![Https]),
            ("localhost.example.test", vec![Https]),
            ("127.0.0.1.example.test", vec![Https]),
            ("plain.test", vec![HttpsUnverified, Http]),
            ("plain.test:8080", vec![HttpsUnverified, Http]),
            ("port.test:81", vec![HttpsUnverified, Http]),
            ("port.test", vec![Https]),
            ("10.1.2.3:5000", vec![HttpsUnverified, Http]),
            ("10.2.0.1:5000", vec![Https]),
        ] {
            assert_eq!(Endpoint::of(host, &registries).transports, want, "{host}");
        }
    }

    #[test]
    fn mirrors_come_first_and_only_for_their_registry() {
        let registries = registries();
        let hub = Endpoint::all("docker.io", &registries).unwrap();
        let hosts: Vec<&str> = hub.iter().map(|endpoint| endpoint.host.as_str()).collect();
        assert_eq!(hosts, ["mirror.test", "127.0.0.1:5000", "registry-1.docker.io"]);
        assert_eq!((hub[1].prefix.as_str(), hub[1].is_mirror, hub[2].is_mirror), ("hub", true, false));
        assert_eq!(hub[2].credentials_key(), "https://index.docker.io/v1/");
        assert_eq!(Endpoint::all("other.test", &registries).unwrap().len(), 1);
    }

    #[test]
    fn bad_mirrors_are_refused() {
        for bad in [
            "http://example.test",
            "ftp://127.0.0.1",
            "https://",
            "https://a b",
            "https://h.test/../x",
            "https://h.test/?q",
        ] {
            let registries = Registries { mirrors: vec![bad.into()], ..registries() };
            Endpoint::all("docker.io", &registries).expect_err(bad);
        }
    }
}
