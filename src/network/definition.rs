//! What a network is, as plain data: the file `<state>/networks/NAME.json` and the options it is made from.
//!
//! A definition is decided once, under a lock, and does not change while its bridge exists: containers carry addresses
//! out of it. The types leave room for user-defined networks; only the default bridge is made today.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Version of the file's layout.
const SCHEMA_VERSION: u32 = 1;
/// A definition is smaller than a page; anything larger was not written by us.
const LONGEST_DEFINITION: u64 = 64 * 1024;

/// How a network moves packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge on this host, with NAT.
    Bridge,
}

/// One address range of a network and its router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Subnet {
    /// `172.17.0.0/16`.
    pub subnet: IpNet,
    /// The bridge's own address in it.
    pub gateway: IpAddr,
}

/// A network as it is persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Definition {
    /// Layout of this file.
    pub schema_version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// `bridge`.
    pub name: String,
    /// How it moves packets.
    pub driver: Driver,
    /// One of IPv4, and at most one of IPv6.
    pub subnets: Vec<Subnet>,
    /// Name of the bridge device, `sbx0`.
    pub interface: String,
    /// Bytes.
    pub mtu: u32,
    /// Driver options, for user-defined networks.
    pub options: BTreeMap<String, String>,
    /// User metadata, for user-defined networks.
    pub labels: BTreeMap<String, String>,
}

impl Definition {
    /// The IPv4 range; every network has one.
    pub fn ipv4(&self) -> Option<(Ipv4Net, Ipv4Addr)> {
        self.subnets.iter().find_map(|subnet| match (subnet.subnet, subnet.gateway) {
            (IpNet::V4(net), IpAddr::V4(gateway)) => Some((net, gateway)),
            _ => None,
        })
    }

    /// The IPv6 range, where the network has one.
    pub fn ipv6(&self) -> Option<(Ipv6Net, Ipv6Addr)> {
        self.subnets.iter().find_map(|subnet| match (subnet.subnet, subnet.gateway) {
            (IpNet::V6(net), IpAddr::V6(gateway)) => Some((net, gateway)),
            _ => None,
        })
    }
}

/// Whether the network has an IPv6 range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv6 {
    /// Where the kernel has IPv6.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What the configuration says about the default bridge network. The default is what Docker would choose.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Name of the bridge device.
    pub interface: String,
    /// The IPv4 range; `None` chooses the first of Docker's pools that is free on this host.
    pub subnet: Option<Ipv4Net>,
    /// The bridge's IPv4 address; `None` is the first of the range.
    pub gateway: Option<Ipv4Addr>,
    /// The IPv6 range; `None` makes a unique local /64 up.
    pub subnet6: Option<Ipv6Net>,
    /// Whether there is an IPv6 range.
    pub ipv6: Ipv6,
    /// Bytes.
    pub mtu: u32,
}

impl Default for NetworkOptions {
    fn default() -> NetworkOptions {
        NetworkOptions {
            interface: "sbx0".into(),
            subnet: None,
            gateway: None,
            subnet6: None,
            ipv6: Ipv6::Auto,
            mtu: 1500,
        }
    }
}

/// Where the definition of a network is.
pub(crate) fn path(state: &Path, name: &str) -> PathBuf {
    state.join("networks").join(format!("{name}.json"))
}

/// Reads a definition; `None` where there is none.
pub(crate) fn load(path: &Path) -> Result<Option<Definition>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(LONGEST_DEFINITION).read_to_end(&mut text).map_err(Error::file("read", path))?;
    let definition: Definition = serde_json::from_slice(&text)
        .map_err(|error| Error::Definition { path: path.into(), reason: error.to_string() })?;
    let reason = match &definition {
        other if other.schema_version != SCHEMA_VERSION => {
            format!("schema version {}", other.schema_version)
        }
        other if other.ipv4().is_none() => "it has no IPv4 subnet".into(),
        other if !other.subnets.iter().all(|subnet| subnet.subnet.contains(&subnet.gateway)) => {
            "a gateway is outside its subnet".into()
        }
        _ => return Ok(Some(definition)),
    };
    Err(Error::Definition { path: path.into(), reason })
}

/// Reads the definition, or has one made and persists it; callers that race get the same one.
pub(crate) fn load_or_create(path: &Path, create: impl FnOnce() -> Result<Definition>) -> Result<Definition> {
    if let Some(definition) = load(path)? {
        return Ok(definition);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    let _lock = lock_beside(path)?;
    if let Some(definition) = load(path)? {
        return Ok(definition);
    }
    let definition = create()?;
    persist(path, &definition)?;
    Ok(definition)
}

/// Persists another definition in the place of the one there is.
pub(crate) fn replace(path: &Path, definition: Definition) -> Result<Definition> {
    let _lock = lock_beside(path)?;
    persist(path, &definition)?;
    Ok(definition)
}

/// Held while a definition is decided or replaced.
fn lock_beside(path: &Path) -> Result<Flock<fs::File>> {
    lock(&path.with_file_name(".lock"))
}

/// Takes the exclusive lock of a file, which is made where it is missing. The kernel frees it with its holder.
pub(crate) fn lock(path: &Path) -> Result<Flock<fs::File>> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::file("open", path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::File {
        action: "lock",
        path: path.into(),
        source: errno.into(),
    })
}

fn persist(path: &Path, definition: &Definition) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(definition)
        .map_err(|error| Error::Definition { path: path.into(), reason: error.to_string() })?;
    text.push(b'\n');
    // Only the holder of the lock writes this name, so one that a crash left behind is simply overwritten.
    let temporary = path.with_extension("json.new");
    let mut file = fs::File::create(&temporary).map_err(Error::file("create", &temporary))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::file("rename", &temporary))
}

/// A new definition of the default bridge with the given ranges.
pub(crate) fn bridge(id: String, subnets: Vec<Subnet>, options: &NetworkOptions) -> Definition {
    Definition {
        schema_version: SCHEMA_VERSION,
        id,
        name: "bridge".into(),
        driver: Driver::Bridge,
        subnets,
        interface: options.interface.clone(),
        mtu: options.mtu,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}
