//! The default bridge network as callers see it: one method for each step of a container's life on it.
//!
//! A `Network` holds nothing but paths and the definition. Every method opens its own conversation with the kernel, so
//! it can be used from anywhere, by any number of processes. All of it acts on the network namespace of the calling
//! thread.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::conntrack::{self, Flows};
use crate::definition::{self, Definition, NetworkOptions};
use crate::departure::Departure;
use crate::endpoint::{container_of_link, link_name};
use crate::lease::Leases;
use crate::link::{self, Counters};
use crate::netlink::Conversation;
use crate::nft::{self, ports::Translation};
use crate::{Endpoint, Error, Fixed, InterfaceStats, MacAddress, Offload, Protocol, Published, Result, bridge};

/// Name of the interface inside the container.
const INTERFACE: &str = "eth0";

/// The default bridge network.
#[derive(Debug)]
pub struct Network {
    definition: Definition,
    options: NetworkOptions,
    path: PathBuf,
    run: PathBuf,
    leases: Leases,
}

/// What [`Network::reap`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Links.
    pub links: usize,
    /// Addresses.
    pub leases: usize,
    /// Elements of the nftables maps.
    pub ports: usize,
}

impl Network {
    /// Reads the network's definition below `state`, or decides and persists it. Leases go below `run`, which should
    /// not survive a reboot. Touches no interface and no rule.
    ///
    /// # Errors
    /// [`Error::DefinitionChanged`] where `options` fixes something that the network was made without.
    pub fn open(state: &Path, run: &Path, options: &NetworkOptions) -> Result<Network> {
        let path = definition::path(state, "bridge");
        let definition = bridge::current(&path, options)?;
        let leases = Leases::new(run, &definition.name);
        Ok(Network { definition, options: options.clone(), path, run: run.into(), leases })
    }

