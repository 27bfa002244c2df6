//! The bridge device and the kernel settings it needs.
//!
//! ```text
//! missing ──create (down)──▶ down ──addresses, accept_ra=0──▶ up = ready
//! ```
//!
//! Being up is the mark of completeness, so whoever finds the bridge up need not look further, and whoever finds one
//! that a killed process left down completes it. Makers take turns by a lock.
//!
//! Containers reach the outside only if the host forwards packets. `net.ipv4.ip_forward` (and, for a network with
//! IPv6, `net.ipv6.conf.all.forwarding`) is switched on when it is off, and left on: the host may rely on it by then.
//! What the host forwards between its other interfaces is for its own firewall to say. A host that forwards IPv6 stops
//! heeding router advertisements, so interfaces that do heed them are told to go on (`accept_ra=2`) first.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use crate::definition::{self, NetworkOptions, Subnet, lock};
use crate::link::{self, Counters, Link};
use crate::netlink::Conversation;
use crate::subnet::{conflict, decide, relocate};
use crate::sys::interface_flags;
use crate::tap::{self, Offload};
use crate::{Definition, Endpoint, Error, MacAddress, Result};

const SYSCTLS: &str = "/proc/sys/net";

/// Whether this kernel has IPv6 and it is not switched off.
pub(crate) fn kernel_has_ipv6() -> bool {
    fs::read_to_string(sysctl("ipv6/conf/all/disable_ipv6")).is_ok_and(|value| value.trim() == "0")
}

fn sysctl(name: &str) -> PathBuf {
    Path::new(SYSCTLS).join(name)
}

/// Writes a kernel parameter unless it has the value already.
fn set(name: &str, value: &str) -> Result<()> {
    let path = sysctl(name);
    if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(Error::file("write", path))
}

/// Whether an interface of the bridge's name is up. That it is a bridge is seen when it is made or joined.
pub(crate) fn is_up(netlink: &Conversation, network: &Definition) -> Result<bool> {
    match interface_flags(netlink, &network.interface) {
        Ok(flags) => Ok(flags.is_some_and(|flags| flags & libc::IFF_UP != 0)),
        Err(errno) => Err(Error::Netlink {
            step: format!("look the interface {} up", network.interface),
            source: errno.into(),
            detail: None,
        }),
    }
}

/// Makes a container's link and says why if the bridge is to blame.
pub(crate) fn join(
    netlink: &mut Conversation,
    network: &Definition,
    endpoint: &Endpoint,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let index = index(network)?;
    let made = match link::create_veth(netlink, endpoint, index, netns) {
        // The same container's, from before its supervisor was killed.
        Err(error) if error.errno() == Some(libc::EEXIST) => {
            link::delete_link(netlink, &endpoint.link)?;
            link::create_veth(netlink, endpoint, index, netns)
        }
        other => other,
    };
    made.map_err(|error| match explain(netlink, network, error) {
        error if error.errno() == Some(libc::EOPNOTSUPP) => Error::KernelFeature {
            feature: "virtual Ethernet pairs (CONFIG_VETH)",
            remedy: "load the module veth, or use --network none or host",
        },
        error => error,
    })
}

/// Makes the tap of a container with a kernel of its own, up and on the bridge; the counterpart of [`join`].
pub(crate) fn plug(
    netlink: &mut Conversation,
    network: &Definition,
    endpoint: &Endpoint,
    offload: Offload,
) -> Result<OwnedFd> {
    let index = index(network)?;
    let tap = match tap::create(&endpoint.link, offload) {
        // As in `join`.
        Err(error) if error.errno() == Some(libc::EBUSY) => {
            link::delete_link(netlink, &endpoint.link)?;
            tap::create(&endpoint.link, offload)?
        }
        other => other?,
    };
    // What fails here drops the descriptor, and the tap with it.
    link::put_on_bridge(netlink, endpoint, index).map_err(|error| explain(netlink, network, error))?;
    Ok(tap)
}

fn index(network: &Definition) -> Result<u32> {
    let name = network.interface.as_str();
    if_nametoindex(name).map_err(|errno| Error::Netlink {
        step: format!("find the bridge {name}"),
        source: errno.into(),
        detail: None,
    })
}

/// Says so where the bridge is to blame for a link that could not be put on it.
fn explain(netlink: &mut Conversation, network: &Definition, error: Error) -> Error {
    match error.errno() {
        Some(libc::EXFULL) => Error::BridgeFull { bridge: network.interface.clone() },
        Some(libc::EOPNOTSUPP) => match find(netlink, network) {
            Err(not_a_bridge @ Error::NotABridge { .. }) => not_a_bridge,
            _ => error,
        },
        _ => error,
    }
}

/// Looks the bridge up.
fn find(netlink: &mut Conversation, network: &Definition) -> Result<Option<Link>> {
    match link::find_link(netlink, &network.interface, Counters::Skip)? {
        Some(link) if link.kind != "bridge" => Err(Error::NotABridge { name: link.name }),
        other => Ok(other),
    }
}

/// The definition as it is persisted, or decided and persisted now.
pub(crate) fn current(path: &Path, options: &NetworkOptions) -> Result<Definition> {
    let definition = definition::load_or_create(path, || {
        let occupied = link::occupied(&mut Conversation::route()?)?;
        decide(options, &occupied, kernel_has_ipv6())
    })?;
    match difference(&definition, options) {
        None => Ok(definition),
        Some((actual, wanted)) => {
            Err(Error::DefinitionChanged { network: definition.name, actual, wanted, definition: path.into() })
        }
    }
}

