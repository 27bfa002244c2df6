//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, decided anew for every start.

use std::fs;
use std::path::Path;

use sbx_sandbox::spec::SandboxSpec;

use crate::error::Result;
use crate::hosts::{HostsFile, hostname_file, hosts_file, hosts_file_of_host, parse_extra_host};
use crate::resolv::{DnsOptions, ResolvFor, host_resolv_conf, resolv_conf};
use crate::{Attachment, Network, NetworkMode};

/// The texts of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in /etc")]
pub struct EtcFiles {
    pub hostname: String,
    pub hosts: String,
    pub resolv_conf: String,
}

impl EtcFiles {
    /// What the files say for a container that is connected so.
    pub fn of(spec: &SandboxSpec, network: &Network, attachment: &Attachment) -> Result<Self> {
        Ok(Self {
            hostname: hostname_file(&spec.config.hostname),
            hosts: hosts(spec, network, attachment)?,
            resolv_conf: resolver(spec, attachment)?,
        })
    }
}

fn hosts(spec: &SandboxSpec, network: &Network, attachment: &Attachment) -> Result<String> {
    let extra = spec.host_config.extra_hosts.iter().map(|text| parse_extra_host(text));
    let extra = extra.collect::<Result<Vec<_>>>()?;
    if *attachment.mode() == NetworkMode::Host {
        let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
        return hosts_file_of_host(&own, &extra);
    }
    let addresses = attachment.addresses();
    let gateways = if addresses.is_empty() { Vec::new() } else { network.gateways() };
    hosts_file(&HostsFile {
        extra: &extra,
        host_gateway: &gateways,
        addresses: &addresses,
        hostname: &spec.config.hostname,
        domainname: &spec.config.domainname,
    })
}

fn resolver(spec: &SandboxSpec, attachment: &Attachment) -> Result<String> {
    let host = &spec.host_config;
    let options = DnsOptions::parse(&host.dns, &host.dns_search, &host.dns_options)?;
    let own = host_resolv_conf(Path::new("/"))?;
    let network = match attachment.mode() {
        NetworkMode::Host => ResolvFor::Host,
        NetworkMode::Bridge if attachment.has_ipv6() => ResolvFor::BridgeWithIpv6,
        NetworkMode::Bridge => ResolvFor::Bridge,
        NetworkMode::None | NetworkMode::Container(_) => ResolvFor::None,
    };
    Ok(resolv_conf(&own, &options, network))
}
