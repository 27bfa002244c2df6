//! Which address ranges a network gets: Docker's pools, minus what the host uses already.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::definition::{self, Ipv6, NetworkOptions, Subnet};
use crate::link::Occupied;
use crate::{Definition, Error, Result};

/// An IPv6 range must hold the offset of any IPv4 address.
const LONGEST_PREFIX6: u8 = 96;
/// An IPv4 range must hold the bridge and a container.
const LONGEST_PREFIX4: u8 = 30;
/// The smallest that IPv6 allows (RFC 8200), and the largest of an Ethernet interface.
const MTUS: std::ops::RangeInclusive<u32> = 1280..=65535;

/// Docker's default pools, in its order.
fn pools() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..=31).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=15).map(|block| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, block * 16, 0), 20));
    large.chain(small)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first use of a range by another interface than our own.
pub(crate) fn conflict<'a>(range: &IpNet, occupied: &'a [Occupied], own: Option<u32>) -> Option<&'a Occupied> {
    occupied.iter().find(|other| Some(other.interface) != own && overlap(range, &other.net))
}

/// Decides the ranges of the default bridge network and gives it an id.
pub(crate) fn decide(options: &NetworkOptions, occupied: &[Occupied], kernel_has_ipv6: bool) -> Result<Definition> {
    check(options)?;
    let mut subnets = vec![decide_ipv4(options, occupied)?];
    if options.ipv6 == Ipv6::Auto && (kernel_has_ipv6 || options.subnet6.is_some()) {
        let ipv6 = match options.subnet6 {
            Some(subnet) => subnet.trunc(),
            None => unique_local()?,
        };
        let gateway = Ipv6Addr::from(u128::from(ipv6.network()) + 1);
        subnets.push(Subnet { subnet: IpNet::V6(ipv6), gateway: IpAddr::V6(gateway) });
    }
    Ok(definition::bridge(new_id()?, subnets, options))
}

/// The same network with another IPv4 range: the first that the host does not use.
pub(crate) fn relocate(network: &Definition, options: &NetworkOptions, occupied: &[Occupied]) -> Result<Definition> {
    let mut moved = network.clone();
    moved.subnets.retain(|subnet| subnet.subnet.addr().is_ipv6());
    moved.subnets.insert(0, decide_ipv4(options, occupied)?);
    Ok(moved)
}

fn decide_ipv4(options: &NetworkOptions, occupied: &[Occupied]) -> Result<Subnet> {
    let ipv4 = match options.subnet {
        Some(subnet) => subnet.trunc(),
        None => pools()
            .find(|pool| conflict(&IpNet::V4(*pool), occupied, None).is_none())
            .ok_or_else(|| Error::NoFreeSubnet { network: "bridge".into() })?,
    };
    let gateway = options.gateway.unwrap_or_else(|| Ipv4Addr::from(u32::from(ipv4.network()) + 1));
    Ok(Subnet { subnet: IpNet::V4(ipv4), gateway: IpAddr::V4(gateway) })
}

fn check(options: &NetworkOptions) -> Result<()> {
    let invalid = |text: String| Err(Error::Invalid(text));
    let name = &options.interface;
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name.contains(|c: char| c == '/' || c == ':' || !c.is_ascii_graphic())
        || name.starts_with('.')
    {
        return invalid(format!(
            "{name:?} is not a valid name for a bridge: 1 to 15 printable characters without / and :"
        ));
    }
    if !MTUS.contains(&options.mtu) {
        return invalid(format!(
            "invalid MTU {} for network bridge: {} to {} is possible",
            options.mtu,
            MTUS.start(),
            MTUS.end()
        ));
    }
    if let Some(subnet) =
        options.subnet.filter(|subnet| subnet.prefix_len() > LONGEST_PREFIX4 || subnet.prefix_len() == 0)
    {
        return invalid(format!(
            "invalid subnet {subnet} for network bridge: a prefix of 1 to {LONGEST_PREFIX4} is needed"
        ));
    }
    if let Some(subnet) =
        options.subnet6.filter(|subnet| subnet.prefix_len() > LONGEST_PREFIX6 || subnet.prefix_len() == 0)
    {
        return invalid(format!(
            "invalid subnet {subnet} for network bridge: a prefix of 1 to {LONGEST_PREFIX6} is needed"
        ));
    }
    match (options.gateway, options.subnet) {
        (Some(gateway), None) => invalid(format!("gateway {gateway} of network bridge needs a subnet")),
        (Some(gateway), Some(subnet))
            if !subnet.contains(&gateway) || gateway == subnet.network() || gateway == subnet.broadcast() =>
        {
            invalid(format!("gateway {gateway} of network bridge is not a host of its subnet {subnet}"))
        }
        _ => Ok(()),
    }
}

