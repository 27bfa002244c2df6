//! The life of a sandbox. The only crate that knows both modes.
//!
//! [`Engine`] is what the command line (and later the API) calls; it acts directly on the store and the host, or asks a
//! container's supervisor ([`supervise`], a process of its own). There is no daemon.
//!
//! ```text
//! create ─▶ store ─▶ start ─▶ spawn ══▶ supervise ─▶ mode ─▶ container
//!                      │                   ▲
//!                      └──── client ───────┘  attach, exec, stop, kill, pause, top, stats, wait
//! ```

mod client;
pub mod copy;
mod create;
mod doctor;
mod error;
mod facts;
mod failure;
mod images;
mod info;
mod inspect;
mod isolation;
mod joined;
mod lifecycle;
mod list;
mod lock;
pub mod logs;
mod mode;
mod paths;
mod reap;
mod remove;
mod run;
mod spawn;
mod standby;
mod supervise;
mod sys;
mod volumes;

use sbx_network::NetworkOptions;
use sbx_sandbox::settings::Settings;
use sbx_sandbox::store::Store;

pub use client::{Client, ClientError, Session};
pub use doctor::{Check, Report, Verdict, doctor};
pub use error::{Error, ErrorKind, Result};
pub use failure::exit_code;
pub use images::Sink;
pub use info::Info;
pub use inspect::STORAGE_DRIVER;
pub use lifecycle::Force;
pub use list::{Listed, PublishedPort};
pub use paths::Paths;
pub use remove::AnonymousVolumes;
pub use run::Run;
pub use sbx_protocol::StreamKind;
pub use standby::{Duty, Standby};
pub use supervise::main as supervise;

/// The parent of every container's control groups, below the top of each hierarchy.
pub(crate) const CGROUP_PARENT: &str = "sbx";

/// Everything that sbx can do on this host.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) paths: Paths,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
}

impl Engine {
    /// Opens the state below `paths`, and clears what killed processes left behind.
    pub fn open(paths: Paths) -> Result<Self> {
        let engine = Self::open_as_it_is(paths)?;
        reap::reap(&engine.paths, &engine.store)?;
        Ok(engine)
    }

    fn open_as_it_is(paths: Paths) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::new(
                ErrorKind::Other,
                "permission denied: sbx needs root to make containers; run it with sudo",
            ));
        }
        let mut settings = Settings::load(&paths.config).map_err(|error| Error::of(ErrorKind::Invalid, error))?;
        // What the command line says holds.
        settings.paths.root.clone_from(&paths.root);
        settings.paths.run.clone_from(&paths.run);
        paths.prepare().map_err(|error| {
            let message = format!("cannot use {} and {}: {error}", paths.root.display(), paths.run.display());
            Error::new(ErrorKind::Other, message)
        })?;
        let store = Store::open(&paths.root)?;
        Ok(Self { paths, settings, store })
    }

    /// Where the state is that survives a reboot.
    #[must_use]
    pub fn root(&self) -> &std::path::Path {
        &self.paths.root
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// The bridge network that the settings ask for.
pub(crate) fn network_options(settings: &Settings) -> anyhow::Result<NetworkOptions> {
    let wanted = &settings.network;
    Ok(NetworkOptions { subnet: wanted.subnet, subnet6: wanted.subnet6, mtu: wanted.mtu, ..NetworkOptions::default() })
}
