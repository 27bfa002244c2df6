//! A container's place on the network for as long as its supervisor lives: addresses, link, published ports.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sbx_container::Helper;
use sbx_container::plan::Interface;
use sbx_container::usage::NetworkUsage;
use sbx_sandbox::spec::SandboxSpec;
use serde::{Deserialize, Serialize};

use crate::departure::Departure;
use crate::error::{Error, Result};
use crate::{Endpoint, Fixed, Network, NetworkMode, Offload, PortRequest, Published, Reserved, ports, proxy};

/// What `inspect`, `ps` and `port` tell about the network of a running container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// Its place on the bridge; `None` without one.
    pub endpoint: Option<Endpoint>,
    /// Published ports.
    pub ports: Vec<Published>,
}

/// The place and what has been made of it.
#[derive(Debug)]
pub struct Attachment {
    id: String,
    mode: NetworkMode,
    endpoint: Option<Endpoint>,
    /// Sockets that hold the ports, until the proxy has them.
    reserved: Vec<Reserved>,
    published: Vec<Published>,
    requests: Vec<PortRequest>,
    proxy: Option<Helper>,
    link: Link,
}

/// What there is of its link.
#[derive(Debug)]
enum Link {
    /// Nothing.
    None,
    /// It may be there.
    Made,
    /// Nothing that anybody finds.
    Leaving(Departure),
}

impl Attachment {
    /// Its place on the bridge; `None` without one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Holds ports and leases addresses. Nothing is connected yet.
    pub fn allocate(spec: &SandboxSpec, network: &mut Network) -> Result<Self> {
        let mode: NetworkMode = spec.host_config.network_mode.parse()?;
        let mut attachment = Self {
            id: spec.id.to_string(),
            mode,
            endpoint: None,
            reserved: Vec::new(),
            published: Vec::new(),
            requests: Vec::new(),
            proxy: None,
            link: Link::None,
        };
        if attachment.mode == NetworkMode::Bridge {
            attachment.requests = port_requests(spec)?;
            attachment.hold_ports()?;
            network.prepare()?;
            attachment.endpoint = Some(network.allocate(&attachment.id, fixed(spec)?)?);
        }
        Ok(attachment)
    }

    fn hold_ports(&mut self) -> Result<()> {
        self.reserved = ports::reserve(&self.requests)?;
        self.published = self.reserved.iter().map(|reserved| reserved.published).collect();
        // A restart keeps the ports that chance has chosen.
        for (request, published) in self.requests.iter_mut().zip(chosen(&self.reserved)) {
            request.host_ports = Some(published..=published);
        }
        Ok(())
    }

