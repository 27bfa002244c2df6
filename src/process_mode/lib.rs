//! Process mode: a plan and the host's kernel become a running sandbox.
//!
//! ```text
//! Sandbox::new ── launch ──▶ running ── end ──▶ ended ── launch ──▶ …  (restart)
//!                                                 └────── clean_up ──▶ nothing is left
//! ```
//!
//! A [`Sandbox`] lives in the container's supervisor, which has one thread. Everything that is made on the host carries
//! the container's id in its name and vanishes with the supervisor or is found by [`reap`].

mod devices;
mod error;
mod etc;
mod root;
mod sandbox;

pub use error::Error;
pub use sandbox::{Joined, Sandbox, Setting};
pub use sbx_network::NetworkFacts;

use std::path::Path;

/// Removes what killed supervisors left on the host: control groups, links, leases, rules and mounts of every
/// container that `live` does not know.
pub fn reap(
    network: &sbx_network::Network,
    run: &Path,
    volumes: &sbx_sandbox::volumes::Volumes,
    parents: &[&str],
    live: &dyn Fn(&str) -> bool,
) -> Result<(), Error> {
    let hierarchies = sbx_container::cgroup::Hierarchies::detect()?;
    for parent in parents {
        sbx_container::cgroup::reap(&hierarchies, parent, live)?;
    }
    network.reap(live)?;
    let mounts = sbx_rootfs::LayerMounts::open(run)?;
    // Images before the layers that they stand on.
    sbx_rootfs::volumes::reap(&mounts, volumes)?;
    mounts.reap()?;
    Ok(())
}
