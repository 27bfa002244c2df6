//! The host side of container networking: bridge, links, addresses, NAT and ports.
//!
//! No daemon stands behind this: any number of processes call it at once and any of them can be killed at any
//! instruction. So the kernel and the file system are the only registry, every object carries the id of its container
//! (link `sbx` + 12 digits, lease → id, nftables element with the id as its comment), and [`Network::reap`] finds what
//! is left of containers that are gone.
//!
//! ```text
//! let mut network = Network::open(state, run, &NetworkOptions::default())?;
//! network.prepare()?;                                   // bridge, table: made once, then two queries
//! let reserved = ports::reserve(&requests)?;            // supervisor: sockets hold the host ports
//! let endpoint = network.allocate(&id, Fixed::default())?; // lease: address, MAC
//! network.connect(&endpoint, netns)?;                   // veth: eth0 in `netns`, sbx… on the bridge
//! let tap = network.connect_tap(&endpoint, offload)?;   // or a tap: sbx… on the bridge, frames by the descriptor
//! network.publish(&endpoint, &published)?;              // nftables elements
//! proxy::run(reserved, Targets::of(&endpoint))          // in a forked child
//! network.remove(&endpoint)?;                           // unpublish, disconnect, release
//! ```

mod attachment;
mod bridge;
mod conntrack;
mod default_bridge;
mod definition;
mod departure;
mod endpoint;
mod error;
mod etc;
pub mod hosts;
mod lease;
mod link;
mod mac;
mod mode;
mod netlink;
mod nft;
pub mod ports;
pub mod proxy;
pub mod resolv;
mod stats;
mod subnet;
mod sys;
mod tap;

pub use attachment::{Attachment, NetworkFacts};
pub use default_bridge::{Network, Reaped};
pub use definition::{Definition, Driver, Ipv6, NetworkOptions, Subnet};
pub use endpoint::{Endpoint, Fixed, link_name};
pub use error::{Error, Result};
pub use etc::EtcFiles;
pub use mac::MacAddress;
pub use mode::NetworkMode;
pub use nft::firewall_answers;
pub use ports::{PortRequest, Protocol, Published, Reserved};
pub use stats::InterfaceStats;
pub use tap::{Offload, VNET_HEADER_BYTES};

#[cfg(test)]
mod tests;
