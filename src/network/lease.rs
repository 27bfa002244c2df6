//! Which container has which address: one symbolic link for each lease, `leases/ADDRESS` → container id.
//!
//! symlink(2) is the whole transaction: it makes the complete lease or fails with `EEXIST`, so any number of processes
//! allocate at once without a lock and none can leave a half-written lease behind. `ls -l` shows who has what.
//! Addresses are given out in turn, not lowest first: one that was just freed is still in its neighbours' caches.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::definition::lock;
use crate::{Definition, Error, Fixed, Result};

/// How many addresses are tried before the directory is read.
const BLIND_ATTEMPTS: u32 = 16;

/// The leases of one network.
#[derive(Debug)]
pub(crate) struct Leases {
    /// `<run>/network/NAME/leases`.
    directory: PathBuf,
    /// Where the next search begins: four bytes, the offset given out last. Only a hint.
    cursor: PathBuf,
    /// Held by whoever removes leases, so that none is removed in the name of its former holder.
    removal: PathBuf,
}

impl Leases {
    pub(crate) fn new(run: &Path, network: &str) -> Leases {
        let base = run.join("network").join(network);
        Leases { directory: base.join("leases"), cursor: base.join("last"), removal: base.join(".lock") }
    }

    /// Leases addresses to a container.
    pub(crate) fn allocate(
        &self,
        network: &Definition,
        container: &str,
        fixed: Fixed,
    ) -> Result<(Ipv4Addr, Option<Ipv6Addr>)> {
        fs::create_dir_all(&self.directory).map_err(Error::file("create", &self.directory))?;
        let ranges = Ranges::of(network, fixed)?;
        match fixed.ipv4 {
            Some(address) => {
                if !self.take(address.into(), container)? {
                    return Err(Error::AddressInUse(address.into()));
                }
                let ipv6 = ranges.ipv6_beside(address);
                match ipv6.map(|ipv6| self.take(ipv6.into(), container)).transpose() {
                    Ok(None | Some(true)) => Ok((address, ipv6)),
                    other => {
                        self.give_back(address.into())?;
                        other.and_then(|_| {
                            ipv6.map_or(Ok((address, None)), |ipv6| Err(Error::AddressInUse(ipv6.into())))
                        })
                    }
                }
            }
            None => self.next_free(&ranges, container),
        }
    }

    fn next_free(&self, ranges: &Ranges, container: &str) -> Result<(Ipv4Addr, Option<Ipv6Addr>)> {
        let start = self.read_cursor();
        let mut taken = None;
        for step in 1..=ranges.count {
            let offset = 1 + (start % ranges.count + step - 1) % ranges.count;
            if step > BLIND_ATTEMPTS && taken.get_or_insert_with(|| self.taken(ranges)).contains(&offset) {
                continue;
            }
            if let Some(addresses) = self.try_offset(ranges, offset, container)? {
                self.write_cursor(offset)?;
                return Ok(addresses);
            }
        }
        Err(Error::AddressesExhausted { network: ranges.name.clone(), subnet: ranges.subnet.clone() })
    }

    fn try_offset(
        &self,
        ranges: &Ranges,
        offset: u32,
        container: &str,
    ) -> Result<Option<(Ipv4Addr, Option<Ipv6Addr>)>> {
        let ipv4 = Ipv4Addr::from(ranges.base4 + offset);
        let ipv6 = ranges.ipv6_beside(ipv4);
        if ranges.gateways.contains(&ipv4.into()) || ipv6.is_some_and(|ipv6| ranges.gateways.contains(&ipv6.into())) {
            return Ok(None);
        }
        if !self.take(ipv4.into(), container)? {
            return Ok(None);
        }
        match ipv6.map(|ipv6| self.take(ipv6.into(), container)).transpose() {
            Ok(None | Some(true)) => Ok(Some((ipv4, ipv6))),
            Ok(Some(false)) => {
                self.give_back(ipv4.into())?;
                match ranges.fixed6 {
                    Some(fixed) => Err(Error::AddressInUse(fixed.into())),
                    None => Ok(None),
                }
            }
            Err(error) => {
                self.give_back(ipv4.into())?;
                Err(error)
            }
        }
    }

