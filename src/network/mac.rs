//! Ethernet addresses: Docker's derivation from an IPv4 address, and the user's own.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// A 48-bit Ethernet address; text form `02:42:ac:11:00:02`, also in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Docker's derivation: `02:42` (locally administered) and the four bytes of the address, so that an address
    /// that is used again finds the same neighbour entry.
    pub fn from_ipv4(address: Ipv4Addr) -> MacAddress {
        let [a, b, c, d] = address.octets();
        MacAddress([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    /// Six groups of two digits, by `:` or `-`. Multicast and all-zero addresses are refused, as the kernel would.
    fn from_str(text: &str) -> Result<MacAddress, Error> {
        let invalid = || Error::Invalid(format!("{text} is not a valid mac address"));
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut groups = text.split(separator);
        for byte in &mut bytes {
            let group = groups.next().filter(|group| group.len() == 2).ok_or_else(invalid)?;
            if !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| invalid())?;
        }
        if groups.next().is_some() {
            return Err(invalid());
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(Error::Invalid(format!(
                "{text} is not a valid mac address: an interface needs a unicast address"
            )));
        }
        Ok(MacAddress(bytes))
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MacAddress, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_as_docker() {
        assert_eq!(MacAddress::from_ipv4(Ipv4Addr::new(172, 17, 0, 2)).to_string(), "02:42:ac:11:00:02");
    }

    #[test]
    fn parses_and_prints() {
        let mac: MacAddress = "92-D0-c6-0a-29-33".parse().unwrap();
        assert_eq!(mac.to_string(), "92:d0:c6:0a:29:33");
    }

    #[test]
    fn refuses_what_no_interface_can_have() {
        for text in [
            "zz",
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "2:42:ac:11:0:2",
            "+2:42:ac:11:00:02",
        ] {
            let error = text.parse::<MacAddress>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text} is not a valid mac address")), "{error}");
        }
    }
}
