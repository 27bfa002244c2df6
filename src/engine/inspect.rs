//! What there is to show of a container: the facts that neither its specification nor its state holds.

use std::collections::BTreeMap;
use std::path::Path;

use sbx_image::Digest;
use sbx_network::{Endpoint, Network, Published};
use sbx_process_mode::NetworkFacts as Given;
use sbx_sandbox::config::EndpointConfig;
use sbx_sandbox::host_config::PortBinding;
use sbx_sandbox::id::Id;
use sbx_sandbox::inspect::{EndpointFacts, InspectFacts, NetworkFacts, Sizes, inspect};
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::volumes::Volume;

use crate::list::Listed;
use crate::{Engine, Result};

/// How `info` and `inspect` call the way in which root file systems are put together.
pub const STORAGE_DRIVER: &str = "overlayfs";

impl Engine {
    /// Docker's JSON of a container. `sizes` are shown where there are any.
    pub fn inspect(&self, listed: &Listed, sizes: Option<Sizes>) -> serde_json::Value {
        let Listed { spec, state, network } = listed;
        let files = self.store.files(&spec.id);
        let mut facts = InspectFacts { driver: STORAGE_DRIVER.to_owned(), sizes, ..InspectFacts::default() };
        if let Ok(layer) = sbx_rootfs::WritableLayer::open(&files.directory) {
            for (name, path) in [("UpperDir", layer.upper()), ("WorkDir", layer.work())] {
                facts.driver_data.insert(name.to_owned(), path.display().to_string());
            }
        }
        facts.network = self.network_shown(spec, network);
        if state.status.is_active() {
            facts.network.sandbox_id = spec.id.to_string();
            facts.network.sandbox_key = format!("/proc/{}/ns/net", state.pid);
        }
        inspect(spec, state, &files, &facts)
    }

    /// Bytes of a container's writable layer, and of that and its image.
    pub fn sizes(&self, id: &Id) -> Result<Sizes> {
        let writable = self.size(id)?;
        let image = self.spec(id)?.image.id;
        // `rmi -f` may have removed the image from under a container.
        let below = image.parse::<Digest>().ok().and_then(|id| self.images().ok()?.get(&id).ok());
        Ok(Sizes { writable, root: writable + below.map_or(0, |image| image.size) })
    }

    /// The id of the bridge network; `None` before the first container is started on it.
    #[must_use]
    pub fn bridge_id(&self) -> Option<String> {
        let options = crate::network_options(&self.settings).ok()?;
        let network = Network::open(&self.paths.root, &self.paths.run, &options).ok()?;
        Some(network.definition().id.clone())
    }

    /// Bytes of the files of a volume, each file once.
    pub fn volume_size(&self, volume: &Volume) -> Result<u64> {
        Ok(size_of(&self.volume_data(volume), &mut std::collections::HashSet::new())?)
    }

    fn network_shown(&self, spec: &SandboxSpec, given: &Given) -> NetworkFacts {
        let mode = &spec.host_config.network_mode;
        let mut shown = NetworkFacts::default();
        if mode.starts_with("container:") {
            return shown;
        }
        let name = if matches!(mode.as_str(), "" | "default") { "bridge" } else { mode };
        let asked = spec.networking.endpoints_config.get(name);
        let mut facts = endpoint_facts(asked.cloned().unwrap_or_default());
        if let Some(endpoint) = &given.endpoint {
            facts.network_id = self.bridge_id().unwrap_or_default();
            facts.endpoint_id = Digest::of(format!("{}/{}", endpoint.network, endpoint.container).as_bytes()).hex();
            place(&mut facts, endpoint);
            shown.ports = ports(spec, &given.ports);
        }
        shown.networks.insert(name.to_owned(), facts);
        shown
    }
}

fn endpoint_facts(asked: EndpointConfig) -> EndpointFacts {
    let list = |texts: Vec<String>| if texts.is_empty() { None } else { Some(texts) };
    EndpointFacts {
        ipam_config: asked.ipam_config,
        links: list(asked.links),
        aliases: list(asked.aliases),
        driver_opts: if asked.driver_opts.is_empty() { None } else { Some(asked.driver_opts) },
        mac_address: asked.mac_address,
        ..EndpointFacts::default()
    }
}

fn place(facts: &mut EndpointFacts, endpoint: &Endpoint) {
    facts.mac_address = endpoint.mac.to_string();
    facts.gateway = endpoint.gateway.to_string();
    facts.ip_address = endpoint.ipv4.addr().to_string();
    facts.ip_prefix_len = endpoint.ipv4.prefix_len();
    facts.ipv6_gateway = endpoint.gateway6.map(|address| address.to_string()).unwrap_or_default();
    if let Some(net) = endpoint.ipv6 {
        facts.global_ipv6_address = net.addr().to_string();
        facts.global_ipv6_prefix_len = net.prefix_len();
    }
}

/// Exposed and published ports.
fn ports(spec: &SandboxSpec, published: &[Published]) -> BTreeMap<String, Vec<PortBinding>> {
    let exposed = spec.config.exposed_ports.keys().map(|port| (port.clone(), Vec::new()));
    let mut all: BTreeMap<String, Vec<PortBinding>> = exposed.collect();
    for one in published {
        let key = format!("{}/{}", one.container_port, one.protocol.as_str());
        let binding = PortBinding { host_ip: one.host_address.to_string(), host_port: one.host_port.to_string() };
        all.entry(key).or_default().push(binding);
    }
    all
}

fn size_of(path: &Path, seen: &mut std::collections::HashSet<(u64, u64)>) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // Somebody removes files meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Ok(if seen.insert((metadata.dev(), metadata.ino())) { metadata.len() } else { 0 });
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        sum += size_of(&entry?.path(), seen)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let directory = std::env::temp_dir().join(format!("sbx-size-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("below")).unwrap();
        std::fs::write(directory.join("one"), [0; 1000]).unwrap();
        std::fs::hard_link(directory.join("one"), directory.join("below/two")).unwrap();
        std::fs::write(directory.join("below/three"), [0; 10]).unwrap();
        assert_eq!(size_of(&directory, &mut Default::default()).unwrap(), 1010);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(size_of(&directory, &mut Default::default()).unwrap(), 0);
    }
}
