//! One container's place on a network, as plain data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Error, MacAddress, Result};

/// Hexadecimal digits of a container id in the name of its link: with `sbx` they fill the 15 characters that an
/// interface name can have (IFNAMSIZ).
const LINK_DIGITS: usize = 12;

/// One container's place on a network. It can be persisted and used by another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// Id of the container.
    pub container: String,
    /// Name of the network.
    pub network: String,
    /// Name of the host's end of the link, `sbx0123456789ab`.
    pub link: String,
    /// Name of the interface inside the container, `eth0`.
    pub interface: String,
    /// Of the interface inside the container.
    pub mac: MacAddress,
    /// Bytes.
    pub mtu: u32,
    /// Address with prefix length.
    pub ipv4: Ipv4Net,
    /// Default router.
    pub gateway: Ipv4Addr,
    /// Address with prefix length, where the network has IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// Default router, where the network has IPv6.
    pub gateway6: Option<Ipv6Addr>,
}

impl Endpoint {
    /// For `plan::Interface`: addresses with prefix lengths.
    pub fn addresses(&self) -> Vec<String> {
        std::iter::once(self.ipv4.to_string()).chain(self.ipv6.map(|net| net.to_string())).collect()
    }

    /// For `plan::Interface`: default gateways, at most one of each family.
    pub fn gateways(&self) -> Vec<String> {
        std::iter::once(self.gateway.to_string()).chain(self.gateway6.map(|address| address.to_string())).collect()
    }

    /// The addresses without prefix lengths, IPv4 first.
    pub fn ips(&self) -> Vec<IpAddr> {
        std::iter::once(IpAddr::V4(self.ipv4.addr())).chain(self.ipv6.map(|net| IpAddr::V6(net.addr()))).collect()
    }
}

/// Addresses that the user fixed. Everything not fixed is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    /// `--mac-address`.
    pub mac: Option<MacAddress>,
}

/// Digits of a whole container id.
const ID_DIGITS: usize = 64;

/// Name of the host's end of a container's link.
///
/// # Errors
/// [`Error::ContainerId`] for anything but 12 to 64 lower-case hexadecimal digits.
pub fn link_name(container: &str) -> Result<String> {
    let digits = container.get(..LINK_DIGITS).filter(|_| container.len() <= ID_DIGITS && is_hex(container));
    digits.map(|digits| format!("sbx{digits}")).ok_or_else(|| Error::ContainerId(container.into()))
}

/// The 12 digits of the container id that a link's name carries; `None` for links that are not ours.
pub(crate) fn container_of_link(link: &str) -> Option<&str> {
    link.strip_prefix("sbx").filter(|digits| digits.len() == LINK_DIGITS && is_hex(digits))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_fits_the_kernel_and_leads_back_to_its_container() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let link = link_name(id).unwrap();
        assert_eq!(link, "sbx0123456789ab");
        assert_eq!(link.len(), libc::IFNAMSIZ - 1);
        assert_eq!(container_of_link(&link), Some("0123456789ab"));
    }

    #[test]
    fn other_links_are_not_ours() {
        for name in ["sbx0", "eth0", "sbx0123456789ag", "sbx0123456789a", "veth0123456789a"] {
            assert_eq!(container_of_link(name), None, "{name}");
        }
        let long = "0".repeat(65);
        for id in ["", "0123", "0123456789AB", "../../etc/passwd", &long] {
            assert!(matches!(link_name(id), Err(Error::ContainerId(_))), "{id}");
        }
    }
}