    /// Waits until nothing is left of the last start: from here on the caller may fork.
    pub fn settle(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.link, Link::None) {
            Link::Leaving(departure) => departure.wait(),
            link => {
                self.link = link;
                Ok(())
            }
        }
    }

    /// Puts the link into the network namespace of `pid` and lets published ports lead there.
    pub fn connect(&mut self, network: &Network, pid: i32) -> Result<()> {
        if self.endpoint.is_none() {
            return Ok(());
        }
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).map_err(Error::io(format!("open {path}")))?;
        self.connect_to(network, namespace.as_fd())
    }

    pub(crate) fn connect_to(&mut self, network: &Network, namespace: BorrowedFd<'_>) -> Result<()> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        self.link = Link::Made;
        network.connect(endpoint, namespace)?;
        network.publish(endpoint, &self.published)?;
        Ok(())
    }

    /// Plugs a tap into the bridge instead, for a machine, and lets published ports lead there; `None` without a network.
    pub fn connect_tap(&mut self, network: &Network, offload: Offload) -> Result<Option<OwnedFd>> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        self.link = Link::Made;
        let tap = network.connect_tap(endpoint, offload)?;
        network.publish(endpoint, &self.published)?;
        Ok(Some(tap))
    }

    /// Serves connections that reach the ports by themselves (loopback, IPv6 to a program on IPv4), in a process of its
    /// own that ends with the supervisor.
    pub fn serve(&mut self) -> Result<()> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        if self.reserved.is_empty() {
            return Ok(());
        }
        let reserved = std::mem::take(&mut self.reserved);
        let targets = proxy::Targets::of(endpoint);
        let kept = reserved.iter().map(|reserved| std::os::fd::AsRawFd::as_raw_fd(&reserved.socket)).collect();
        let helper = Helper::spawn(kept, move || {
            // It ends by itself only when it fails; the ports then answer by the firewall's rules alone.
            let Err(_) = proxy::run(reserved, &targets);
            1
        })
        .map_err(Error::io("start the port proxy"))?;
        self.proxy = Some(helper);
        Ok(())
    }

    /// Takes link and rules away; addresses and ports stay with the container. The kernel may go on freeing the link, for
    /// which a thread waits: see [`Attachment::settle`].
    pub fn disconnect(&mut self, network: &Network) -> Result<()> {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop();
            // Held again for the next start, unless somebody was faster.
            self.hold_ports_again();
        }
        if !matches!(self.link, Link::Made) {
            return Ok(());
        }
        if !self.published.is_empty() {
            network.unpublish(&self.id)?;
        }
        self.link = Link::Leaving(network.begin_to_disconnect(&self.id)?);
        Ok(())
    }

    fn hold_ports_again(&mut self) {
        if let Ok(reserved) = ports::reserve(&self.requests) {
            self.reserved = reserved;
        }
    }

    /// Gives addresses and ports back.
    pub fn release(mut self, network: &Network) -> Result<()> {
        self.reserved.clear();
        if let Some(endpoint) = &self.endpoint {
            match self.link {
                Link::Made => network.remove(endpoint)?,
                Link::None | Link::Leaving(_) => network.release_endpoint(endpoint)?,
            }
        }
        Ok(())
    }

    /// How it is connected.
    #[must_use]
    pub fn mode(&self) -> &NetworkMode {
        &self.mode
    }

    /// Its addresses, without prefix lengths.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.endpoint.as_ref().map(Endpoint::ips).unwrap_or_default()
    }

    /// Whether it has an IPv6 address.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.ipv6.is_some())
    }

    /// What the container configures inside.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        let interface = |endpoint: &Endpoint| Interface {
            name: endpoint.interface.clone(),
            addresses: endpoint.addresses(),
            gateways: endpoint.gateways(),
        };
        self.endpoint.iter().map(interface).collect()
    }

    /// What to tell about it.
    #[must_use]
    pub fn facts(&self) -> NetworkFacts {
        NetworkFacts { endpoint: self.endpoint.clone(), ports: self.published.clone() }
    }

    /// Counters of each interface, from the container's side.
    pub fn usage(&self, network: &Network) -> Result<BTreeMap<String, NetworkUsage>> {
        let Some(endpoint) = &self.endpoint else { return Ok(BTreeMap::new()) };
        let Some(counted) = network.stats(&self.id)? else { return Ok(BTreeMap::new()) };
        let usage = NetworkUsage {
            rx_bytes: counted.rx_bytes,
            rx_packets: counted.rx_packets,
            rx_errors: counted.rx_errors,
            rx_dropped: counted.rx_dropped,
            tx_bytes: counted.tx_bytes,
            tx_packets: counted.tx_packets,
            tx_errors: counted.tx_errors,
            tx_dropped: counted.tx_dropped,
        };
        Ok(BTreeMap::from([(endpoint.interface.clone(), usage)]))
    }
}

/// Host ports in the order of the requests: a request for every address has two reservations on one port.
fn chosen(reserved: &[Reserved]) -> Vec<u16> {
    let mut ports = Vec::new();
    let mut last = None;
    for one in reserved {
        let published = one.published;
        let key = (published.protocol, published.container_port, published.host_port);
        if last != Some(key) {
            ports.push(published.host_port);
        }
        last = Some(key);
    }
    ports
}

/// Every port of `-p`, and with `-P` every exposed one that `-p` does not name.
fn port_requests(spec: &SandboxSpec) -> Result<Vec<PortRequest>> {
    let mut requests = Vec::new();
    for (port, bindings) in &spec.host_config.port_bindings {
        for binding in bindings {
            requests.push(PortRequest::parse(port, binding)?);
        }
    }
    if spec.host_config.publish_all_ports {
        let bound = &spec.host_config.port_bindings;
        for port in spec.config.exposed_ports.keys().filter(|port| !bound.contains_key(*port)) {
            requests.push(PortRequest::parse(port, &sbx_sandbox::host_config::PortBinding::default())?);
        }
    }
    Ok(requests)
}

/// `--ip`, `--ip6` and `--mac-address`.
fn fixed(spec: &SandboxSpec) -> Result<Fixed> {
    let endpoint = spec.networking.endpoints_config.values().next();
    let wanted = endpoint.and_then(|endpoint| endpoint.ipam_config.clone()).unwrap_or_default();
    let mac = endpoint
        .map(|endpoint| endpoint.mac_address.as_str())
        .filter(|mac| !mac.is_empty())
        .unwrap_or(&spec.config.mac_address);
    let invalid = |text: &str| Error::Invalid(format!("invalid IP address: {text}"));
    Ok(Fixed {
        ipv4: parse_unless_empty(&wanted.ipv4).map_err(|()| invalid(&wanted.ipv4))?,
        ipv6: parse_unless_empty(&wanted.ipv6).map_err(|()| invalid(&wanted.ipv6))?,
        mac: if mac.is_empty() { None } else { Some(mac.parse()?) },
    })
}

fn parse_unless_empty<T: std::str::FromStr>(text: &str) -> std::result::Result<Option<T>, ()> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(drop) }
}
