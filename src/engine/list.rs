//! What containers there are.

use sbx_network::Published;
use sbx_process_mode::NetworkFacts;
use sbx_sandbox::id::Id;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::state::State;

use crate::{Engine, Result};

/// A container and how it is.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it is.
    pub spec: SandboxSpec,
    /// How it is.
    pub state: State,
    /// Its network while it runs.
    pub network: NetworkFacts,
}

/// A published port.
pub type PublishedPort = Published;

impl Engine {
    /// Every container, newest first. One that vanishes meanwhile is left out; a damaged one is an error.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        for id in self.store.list()? {
            let listed = self.look_at(&id);
            match listed {
                Err(_) if !self.store.files(&id).directory.exists() => {}
                other => all.push(other?),
            }
        }
        all.sort_by(|one, other| {
            other.spec.created.cmp(&one.spec.created).then_with(|| one.spec.id.cmp(&other.spec.id))
        });
        Ok(all)
    }

    /// One container and how it is.
    pub fn look_at(&self, id: &Id) -> Result<Listed> {
        let state = self.state(id)?;
        let network = if state.status.is_active() { self.network_facts(id) } else { NetworkFacts::default() };
        Ok(Listed { spec: self.store.spec(id)?, state, network })
    }

    /// What the supervisor tells about the network; nothing where it has not told yet.
    pub(crate) fn network_facts(&self, id: &Id) -> NetworkFacts {
        std::fs::read(self.paths.sandbox(id.as_str()).network())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Bytes of a container's writable layer.
    pub fn size(&self, id: &Id) -> Result<u64> {
        let directory = self.store.files(id).directory;
        match sbx_rootfs::WritableLayer::open(&directory) {
            Ok(writable) => Ok(writable.size()?),
            // Made by the first start.
            Err(_) => Ok(0),
        }
    }
}
