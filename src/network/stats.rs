//! What went through a container's interface, counted at the host's end of its link.

use serde::{Deserialize, Serialize};

/// Counters of an interface, as the container sees them (Engine API, `ContainerStats`, `networks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the Engine API")]
pub struct InterfaceStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl InterfaceStats {
    /// Reads the host end's `struct rtnl_link_stats64` (`linux/if_link.h`): what it received the container sent.
    pub(crate) fn of_host_end(stats: &[u8]) -> Option<InterfaceStats> {
        let field = |index: usize| {
            let bytes = stats.get(index * 8..index * 8 + 8)?;
            bytes.try_into().ok().map(u64::from_ne_bytes)
        };
        Some(InterfaceStats {
            tx_packets: field(0)?,
            rx_packets: field(1)?,
            tx_bytes: field(2)?,
            rx_bytes: field(3)?,
            tx_errors: field(4)?,
            rx_errors: field(5)?,
            tx_dropped: field(6)?,
            rx_dropped: field(7)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sides_are_swapped() {
        let bytes: Vec<u8> = (1..=24_u64).flat_map(u64::to_ne_bytes).collect();
        let stats = InterfaceStats::of_host_end(&bytes).unwrap();
        assert_eq!((stats.tx_packets, stats.rx_packets, stats.tx_bytes, stats.rx_bytes), (1, 2, 3, 4));
        assert_eq!((stats.tx_errors, stats.rx_errors, stats.tx_dropped, stats.rx_dropped), (5, 6, 7, 8));
        assert_eq!(InterfaceStats::of_host_end(&bytes[..63]), None);
    }
}
