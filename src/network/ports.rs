//! Published ports: what is asked for, and the sockets that reserve them.
//!
//! The kernel is the only registry of host ports: whoever publishes one binds and listens a real socket on it, so
//! that a port taken by anybody is refused as Docker refuses it and a port is free again the moment its holder dies.
//! The socket is not idle: the userland proxy serves what nftables does not translate (loopback, hairpin).

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use sbx_sandbox::host_config::PortBinding;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where random ports come from when the kernel does not say (Docker's default, and IANA's dynamic range).
const DYNAMIC_PORTS: RangeInclusive<u16> = 49153..=65535;

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named as in protocols(5)")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.number() == number)
    }
}

/// A container port, `80/tcp`.
pub fn parse_container_port(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => {
            return Err(Error::Invalid(format!("cannot publish {text}: sctp is not supported, use tcp or udp")));
        }
        other => return Err(Error::Invalid(format!("invalid proto: {other}"))),
    };
    match parse_port(port) {
        Some(port) if port > 0 => Ok((port, protocol)),
        _ => Err(Error::Invalid(format!("invalid containerPort: {port}"))),
    }
}

/// One container port to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Address on the host; `None` is every address of both families.
    pub host_address: Option<IpAddr>,
    /// Ports on the host to choose from, the first that is free; `None` is any.
    pub host_ports: Option<RangeInclusive<u16>>,
}

impl PortRequest {
    /// Reads the Engine API's form: the key `80/tcp` and one of its bindings.
    pub fn parse(container_port: &str, binding: &PortBinding) -> Result<PortRequest> {
        let (container_port, protocol) = parse_container_port(container_port)?;
        let host_address = match binding.host_ip.trim_matches(['[', ']']) {
            "" => None,
            text => Some(text.parse().map_err(|_| Error::Invalid(format!("invalid IP address: {text}")))?),
        };
        let invalid = || Error::Invalid(format!("invalid hostPort: {}", binding.host_port));
        let host_ports = match binding.host_port.as_str() {
            "" | "0" => None,
            text => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let first = parse_port(first).filter(|port| *port > 0).ok_or_else(invalid)?;
                let last = parse_port(last).filter(|last| *last >= first).ok_or_else(invalid)?;
                Some(first..=last)
            }
        };
        Ok(PortRequest { protocol, container_port, host_address, host_ports })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A published port, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Published {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Address on the host; unspecified means every address of this family.
    pub host_address: IpAddr,
    /// Port on the host.
    pub host_port: u16,
}

/// A published port and the bound, for TCP listening, non-blocking socket that holds it.
#[derive(Debug)]
pub struct Reserved {
    /// What is published.
    pub published: Published,
    /// Closing it frees the port.
    pub socket: OwnedFd,
}

/// Binds (and for TCP listens on) every port asked for, all or none. A request for both families gives two
/// reservations on the same port number, or one of IPv4 where the host has no IPv6.
///
/// Errors are Docker's: `Bind for 0.0.0.0:8080 failed: port is already allocated`.
pub fn reserve(requests: &[PortRequest]) -> Result<Vec<Reserved>> {
    let mut reserved = Vec::with_capacity(requests.len() * 2);
    // Fixed ports first, so that a random one or one of a range never takes what a later request names.
    let (fixed, chosen): (Vec<_>, Vec<_>) = requests
        .iter()
        .partition(|request| request.host_ports.as_ref().is_some_and(|ports| ports.start() == ports.end()));
    for request in fixed.into_iter().chain(chosen) {
        reserve_one(request, &mut reserved)?;
    }
    Ok(reserved)
}

fn reserve_one(request: &PortRequest, reserved: &mut Vec<Reserved>) -> Result<()> {
    let mut refused = None;
    for port in candidates(request) {
        match bind_all(request, port) {
            Ok(sockets) => {
                reserved.extend(sockets);
                return Ok(());
            }
            Err((address, Errno::EADDRINUSE)) => refused = Some(address),
            Err((address, errno)) => {
                return Err(Error::Bind { address: address.to_string(), reason: reason(errno) });
            }
        }
    }
    let address = refused.unwrap_or_else(|| SocketAddr::new(addresses(request)[0], 0));
    let reason = match &request.host_ports {
        None => "all ports are allocated".into(),
        Some(ports) if ports.start() != ports.end() => {
            format!("all ports of {}-{} are already allocated", ports.start(), ports.end())
        }
        Some(_) => reason(Errno::EADDRINUSE),
    };
    Err(Error::Bind { address: address.to_string(), reason })
}

fn reason(errno: Errno) -> String {
    match errno {
        Errno::EADDRINUSE => "port is already allocated".into(),
        Errno::EADDRNOTAVAIL => "cannot assign requested address: no interface of this host has it".into(),
        other => io::Error::from(other).to_string(),
    }
}

/// Host ports to try, in order. Random ones start anywhere in the kernel's range, so that processes that know
/// nothing of each other seldom collide and a port that was just freed is seldom given out again.
fn candidates(request: &PortRequest) -> Box<dyn Iterator<Item = u16>> {
    if let Some(ports) = &request.host_ports {
        return Box::new(ports.clone());
    }
    let range = dynamic_ports();
    let (first, count) = (u32::from(*range.start()), u32::from(range.end() - range.start()) + 1);
    let offset = (RandomState::new().build_hasher().finish() % u64::from(count)) as u32;
    Box::new((0..count).map(move |step| (first + (offset + step) % count) as u16))
}

fn dynamic_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first <= last => first..=last,
        _ => DYNAMIC_PORTS,
    }
}

fn addresses(request: &PortRequest) -> Vec<IpAddr> {
    match request.host_address {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn bind_all(request: &PortRequest, port: u16) -> std::result::Result<Vec<Reserved>, (SocketAddr, Errno)> {
    let mut sockets = Vec::with_capacity(2);
    for host_address in addresses(request) {
        let address = SocketAddr::new(host_address, port);
        match bind(request.protocol, address) {
            Ok(socket) => sockets.push(Reserved {
                published: Published {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_address,
                    host_port: port,
                },
                socket,
            }),
            // The user did not ask for IPv6 by name, and this kernel has none.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if request.host_address.is_none() && address.is_ipv6() => {}
            Err(errno) => return Err((address, errno)),
        }
    }
    Ok(sockets)
}

fn bind(protocol: Protocol, address: SocketAddr) -> std::result::Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of a former holder in TIME_WAIT do not hold the port. Two UDP sockets with this option would
        // share it, so UDP goes without.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    } else if address.is_ipv4() {
        // The proxy answers from the address that was written to, which is noted when a datagram arrives: from now on.
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if protocol == Protocol::Tcp {
        // With the option set, only listening makes the port exclusive.
        socket::listen(&socket, Backlog::MAXALLOWABLE)?;
    }
    Ok(socket)
}
