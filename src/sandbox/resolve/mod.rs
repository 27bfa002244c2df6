//! From what was asked to what holds: one specification without open questions, or one error in Docker's words.
//!
//! Pure: nothing is looked up here, everything comes in the [`Context`]. Every field that a user can set is taken
//! over, translated or refused by name; none is dropped. The order of the steps is Docker's, so that of two mistakes
//! the same one is reported (moby `daemon/create.go`, `daemon/container.go`, `daemon/daemon_unix.go`).

mod blocks;
mod image;
mod logging;
mod machine;
mod mount_text;
mod mounts;
mod namespaces;
mod network;
mod portable;
mod resources;
mod security;
mod tmpfs;
mod unsupported;

use std::collections::BTreeSet;

use crate::config::CreateRequest;
use crate::facts::{ImageFacts, MachineFacts};
use crate::id::Id;
use crate::isolation;
use crate::log_attributes::log_attributes;
use crate::settings::Settings;
use crate::spec::{ImageRecord, MountPoint, SCHEMA, SandboxSpec};
use crate::timestamp::Timestamp;

pub use mounts::bind_sources;

/// What a container is, besides what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: Id,
    /// Its name, without a slash: the one asked for, or one made up.
    pub name: String,
    /// Now.
    pub created: Timestamp,
}

/// Everything besides the request that a decision depends on.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The image that the request names.
    pub image: &'a ImageFacts,
    /// The configuration file.
    pub settings: &'a Settings,
    /// The kernel and hardware that will run it.
    pub machine: &'a MachineFacts,
    /// Id, name and time.
    pub identity: Identity,
    /// `SBX_ISOLATION`; empty when it is not set.
    pub isolation_environment: &'a str,
    /// How a container whose namespaces are joined is kept apart, and its name.
    pub beside: Option<(isolation::Mode, &'a str)>,
    /// The mounts of the containers of `--volumes-from`, each with the entry that named it, in their order.
    pub inherited: Vec<(String, Vec<MountPoint>)>,
    /// Which of [`bind_sources`] do not exist.
    pub absent_sources: BTreeSet<String>,
}

/// Something that holds although the user may not expect it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

/// A request that cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// The field of the Engine API, `HostConfig.Memory`.
    pub field: &'static str,
    /// In Docker's words where Docker refuses it too.
    pub message: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

/// What the steps work on.
struct Resolver<'a> {
    request: CreateRequest,
    context: Context<'a>,
    warnings: Vec<Warning>,
}

impl Resolver<'_> {
    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(Warning(text.into()));
    }
}

/// Decides a request.
///
/// The caller has replaced names of other containers by their ids in `NetworkMode`, `IpcMode` and `PidMode`
/// (`container:ID`), so that a later rename changes nothing.
pub fn resolve(request: CreateRequest, context: Context<'_>) -> Result<(SandboxSpec, Vec<Warning>), Invalid> {
    let mut resolver = Resolver { request, context, warnings: Vec::new() };
    unsupported::check(&resolver.request)?;
    let isolation = isolation(&mut resolver)?;
    machine::check(&resolver.request, isolation.isolation)?;
    namespaces::conflicts(&resolver.request)?;
    portable::check(&resolver.request.config)?;
    logging::restart(&mut resolver.request.host_config)?;
    network::check(&resolver)?;
    security::check_capabilities(&resolver)?;
    resources::resolve(&mut resolver)?;
    namespaces::resolve(&mut resolver)?;
    image::merge(&mut resolver)?;
    portable::check(&resolver.request.config)?;
    logging::resolve(&mut resolver)?;
    portable::defaults(&mut resolver);
    let security = security::resolve(&mut resolver)?;
    namespaces::sysctls(&resolver.request.host_config)?;
    let mounts = mounts::resolve(&mut resolver)?;
    let Resolver { request, context, warnings } = resolver;
    let spec = SandboxSpec {
        schema: SCHEMA,
        id: context.identity.id,
        name: context.identity.name,
        created: context.identity.created,
        isolation,
        image: ImageRecord {
            reference: request.config.image.clone(),
            id: context.image.id.clone(),
            digest: context.image.digest.clone(),
            layers: context.image.layers.clone(),
            platform: context.image.platform.clone(),
        },
        config: request.config,
        host_config: request.host_config,
        networking: request.networking,
        mounts,
        security,
        only_kept: false,
    };
    machine::check_decided(&spec)?;
    log_attributes(&spec).map_err(|message| Invalid::new("HostConfig.LogConfig", message))?;
    Ok((spec, warnings))
}

fn isolation(resolver: &mut Resolver<'_>) -> Result<isolation::Resolved, Invalid> {
    let settings = resolver.context.settings.isolation;
    let sources = isolation::Sources {
        flag: &resolver.request.host_config.isolation,
        environment: resolver.context.isolation_environment,
        settings: settings.unwrap_or_default(),
        settings_given: settings.is_some(),
        beside: resolver.context.beside,
    };
    let obstacle = resolver.context.machine.vm_obstacle.as_deref();
    let resolved = isolation::resolve(sources, obstacle)
        .map_err(|error| Invalid::new("HostConfig.Isolation", error.to_string()))?;
    resolver.request.host_config.isolation = resolved.isolation.to_string();
    Ok(resolved)
}

#[cfg(test)]
mod tests;
