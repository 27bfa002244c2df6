//! Finding and removing what killed processes left behind. Every command begins with it.
//!
//! A sandbox that exists has a lock below `RUN/containers` that its supervisor holds. A lock that is free belongs to
//! nobody: its container is dead, and everything with its id in the name is removed.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use anyhow::Context;
use nix::fcntl::FlockArg;
use sbx_sandbox::id::Id;
use sbx_sandbox::settings::Settings;
use sbx_sandbox::state::{Event, Exit, Status};
use sbx_sandbox::store::{Durability, Store};
use sbx_sandbox::timestamp::Timestamp;
use sbx_sandbox::volumes::Volumes;

use crate::lock;
use crate::paths::{Paths, id_of_lock};
use crate::remove::{AnonymousVolumes, forget};

/// Exit code of what died of SIGKILL: a container with its supervisor, a process of `exec` with its container.
pub(crate) const KILLED: i32 = 137;

/// Clears what is left of sandboxes that nobody supervises. Costs one directory listing and one lock for each sandbox
/// that lives.
pub(crate) fn reap(paths: &Paths, store: &Store) -> anyhow::Result<()> {
    crate::remove::sweep(store)?;
    if sandboxes(paths)?.iter().all(|id| is_alive(paths, id)) {
        return Ok(());
    }
    let _alone = lock::wait_for(&paths.reap_lock(), FlockArg::LockExclusive).context("lock for the clean-up")?;
    let (alive, dead): (BTreeSet<String>, BTreeSet<String>) =
        sandboxes(paths)?.into_iter().partition(|id| is_alive(paths, id));
    if dead.is_empty() {
        return Ok(());
    }
    let settings = Settings::load(&paths.config)?;
    let network = sbx_network::Network::open(&paths.root, &paths.run, &crate::network_options(&settings)?)?;
    let short: BTreeSet<&str> = alive.iter().map(|id| &id[..12.min(id.len())]).collect();
    let live = |id: &str| alive.contains(id) || short.contains(id);
    let parents = cgroup_parents(store, &dead);
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    sbx_process_mode::reap(&network, &paths.run, &Volumes::of(store), &parents, &live)?;
    for id in &dead {
        bury(paths, store, id)?;
    }
    for id in store.orphans()? {
        store.remove(&id)?;
    }
    Ok(())
}

/// Ids of the sandboxes that exist.
pub(crate) fn sandboxes(paths: &Paths) -> anyhow::Result<Vec<String>> {
    let directory = paths.sandboxes();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.context("list the sandboxes")?.file_name();
        ids.extend(id_of_lock(&name.to_string_lossy()).map(str::to_owned));
    }
    Ok(ids)
}

/// Whether a supervisor holds the sandbox's lock.
pub(crate) fn is_alive(paths: &Paths, id: &str) -> bool {
    // A lock that cannot be asked about is taken to be held: what lives must never be buried.
    match fs::File::open(paths.sandbox(id).lock()) {
        Ok(file) => lock::is_held(&file).unwrap_or(true),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Where the dead containers' control groups are.
fn cgroup_parents(store: &Store, dead: &BTreeSet<String>) -> BTreeSet<String> {
    let mut parents = BTreeSet::from([crate::CGROUP_PARENT.to_owned()]);
    for id in dead.iter().filter_map(|id| id.parse::<Id>().ok()) {
        if let Ok(spec) = store.spec(&id) {
            let parent = spec.host_config.cgroup_parent.trim_matches('/').to_owned();
            if !parent.is_empty() {
                parents.insert(parent);
            }
        }
    }
    parents
}

/// Writes down that the container is dead, or forgets it where it was to be removed, and takes its directory away.
fn bury(paths: &Paths, store: &Store, id: &str) -> anyhow::Result<()> {
    if let Ok(id) = id.parse::<Id>()
        && let Ok(state) = store.state(&id)
    {
        let spec = store.spec(&id)?;
        if state.status.is_active() {
            let exit = Exit { exit_code: KILLED, oom_killed: false, at: Timestamp::now() };
            store.apply(&id, Durability::Rebuildable, Event::Exited(exit))?;
        }
        if spec.host_config.auto_remove && state.status != Status::Created {
            forget(store, &spec, AnonymousVolumes::Remove)?.delete()?;
        }
    }
    let sandboxed = paths.sandbox(id);
    sandboxed.remove().with_context(|| format!("remove the files of sandbox {id}"))
}

/// Waits until a supervisor that is ending has ended; at most a few seconds.
pub(crate) fn wait_until_gone(paths: &Paths, id: &str) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while is_alive(paths, id) {
        if std::time::Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    true
}