    /// Whether the address was free and is the container's now.
    fn take(&self, address: IpAddr, container: &str) -> Result<bool> {
        let path = self.path(address);
        match symlink(container, &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::file("create the lease", path)(error)),
        }
    }

    fn give_back(&self, address: IpAddr) -> Result<()> {
        let path = self.path(address);
        fs::remove_file(&path).map_err(Error::file("remove the lease", path))
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    /// Offsets of all leased IPv4 addresses. One that is missed here is still refused by symlink(2).
    fn taken(&self, ranges: &Ranges) -> HashSet<u32> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return HashSet::new();
        };
        let addresses = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<Ipv4Addr>().ok());
        addresses.filter_map(|address| u32::from(address).checked_sub(ranges.base4)).collect()
    }

    fn read_cursor(&self) -> u32 {
        let mut bytes = [0; 4];
        match fs::File::open(&self.cursor).and_then(|file| file.read_exact_at(&mut bytes, 0)) {
            Ok(()) => u32::from_le_bytes(bytes),
            Err(_) => 0, // a hint that is missing or short only costs a longer search
        }
    }

    fn write_cursor(&self, offset: u32) -> Result<()> {
        let open = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&self.cursor);
        open.and_then(|file| file.write_all_at(&offset.to_le_bytes(), 0)).map_err(Error::file("write", &self.cursor))
    }

    /// Every lease and its holder.
    pub(crate) fn list(&self) -> Result<Vec<(IpAddr, String)>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::file("read", &self.directory))?,
        };
        let mut leases = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("read", &self.directory))?;
            let address = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // A lease that is gone by now has no holder.
            if let (Some(address), Ok(holder)) = (address, fs::read_link(entry.path())) {
                leases.push((address, holder.to_string_lossy().into_owned()));
            }
        }
        Ok(leases)
    }

    /// Removes the leases of every container that `gone` names; says how many.
    pub(crate) fn release(&self, gone: &dyn Fn(&str) -> bool) -> Result<usize> {
        let old: Vec<IpAddr> =
            self.list()?.into_iter().filter(|(_, holder)| gone(holder)).map(|(address, _)| address).collect();
        self.release_addresses(&old, gone)
    }

    /// Removes those of the leases that are still held by a container that `gone` names.
    pub(crate) fn release_addresses(&self, addresses: &[IpAddr], gone: &dyn Fn(&str) -> bool) -> Result<usize> {
        if addresses.is_empty() {
            return Ok(0);
        }
        let _lock = lock(&self.removal)?;
        let mut removed = 0;
        for address in addresses {
            let path = self.path(*address);
            // Another process may have removed it and a third taken it since it was listed.
            if fs::read_link(&path).is_ok_and(|holder| gone(&holder.to_string_lossy())) {
                self.give_back(*address)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The arithmetic of one network.
struct Ranges {
    name: String,
    subnet: String,
    base4: u32,
    /// Addresses between the network's own and its broadcast address.
    count: u32,
    base6: Option<u128>,
    fixed6: Option<Ipv6Addr>,
    gateways: Vec<IpAddr>,
}

impl Ranges {
    /// Checks the fixed addresses on the way.
    fn of(network: &Definition, fixed: Fixed) -> Result<Ranges> {
        let (net4, _) = network.ipv4().ok_or_else(|| Error::NoFreeSubnet { network: network.name.clone() })?;
        let net6 = network.ipv6().map(|(net, _)| net);
        let gateways: Vec<IpAddr> = network.subnets.iter().map(|subnet| subnet.gateway).collect();
        if let Some(address) = fixed.ipv4 {
            if !net4.contains(&address) {
                return Err(Error::AddressOutside(address.into()));
            }
            if address == net4.network() || address == net4.broadcast() || gateways.contains(&address.into()) {
                return Err(Error::AddressReserved(address.into()));
            }
        }
        if let Some(address) = fixed.ipv6 {
            if !net6.is_some_and(|net| net.contains(&address)) {
                return Err(Error::AddressOutside(address.into()));
            }
            if net6.is_some_and(|net| net.network() == address) || gateways.contains(&address.into()) {
                return Err(Error::AddressReserved(address.into()));
            }
        }
        let base4 = u32::from(net4.network());
        Ok(Ranges {
            name: network.name.clone(),
            subnet: net4.to_string(),
            base4,
            count: u32::from(net4.broadcast()) - base4 - 1,
            base6: net6.map(|net| u128::from(net.network())),
            fixed6: fixed.ipv6,
            gateways,
        })
    }

    /// The IPv6 address that goes with an IPv4 address: the same offset in its range, or the fixed one.
    fn ipv6_beside(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let offset = u128::from(u32::from(address) - self.base4);
        self.base6.map(|base| self.fixed6.unwrap_or_else(|| Ipv6Addr::from(base + offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::NetworkOptions;
    use crate::subnet::decide;

    fn network(subnet: &str) -> Definition {
        let options = NetworkOptions {
            subnet: Some(subnet.parse().unwrap()),
            subnet6: Some("fd00:1::/64".parse().unwrap()),
            ..NetworkOptions::default()
        };
        decide(&options, &[], true).unwrap()
    }

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    fn fixed4(text: &str) -> Fixed {
        Fixed { ipv4: Some(text.parse().unwrap()), ..Fixed::default() }
    }

    fn fixed6(text: &str) -> Fixed {
        Fixed { ipv6: Some(text.parse().unwrap()), ..Fixed::default() }
    }

    #[test]
    fn addresses_go_round_before_they_come_again() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let network = network("10.0.0.0/29");
        let next = |number| leases.allocate(&network, &id(number), Fixed::default()).map(|(ipv4, _)| ipv4.octets()[3]);
        assert_eq!((2..=4).map(|number| next(number).unwrap()).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(leases.release(&|holder| holder == id(2)).unwrap(), 2);
        assert_eq!((5..=7).map(|number| next(number).unwrap()).collect::<Vec<_>>(), [5, 6, 2]);
        let error = next(8).unwrap_err();
        assert!(matches!(error, Error::AddressesExhausted { .. }), "{error}");
        assert_eq!(leases.list().unwrap().len(), 10);
    }

    #[test]
    fn ipv6_goes_alongside() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let addresses = leases.allocate(&network("172.17.0.0/16"), &id(1), Fixed::default()).unwrap();
        assert_eq!(addresses, ("172.17.0.2".parse().unwrap(), Some("fd00:1::2".parse().unwrap())));
    }

    #[test]
    fn an_address_whose_partner_is_fixed_elsewhere_is_passed_over() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let network = network("10.0.0.0/24");
        let (first, _) = leases.allocate(&network, &id(1), fixed6("fd00:1::3")).unwrap();
        assert_eq!(first.to_string(), "10.0.0.2");
        let (second, _) = leases.allocate(&network, &id(2), Fixed::default()).unwrap();
        assert_eq!(second.to_string(), "10.0.0.4");
        assert_eq!(leases.list().unwrap().len(), 4);
    }

    #[test]
    fn fixed_addresses_are_refused_with_dockers_words() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let network = network("10.0.0.0/24");
        leases.allocate(&network, &id(1), fixed4("10.0.0.9")).unwrap();
        let before = leases.list().unwrap().len();
        for (fixed, text) in [
            (fixed4("10.0.0.9"), "Address already in use: 10.0.0.9"),
            (fixed6("fd00:1::9"), "Address already in use: fd00:1::9"),
            (fixed4("10.0.1.9"), "no configured subnet contains IP address 10.0.1.9"),
            (fixed6("fd01::9"), "no configured subnet contains IP address fd01::9"),
            (fixed4("10.0.0.1"), "IP address 10.0.0.1 is reserved"),
            (fixed4("10.0.0.0"), "IP address 10.0.0.0 is reserved"),
            (fixed4("10.0.0.255"), "IP address 10.0.0.255 is reserved"),
            (fixed6("fd00:1::1"), "IP address fd00:1::1 is reserved"),
        ] {
            let error = leases.allocate(&network, &id(2), fixed).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        assert_eq!(leases.list().unwrap().len(), before, "a refused request left a lease behind");
    }

    #[test]
    fn thousands_of_leases_do_not_slow_the_next() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let network = network("10.0.0.0/16");
        for number in 0..1000 {
            leases.allocate(&network, &id(number), Fixed::default()).unwrap();
        }
        leases.write_cursor(1).unwrap(); // as if it had gone round
        let begin = std::time::Instant::now();
        let (address, _) = leases.allocate(&network, &id(1000), Fixed::default()).unwrap();
        assert_eq!(address.to_string(), "10.0.3.234");
        assert!(begin.elapsed().as_millis() < 500, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_cursor_of_garbage_is_only_a_hint() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let network = network("10.0.0.0/29");
        fs::create_dir_all(run.path().join("network/bridge")).unwrap();
        for garbage in [&b""[..], b"x", &[0xff; 4], &[0xff; 9]] {
            fs::write(&leases.cursor, garbage).unwrap();
            leases.allocate(&network, &id(1), Fixed::default()).unwrap();
        }
    }

    #[test]
    fn twenty_at_once_never_share() {
        let run = tempfile::tempdir().unwrap();
        let network = network("10.0.0.0/24");
        let all: Vec<(Ipv4Addr, Option<Ipv6Addr>)> = std::thread::scope(|scope| {
            let allocate = |number: usize| {
                let leases = Leases::new(run.path(), "bridge");
                (0..12)
                    .map(|turn| leases.allocate(&network, &id(number * 100 + turn), Fixed::default()).unwrap())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..20).map(|number| scope.spawn(move || allocate(number))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: HashSet<_> =
            all.iter().flat_map(|(ipv4, ipv6)| [IpAddr::V4(*ipv4), IpAddr::V6(ipv6.unwrap())]).collect();
        assert_eq!(distinct.len(), 20 * 12 * 2);
    }

    #[test]
    fn the_dead_lose_their_leases_and_nobody_else() {
        let run = tempfile::tempdir().unwrap();
        let leases = Leases::new(run.path(), "bridge");
        let network = network("10.0.0.0/24");
        for number in 1..=4 {
            leases.allocate(&network, &id(number), Fixed::default()).unwrap();
        }
        assert_eq!(leases.release(&|holder| holder == id(1) || holder == id(3)).unwrap(), 4);
        let left: HashSet<String> = leases.list().unwrap().into_iter().map(|(_, holder)| holder).collect();
        assert_eq!(left, HashSet::from([id(2), id(4)]));
        assert_eq!(leases.release(&|_| false).unwrap(), 0);
    }
}