    /// What the network is.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The bridge's own addresses: what `host-gateway` stands for, IPv4 first.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.definition.subnets.iter().map(|subnet| subnet.gateway).collect()
    }

    /// Makes the bridge and the nftables table, or finds them: then it costs two netlink queries and reads two kernel
    /// parameters and the definition. A network without a bridge has no container, so one that is about to be made gives
    /// way to what the host uses by now: its IPv4 range is chosen anew, unless the configuration fixes it.
    ///
    /// # Errors
    /// [`Error::SubnetConflict`] where a range that cannot be chosen anew is in use.
    pub fn prepare(&mut self) -> Result<()> {
        let mut route = Conversation::route()?;
        // In this order: whoever makes the bridge persists the definition before it is up.
        let ready = bridge::is_up(&route, &self.definition)?;
        self.definition = if ready {
            bridge::current(&self.path, &self.options)?
        } else {
            bridge::make(&mut route, &self.path, &self.options, &self.run)?
        };
        bridge::forward(&self.definition)?;
        nft::prepare(&mut Conversation::netfilter()?, &self.definition)
    }

    /// Leases addresses to a container and says what its interface will be. Makes nothing but the leases.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::AddressOutside`], [`Error::AddressReserved`] for fixed addresses,
    /// [`Error::AddressesExhausted`] otherwise.
    pub fn allocate(&self, container: &str, fixed: Fixed) -> Result<Endpoint> {
        let link = link_name(container)?;
        let (subnet, gateway) =
            self.definition.ipv4().ok_or_else(|| Error::NoFreeSubnet { network: self.definition.name.clone() })?;
        let (ipv4, ipv6) = self.leases.allocate(&self.definition, container, fixed)?;
        let (subnet6, gateway6) = self.definition.ipv6().unzip();
        Ok(Endpoint {
            container: container.into(),
            network: self.definition.name.clone(),
            link,
            interface: INTERFACE.into(),
            mac: fixed.mac.unwrap_or_else(|| MacAddress::from_ipv4(ipv4)),
            mtu: self.definition.mtu,
            ipv4: Ipv4Net::new_assert(ipv4, subnet.prefix_len()),
            gateway,
            ipv6: ipv6.zip(subnet6).map(|(address, subnet)| Ipv6Net::new_assert(address, subnet.prefix_len())),
            gateway6,
        })
    }

    /// Makes the veth pair: the container's end appears in `netns` as `eth0`, down, with its MAC address and MTU; the
    /// host's end is up and on the bridge. Addresses and routes inside are the container's business.
    pub fn connect(&self, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
        bridge::join(&mut Conversation::route()?, &self.definition, endpoint, netns)
    }

    /// Makes the tap of a container with a kernel of its own, up and on the bridge. The descriptor is the other end: each read or write is one
    /// frame behind [`VNET_HEADER_BYTES`](crate::VNET_HEADER_BYTES) of header. It does not block. The tap is there until its last copy is
    /// closed or [`Network::disconnect`] deletes it. MAC address, addresses and routes inside are the guest's business.
    ///
    /// # Errors
    /// [`Error::KernelFeature`] without `/dev/net/tun`.
    pub fn connect_tap(&self, endpoint: &Endpoint, offload: Offload) -> Result<OwnedFd> {
        bridge::plug(&mut Conversation::route()?, &self.definition, endpoint, offload)
    }

    /// Makes published ports lead to the container. Calling it again, after the rules of the host were flushed, is
    /// fine.
    pub fn publish(&self, endpoint: &Endpoint, ports: &[Published]) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let mut netlink = Conversation::netfilter()?;
        match nft::ports::add(&mut netlink, endpoint, ports) {
            // Somebody flushed the rules since they were prepared.
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                nft::prepare(&mut netlink, &self.definition)?;
                nft::ports::add(&mut netlink, endpoint, ports)?;
            }
            other => other?,
        }
        self.forget_new_flows(&mut netlink, ports)
    }

    /// Flows that began before the port was published were sent to the host itself.
    fn forget_new_flows(&self, netlink: &mut Conversation, ports: &[Published]) -> Result<()> {
        let mut udp =
            ports.iter().filter(|port| port.protocol == Protocol::Udp && !port.host_address.is_loopback()).peekable();
        if udp.peek().is_none() {
            return Ok(());
        }
        let own = link::addresses(&mut Conversation::route()?)?;
        let own: Vec<IpAddr> =
            own.iter().map(|address| address.net.addr()).filter(|address| !address.is_loopback()).collect();
        for port in udp {
            let fixed = [port.host_address];
            let addresses = if port.host_address.is_unspecified() { &own[..] } else { &fixed };
            conntrack::forget_udp(netlink, family(port.host_address), port.host_port, &Flows::To(addresses))?;
        }
        Ok(())
    }

    /// Removes the published ports of a container. One that has none is fine.
    pub fn unpublish(&self, container: &str) -> Result<()> {
        self.unpublish_by(&mut Conversation::netfilter()?, container)
    }

    fn unpublish_by(&self, netlink: &mut Conversation, container: &str) -> Result<()> {
        let removed = nft::ports::remove(netlink, &|owner| owner == container)?;
        forget_old_flows(netlink, &removed)
    }

    /// Deletes the container's link, both ends, and waits until it is gone. One that is gone already is fine.
    pub fn disconnect(&self, container: &str) -> Result<()> {
        link::delete_link(&mut Conversation::route()?, &link_name(container)?)
    }

    /// Like [`Network::disconnect`], but waits only until nobody finds the link.
    pub(crate) fn begin_to_disconnect(&self, container: &str) -> Result<Departure> {
        Departure::begin(link_name(container)?)
    }

    /// Gives the addresses of an endpoint back, which has neither link nor ports any more.
    pub(crate) fn release_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        self.leases.release_addresses(&endpoint.ips(), &|holder| holder == endpoint.container).map(|_| ())
    }

    /// Gives the addresses of a container back. Ports and link must be gone: the next holder would get them.
    pub fn release(&self, container: &str) -> Result<()> {
        self.leases.release(&|holder| holder == container).map(|_| ())
    }

    /// Undoes `allocate`, `connect` and `publish`, in the order that never leads a port to the wrong container.
    pub fn remove(&self, endpoint: &Endpoint) -> Result<()> {
        // Closing the socket that elements were removed by waits until the kernel has freed them, as deleting a link
        // waits, too: kept open, both wait at the same time.
        let mut netfilter = Conversation::netfilter()?;
        self.unpublish_by(&mut netfilter, &endpoint.container)?;
        self.disconnect(&endpoint.container)?;
        self.release_endpoint(endpoint)
    }

    /// Like [`Network::remove`] for a container of which only the id is known. A container that starts again after a
    /// crash begins with this, for [`Network::reap`] takes it for alive: what is left of its last life may lead to an
    /// address that is another's by now.
    pub fn clear(&self, container: &str) -> Result<()> {
        let mut netfilter = Conversation::netfilter()?;
        self.unpublish_by(&mut netfilter, container)?;
        self.disconnect(container)?;
        self.release(container)
    }

    /// Every leased address and the container that has it.
    pub fn leases(&self) -> Result<Vec<(IpAddr, String)>> {
        self.leases.list()
    }

    /// What went through the container's interface; `None` where it has none (any more).
    pub fn stats(&self, container: &str) -> Result<Option<InterfaceStats>> {
        let link = link::find_link(&mut Conversation::route()?, &link_name(container)?, Counters::Read)?;
        Ok(link.and_then(|link| InterfaceStats::of_host_end(&link.stats?)))
    }

    /// Removes what is left of containers that are no longer alive: ports, then links, then leases.
    ///
    /// `live` is asked about full ids and, for links, about their first 12 digits. It must hold a container alive from
    /// before [`Network::allocate`] until after [`Network::release`]. Costs a few queries when nothing is left over.
    pub fn reap(&self, live: &dyn Fn(&str) -> bool) -> Result<Reaped> {
        let gone = |id: &str| !live(id);
        let mut netfilter = Conversation::netfilter()?;
        let ports = nft::ports::remove(&mut netfilter, &gone)?;
        forget_old_flows(&mut netfilter, &ports)?;
        let mut route = Conversation::route()?;
        let mut orphans = link::links_of_containers(&mut route)?;
        orphans.retain(|link| container_of_link(link).is_some_and(gone));
        if !orphans.is_empty() {
            link::delete_links(&mut route, &orphans)?;
        }
        let leases = self.leases.release(&gone)?;
        Ok(Reaped { links: orphans.len(), leases, ports: ports.len() })
    }
}

/// Flows that a container answered must not wait for its address to be given to another.
fn forget_old_flows(netlink: &mut Conversation, removed: &[Translation]) -> Result<()> {
    for port in removed.iter().filter(|port| port.protocol == Protocol::Udp) {
        conntrack::forget_udp(netlink, family(port.target), port.host_port, &Flows::AnsweredBy(port.target))?;
    }
    Ok(())
}

fn family(address: IpAddr) -> libc::c_int {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}
