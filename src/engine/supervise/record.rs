//! The container's state on disk, as its supervisor keeps it.

use std::path::PathBuf;

use sbx_process_mode::NetworkFacts;
use sbx_sandbox::id::Id;
use sbx_sandbox::spec::SandboxSpec;
use sbx_sandbox::state::{Event, State, Status};
use sbx_sandbox::store::Store;

/// The state and where it is written.
#[derive(Debug)]
pub(crate) struct Record {
    store: Store,
    id: Id,
    state: State,
    network: PathBuf,
    /// The container goes away at its end, so that how it ended need not be written down.
    transient: bool,
}

impl Record {
    /// `network` is the file that tells about the network while the container runs.
    pub(crate) fn new(store: Store, spec: &SandboxSpec, state: State, network: PathBuf) -> Self {
        Self { store, id: spec.id.clone(), state, network, transient: spec.host_config.auto_remove }
    }

    /// Tells about the network.
    pub(crate) fn tell_network(&self, facts: &NetworkFacts) {
        if let Ok(text) = serde_json::to_vec(facts) {
            // For show only: without it `inspect` and `port` show no addresses.
            let _ = std::fs::write(&self.network, text);
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.state.status
    }

    pub(crate) fn stopped_by_user(&self) -> bool {
        self.state.stopped_by_user
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Moves the state on and writes it. A move that the transition table refuses is a mistake of ours and changes
    /// nothing; a disk that cannot be written leaves the old state, which the next command finds to be stale and mends.
    pub(crate) fn apply(&mut self, event: Event) {
        let is_last = matches!(event, Event::Exited(_));
        if self.state.apply(event).is_ok() && !(is_last && self.transient) {
            self.write();
        }
    }

    /// Changes the health part.
    pub(crate) fn change_health(&mut self, change: impl FnOnce(&mut sbx_sandbox::health::Health)) {
        if let Some(health) = &mut self.state.health {
            change(health);
            self.write();
        }
    }

    /// Notes what went wrong without ending the container.
    pub(crate) fn note_error(&mut self, error: &str) {
        if self.state.error != error {
            error.clone_into(&mut self.state.error);
            self.write();
        }
    }

    fn write(&self) {
        // See `apply`: a write that fails is repaired by whoever reads the stale state.
        let _ = self.store.write_state(&self.id, &self.state);
    }
}