/// What the options fix and the network has otherwise.
fn difference(network: &Definition, options: &NetworkOptions) -> Option<(String, String)> {
    let (subnet, gateway) = network.ipv4()?;
    let subnet6 = network.ipv6().map(|(subnet, _)| subnet);
    let differs = |actual: String, wanted: Option<String>| {
        wanted.filter(|wanted| *wanted != actual).map(|wanted| (actual, wanted))
    };
    differs(format!("subnet {subnet}"), options.subnet.map(|wanted| format!("subnet {}", wanted.trunc())))
        .or_else(|| differs(format!("gateway {gateway}"), options.gateway.map(|wanted| format!("gateway {wanted}"))))
        .or_else(|| {
            let actual = subnet6.map_or("no IPv6 subnet".into(), |subnet| format!("IPv6 subnet {subnet}"));
            let wanted = match (options.ipv6, options.subnet6) {
                (definition::Ipv6::Off, _) => Some("no IPv6 subnet".into()),
                (definition::Ipv6::Auto, wanted) => wanted.map(|wanted| format!("IPv6 subnet {}", wanted.trunc())),
            };
            differs(actual, wanted)
        })
        .or_else(|| differs(format!("MTU {}", network.mtu), Some(format!("MTU {}", options.mtu))))
        .or_else(|| differs(format!("bridge {}", network.interface), Some(format!("bridge {}", options.interface))))
}

/// Makes the bridge, or finds that another process did, and says what network it is of.
pub(crate) fn make(
    netlink: &mut Conversation,
    definition: &Path,
    options: &NetworkOptions,
    run: &Path,
) -> Result<Definition> {
    let directory = run.join("network");
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let _lock = lock(&directory.join(".lock"))?;
    let network = current(definition, options)?;
    let existing = find(netlink, &network)?;
    if existing.as_ref().is_some_and(|link| link.up) {
        return Ok(network);
    }
    let network = avoid_conflicts(netlink, network, definition, options, existing.as_ref())?;
    if let Some((subnet, _)) = network.ipv6()
        && !kernel_has_ipv6()
    {
        return Err(Error::NoIpv6 {
            network: network.name.clone(),
            subnet: subnet.to_string(),
            definition: definition.into(),
        });
    }
    if existing.is_none() {
        link::create_bridge(netlink, &network.interface, mac(&network), network.mtu)?;
    }
    let link = find(netlink, &network)?.ok_or_else(|| Error::Netlink {
        step: format!("find the bridge {} that was just made", network.interface),
        source: io::Error::from_raw_os_error(libc::ENODEV),
        detail: None,
    })?;
    settings(&network)?;
    for subnet in &network.subnets {
        let address = IpNet::new_assert(subnet.gateway, subnet.subnet.prefix_len());
        link::add_address(netlink, &link, address)?;
    }
    link::set_up(netlink, &link)?;
    Ok(network)
}

/// The network as it is where nothing else on this host uses its ranges, else with another IPv4 range, persisted. A bridge
/// that exists keeps its ranges, for containers may have addresses in them.
fn avoid_conflicts(
    netlink: &mut Conversation,
    network: Definition,
    definition: &Path,
    options: &NetworkOptions,
    existing: Option<&Link>,
) -> Result<Definition> {
    let own = existing.map(|link| link.index);
    let occupied = link::occupied(netlink)?;
    let taken = |subnet: &Subnet| conflict(&subnet.subnet, &occupied, own).map(|other| (subnet.subnet, other.net));
    let Some((subnet, other)) = network.subnets.iter().find_map(taken) else { return Ok(network) };
    if subnet.addr().is_ipv4() && options.subnet.is_none() && existing.is_none() {
        return definition::replace(definition, relocate(&network, options, &occupied)?);
    }
    Err(Error::SubnetConflict {
        subnet: subnet.to_string(),
        network: network.name,
        other: other.to_string(),
        definition: definition.into(),
    })
}

/// The same for the life of the network, so that containers never see their router change.
fn mac(network: &Definition) -> MacAddress {
    network.ipv4().map_or(MacAddress([0x02, 0x42, 0, 0, 0, 1]), |(_, gateway)| MacAddress::from_ipv4(gateway))
}

/// Kernel parameters of the bridge itself. A container that sends router advertisements must not become the host's
/// router (CVE-2020-13401), and a network without IPv6 has none at all (CVE-2024-32473).
fn settings(network: &Definition) -> Result<()> {
    let directory = format!("ipv6/conf/{}", network.interface);
    if !sysctl(&directory).exists() {
        return Ok(()); // a kernel without IPv6
    }
    if network.ipv6().is_none() {
        set(&format!("{directory}/disable_ipv6"), "1")?;
    }
    set(&format!("{directory}/accept_ra"), "0")
}

/// Has the host forward the network's packets.
pub(crate) fn forward(network: &Definition) -> Result<()> {
    set("ipv4/ip_forward", "1")?;
    if network.ipv6().is_none() {
        return Ok(());
    }
    let all = "ipv6/conf/all/forwarding";
    if fs::read_to_string(sysctl(all)).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    keep_router_advertisements()?;
    set(all, "1")
}

fn keep_router_advertisements() -> Result<()> {
    let directory = sysctl("ipv6/conf");
    for entry in fs::read_dir(&directory).map_err(Error::file("read", &directory))?.flatten() {
        let path = entry.path().join("accept_ra");
        // Interfaces come and go while this runs; one that has gone needs nothing.
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            match fs::write(&path, "2") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("write", path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
