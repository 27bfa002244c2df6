//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, written anew for every start.

use std::fs;
use std::path::{Path, PathBuf};

use sbx_network::NetworkMode;
use sbx_network::hosts::{HostsFile, hostname_file, hosts_file, hosts_file_of_host, parse_extra_host};
use sbx_network::resolv::{DnsOptions, ResolvFor, host_resolv_conf, resolv_conf};
use sbx_sandbox::spec::{HostPaths, SandboxSpec};

use crate::error::Error;
use crate::network::Attachment;
use crate::sandbox::Setting;

/// Writes the files, or names those of the container whose network is shared.
pub(crate) fn write(spec: &SandboxSpec, setting: &Setting, attachment: &Attachment) -> Result<HostPaths, Error> {
    let mut paths = HostPaths::default();
    let joined = &setting.joined;
    paths.join_ipc = joined.ipc.map(|pid| namespace(pid, "ipc"));
    paths.join_pid = joined.pid.map(|pid| namespace(pid, "pid"));
    paths.shm = joined.ipc.map(|pid| PathBuf::from(format!("/proc/{pid}/root/dev/shm")));
    if let Some((pid, files)) = &joined.network {
        paths.join_net = Some(namespace(*pid, "net"));
        paths.hosts = Some(files.hosts());
        paths.resolv_conf = Some(files.resolv_conf());
        paths.hostname = Some(files.hostname());
        return Ok(paths);
    }
    let files = &setting.files;
    put(&files.hostname(), &hostname_file(&spec.config.hostname))?;
    put(&files.hosts(), &hosts(spec, setting, attachment)?)?;
    put(&files.resolv_conf(), &resolver(spec, attachment)?)?;
    paths.hostname = Some(files.hostname());
    paths.hosts = Some(files.hosts());
    paths.resolv_conf = Some(files.resolv_conf());
    Ok(paths)
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    // Written in place: a container that is bound to the file must see the new text.
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

fn hosts(spec: &SandboxSpec, setting: &Setting, attachment: &Attachment) -> Result<String, Error> {
    let extra = spec.host_config.extra_hosts.iter().map(|text| parse_extra_host(text));
    let extra = extra.collect::<Result<Vec<_>, _>>()?;
    if *attachment.mode() == NetworkMode::Host {
        let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
        return Ok(hosts_file_of_host(&own, &extra)?);
    }
    let addresses = attachment.addresses();
    let gateways = if addresses.is_empty() { Vec::new() } else { setting.network.gateways() };
    Ok(hosts_file(&HostsFile {
        extra: &extra,
        host_gateway: &gateways,
        addresses: &addresses,
        hostname: &spec.config.hostname,
        domainname: &spec.config.domainname,
    })?)
}

fn resolver(spec: &SandboxSpec, attachment: &Attachment) -> Result<String, Error> {
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
