//! Counters of the interfaces in a process's network namespace (proc_pid_net(5), `/proc/PID/net/dev`).

use std::collections::BTreeMap;
use std::fs;

use super::NetworkUsage;
use crate::error::{Error, Step};

/// Counters of those of `names` that the network namespace of `pid` has, from its side.
pub fn interfaces(pid: i32, names: &[&str]) -> Result<BTreeMap<String, NetworkUsage>, Error> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).step(|| format!("read {path}"))?;
    Ok(parse(&text).filter(|(name, _)| names.contains(name)).map(|(name, usage)| (name.to_owned(), usage)).collect())
}

fn parse(text: &str) -> impl Iterator<Item = (&str, NetworkUsage)> {
    // Two lines of headings.
    text.lines().skip(2).filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let at = |index: usize| counters.get(index).copied();
        let usage = NetworkUsage {
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        };
        Some((name.trim(), usage))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0:       1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
broken: 1 2
";

    #[test]
    fn counters_are_taken_from_their_columns() {
        let found: BTreeMap<&str, NetworkUsage> = parse(TEXT).collect();
        assert_eq!(found.len(), 2);
        let eth0 = found["eth0"];
        assert_eq!((eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped), (1, 2, 3, 4));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (9, 10, 11, 12));
    }

    #[test]
    fn only_interfaces_that_were_asked_for_are_told() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = interfaces(own, &["lo", "sbx-nonesuch"]).unwrap();
        assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), ["lo"]);
        assert!(interfaces(i32::MAX, &[]).unwrap_err().message.contains("net/dev"));
    }
}
