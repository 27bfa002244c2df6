//! What can go wrong in host networking, one variant for each kind of answer a caller may want to give.
//!
//! Texts that a Docker user knows (`port is already allocated`, `Address already in use`, …) are Docker's own.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// An error of host networking. Every text names the step and its subject.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("cannot {step}: {source}{}", .detail.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Netlink {
        /// What was attempted, with its subject.
        step: String,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's own words (extended acknowledgement), where it has some.
        detail: Option<String>,
    },
    /// The kernel refused something else.
    #[error("{step}: {source}")]
    Io {
        /// What was attempted, with its subject.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel answered with something that is not netlink as documented.
    #[error("cannot {step}: the kernel's answer is malformed")]
    Malformed {
        /// What was attempted.
        step: String,
    },
    /// The kernel lacks a feature that container networking needs.
    #[error("the kernel has no {feature}: {remedy}")]
    KernelFeature {
        /// The feature, with the kernel option in brackets.
        feature: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A file could not be read, written, locked or removed.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// `read`, `write`, ….
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours holds something we did not write.
    #[error("{} is not a network definition that this version understands: {reason}; remove it to have a new one made", .path.display())]
    Definition {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Every candidate subnet overlaps a route or an address of the host.
    #[error(
        "no free subnet for network {network}: every one of Docker's default pools overlaps a route or address of this host; configure one"
    )]
    NoFreeSubnet {
        /// Name of the network.
        network: String,
    },
    /// The subnet of the network overlaps a route or an address of the host.
    #[error("the subnet {subnet} of network {network} overlaps {other} of this host; remove that, or remove {} to have another subnet chosen", .definition.display())]
    SubnetConflict {
        /// The subnet.
        subnet: String,
        /// Name of the network.
        network: String,
        /// The route or address, with its interface.
        other: String,
        /// Where the subnet is persisted.
        definition: PathBuf,
    },
    /// The configuration asks for something else than what the network was made with.
    #[error("network {network} was made with {actual}, the configuration asks for {wanted}; stop its containers and remove {} to have it made anew", .definition.display())]
    DefinitionChanged {
        /// Name of the network.
        network: String,
        /// What the network has.
        actual: String,
        /// What the configuration says.
        wanted: String,
        /// Where the network is persisted.
        definition: PathBuf,
    },
    /// The bridge's name is taken by something that is not a bridge.
    #[error("the interface {name} exists and is not a bridge; rename it, or configure another name for the bridge")]
    NotABridge {
        /// Name of the interface.
        name: String,
    },
    /// IPv6 was asked for on a kernel without it.
    #[error("network {network} has the IPv6 subnet {subnet} but IPv6 is disabled in this kernel; enable it, or remove {} to have the network made without", .definition.display())]
    NoIpv6 {
        /// Name of the network.
        network: String,
        /// The subnet.
        subnet: String,
        /// Where the network is persisted.
        definition: PathBuf,
    },
    /// A fixed address is taken.
    #[error("Address already in use: {0}")]
    AddressInUse(IpAddr),
    /// A fixed address is outside the network.
    #[error("no configured subnet contains IP address {0}")]
    AddressOutside(IpAddr),
    /// A fixed address is one that no container can have: network, gateway or broadcast.
    #[error("IP address {0} is reserved: it is the network's own, its gateway's or its broadcast address")]
    AddressReserved(IpAddr),
    /// All addresses are leased.
    #[error("no available IPv4 addresses on network {network} ({subnet}): every address is leased")]
    AddressesExhausted {
        /// Name of the network.
        network: String,
        /// The subnet.
        subnet: String,
    },
    /// The bridge has no port left.
    #[error(
        "cannot connect another container to the bridge {bridge}: the kernel allows 1023 ports on a bridge; stop containers that are not needed"
    )]
    BridgeFull {
        /// Name of the bridge.
        bridge: String,
    },
    /// A host port cannot be had.
    #[error("Bind for {address} failed: {reason}")]
    Bind {
        /// `0.0.0.0:8080`.
        address: String,
        /// `port is already allocated`, or the kernel's words.
        reason: String,
    },
    /// The container id is not one.
    #[error("{0:?} is not a container id: 12 to 64 lower-case hexadecimal digits are needed")]
    ContainerId(String),
    /// A value that the user gave is not valid; the text is Docker's.
    #[error("{0}")]
    Invalid(String),
}

/// Result of host networking.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the step of an I/O error.
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }

    /// The kernel's own words, where it had some.
    pub(crate) fn detail(&self) -> Option<&str> {
        match self {
            Error::Netlink { detail, .. } => detail.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Error::Netlink { source, .. } | Error::File { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
