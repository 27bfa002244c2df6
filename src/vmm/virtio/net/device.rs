//! The device itself: what it is made from, and when the tap is watched. Frames from the tap are in `receive.rs`, frames to
//! it in `transmit.rs`.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use super::link::Link;
use crate::virtio::chain::RING_FEATURES;
use crate::virtio::config_space;
use crate::virtio::device::{Device, DeviceError};
use crate::virtio::io::{Interest, Io};

/// Queues (section 5.1.2): frames to the guest.
pub(super) const RX: usize = 0;
/// Frames from the guest.
pub(super) const TX: usize = 1;
/// Linux fills the first with buffers of about 1.5 KiB: together they hold several of the largest frames.
const QUEUE_SIZES: [u16; 2] = [256, 256];

const FEATURES: [u32; 10] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
];

/// Smallest MTU, as Linux has it (`ETH_MIN_MTU`), and largest.
const MTU: std::ops::RangeInclusive<u16> = 68..=u16::MAX;

const TAP: u64 = 0;
const AGAIN: u64 = 1;

/// What a network device is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// Most bytes of a packet on the link, without its Ethernet header.
    pub mtu: u16,
}

/// The virtio-net device.
#[derive(Debug)]
pub struct Net {
    pub(super) config: Config,
    pub(super) tap: OwnedFd,
    pub(super) link: Link,
    /// What the guest was told of the link.
    pub(super) is_up: bool,
    /// The tap's interface is gone.
    is_gone: bool,
    /// The driver has no buffers for frames.
    pub(super) is_starved: bool,
    /// The tap takes no frames now.
    pub(super) is_stuck: bool,
    /// The link came up: what waits in the tap is from before.
    pub(super) is_stale: bool,
    watched: Option<Interest>,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    is_up: bool,
}

impl Net {
    /// Makes a device on a tap, which must be as the [module](super) says.
    ///
    /// # Errors
    /// The configuration makes no sense, or no descriptor is free.
    pub fn new(config: Config, tap: OwnedFd) -> Result<Self, DeviceError> {
        if config.mac[0] & 1 != 0 {
            return Err(DeviceError::State("a hardware address of a group cannot be that of one device".to_owned()));
        }
        if !MTU.contains(&config.mtu) {
            return Err(DeviceError::State(format!("an MTU of {} bytes is none: take 68 or more", config.mtu)));
        }
        Ok(Self {
            config,
            tap,
            link: Link::new()?,
            is_up: true,
            is_gone: false,
            is_starved: false,
            is_stuck: false,
            is_stale: false,
            watched: None,
        })
    }

    /// The handle by which the owner pulls the cable out and plugs it in.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// Tells the guest of the link, where it has changed.
    fn follow_link(&mut self, io: &Io) -> Result<(), DeviceError> {
        let is_up = self.link.is_connected() && !self.is_gone;
        if is_up == self.is_up {
            return Ok(());
        }
        self.is_up = is_up;
        self.is_stale = is_up;
        io.signal_config(self)
    }

    /// Watches the tap for what the device waits for now.
    fn rewatch(&mut self, io: &Io) -> Result<(), DeviceError> {
        let wanted = Interest { readable: self.is_up && !self.is_starved, writable: self.is_stuck, closed: false };
        let wanted = (!self.is_gone).then_some(wanted);
        let before = std::mem::replace(&mut self.watched, wanted);
        match (before, wanted) {
            (None, Some(interest)) => io.watch(self.tap.as_fd(), TAP, interest),
            (Some(before), Some(interest)) if before != interest => io.rewatch(self.tap.as_fd(), TAP, interest),
            (Some(_), None) => io.unwatch(self.tap.as_fd()),
            _ => Ok(()),
        }
    }
}

impl Device for Net {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn name(&self) -> &str {
        "net"
    }

    fn features(&self) -> u64 {
        FEATURES.iter().fold(RING_FEATURES, |features, bit| features | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// `struct virtio_net_config`, section 5.1.4: address, status, pairs of queues, MTU.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 12];
        space[..6].copy_from_slice(&self.config.mac);
        let status = if self.is_up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        space[6..8].copy_from_slice(&status.to_le_bytes());
        space[8..10].copy_from_slice(&1_u16.to_le_bytes());
        space[10..].copy_from_slice(&self.config.mtu.to_le_bytes());
        config_space::read(&space, offset, data);
    }

    fn start(&mut self, io: &mut Io) -> Result<(), DeviceError> {
        self.link.again().watch(io, AGAIN)?;
        self.rewatch(io)
    }

    fn queue_ready(&mut self, queue: usize, io: &mut Io) -> Result<(), DeviceError> {
        if queue == RX {
            self.receive(io)?
        } else {
            self.transmit(io)?
        }
        self.rewatch(io)
    }

    fn source_ready(&mut self, token: u64, ready: Interest, io: &mut Io) -> Result<(), DeviceError> {
        if token == AGAIN {
            self.link.again().hear();
        }
        // An interface that was taken away reports an error for ever.
        self.is_gone |= token == TAP && ready.closed;
        self.follow_link(io)?;
        if token == AGAIN || ready.writable {
            self.transmit(io)?;
        }
        if token == AGAIN || ready.readable {
            self.receive(io)?;
        }
        self.rewatch(io)
    }

    fn reset(&mut self) {
        self.is_starved = false;
        self.is_stuck = false;
        self.watched = None;
    }

    fn save(&self) -> Result<Vec<u8>, DeviceError> {
        postcard::to_allocvec(&State { is_up: self.is_up }).map_err(|error| DeviceError::State(error.to_string()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let state: State = postcard::from_bytes(state).map_err(|error| DeviceError::State(error.to_string()))?;
        // What the guest knows. What the owner wants of this device it has said to this device.
        self.is_up = state.is_up;
        Ok(())
    }
}