/// A range nobody else has (RFC 4193): 40 random bits under `fd00::/8`, subnet 0.
fn unique_local() -> Result<Ipv6Net> {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    random(&mut octets[1..6])?;
    Ok(Ipv6Net::new_assert(octets.into(), 64))
}

fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random(bytes: &mut [u8]) -> Result<()> {
    const SOURCE: &str = "/dev/urandom";
    File::open(SOURCE).and_then(|mut file| file.read_exact(bytes)).map_err(Error::file("read", SOURCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupied(nets: &[&str]) -> Vec<Occupied> {
        nets.iter().map(|net| Occupied { net: net.parse().unwrap(), interface: 7 }).collect()
    }

    fn chosen(nets: &[&str]) -> String {
        decide(&NetworkOptions::default(), &occupied(nets), true).unwrap().subnets[0].subnet.to_string()
    }

    #[test]
    fn chooses_like_docker() {
        assert_eq!(chosen(&[]), "172.17.0.0/16");
        assert_eq!(chosen(&["172.17.0.1/16"]), "172.18.0.0/16");
        assert_eq!(chosen(&["172.16.0.0/12"]), "192.168.0.0/20");
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.1.7/24"]), "192.168.16.0/20");
        assert_eq!(chosen(&["172.17.200.4/32", "fd00::1/64", "10.0.0.0/8"]), "172.18.0.0/16");
        let everything = occupied(&["172.16.0.0/12", "192.168.0.0/16"]);
        assert!(matches!(decide(&NetworkOptions::default(), &everything, true), Err(Error::NoFreeSubnet { .. })));
    }

    #[test]
    fn ipv6_is_unique_local_and_only_where_the_kernel_has_it() {
        let network = decide(&NetworkOptions::default(), &[], true).unwrap();
        let (subnet, gateway) = network.ipv6().unwrap();
        assert_eq!((subnet.network().octets()[0], subnet.prefix_len()), (0xfd, 64));
        assert_eq!(u128::from(gateway) - u128::from(subnet.network()), 1);
        assert_ne!(decide(&NetworkOptions::default(), &[], true).unwrap().ipv6(), network.ipv6());
        assert_eq!(decide(&NetworkOptions::default(), &[], false).unwrap().ipv6(), None);
        let off = NetworkOptions { ipv6: Ipv6::Off, ..NetworkOptions::default() };
        assert_eq!(decide(&off, &[], true).unwrap().ipv6(), None);
    }

    #[test]
    fn the_configuration_decides() {
        let options = NetworkOptions {
            subnet: Some("10.9.8.7/24".parse().unwrap()),
            gateway: Some("10.9.8.254".parse().unwrap()),
            ..NetworkOptions::default()
        };
        let network = decide(&options, &occupied(&["10.0.0.0/8"]), true).unwrap();
        let (subnet, gateway) = network.ipv4().unwrap();
        assert_eq!((subnet.to_string(), gateway.to_string()), ("10.9.8.0/24".into(), "10.9.8.254".into()));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let default = NetworkOptions::default;
        let with = |subnet: &str, gateway: Option<&str>| NetworkOptions {
            subnet: Some(subnet.parse().unwrap()),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            ..default()
        };
        for (options, word) in [
            (with("10.0.0.0/31", None), "10.0.0.0/31"),
            (with("10.0.0.0/24", Some("10.0.1.1")), "10.0.1.1"),
            (with("10.0.0.0/24", Some("10.0.0.255")), "10.0.0.255"),
            (NetworkOptions { gateway: Some(Ipv4Addr::LOCALHOST), ..default() }, "127.0.0.1"),
            (NetworkOptions { subnet6: Some("fd00::/112".parse().unwrap()), ..default() }, "fd00::/112"),
            (NetworkOptions { mtu: 100, ..default() }, "MTU 100"),
            (NetworkOptions { interface: "a/b".into(), ..default() }, "a/b"),
            (NetworkOptions { interface: "sixteencharacter".into(), ..default() }, "sixteencharacter"),
        ] {
            let error = decide(&options, &[], true).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(word), "{error}");
        }
    }
}
