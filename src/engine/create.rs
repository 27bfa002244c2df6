//! Creating a container: request, image and machine become a specification in the store.

use std::collections::BTreeSet;

use sbx_image::Image;
use sbx_sandbox::config::CreateRequest;
use sbx_sandbox::facts::ImageFacts;
use sbx_sandbox::id::Id;
use sbx_sandbox::names;
use sbx_sandbox::resolve::{Context, Identity, bind_sources, resolve};
use sbx_sandbox::spec::{MountKind, MountPoint, SandboxSpec};
use sbx_sandbox::store::Durability;
use sbx_sandbox::timestamp::Timestamp;

use crate::{Engine, Error, ErrorKind, Result};

impl Engine {
    /// Creates the container `id` from an image that is in the store. Gives warnings of what the user may not expect.
    pub fn create(
        &self,
        id: &Id,
        request: CreateRequest,
        image: &Image,
        durability: Durability,
    ) -> Result<Vec<String>> {
        let (name, others) = names_for(id, &request.name)?;
        let identity = Identity { id: id.clone(), name, created: Timestamp::now() };
        let (spec, warnings) = self.decide(identity, request, image)?;
        self.make_volumes(&spec)?;
        self.store.create_as(spec, others, durability)?;
        Ok(warnings)
    }

    /// Decides the specification.
    fn decide(
        &self,
        identity: Identity,
        mut request: CreateRequest,
        image: &Image,
    ) -> Result<(SandboxSpec, Vec<String>)> {
        self.name_other_containers(&mut request)?;
        let facts = image_facts(image);
        let other = crate::joined::beside(&self.store, &request.host_config)?;
        let beside = other.as_ref().map(|other| (other.isolation.isolation, other.name.as_str()));
        let (resolved, obstacle) = self.isolation(&request.host_config.isolation, beside)?;
        let machine = self.machine_of(resolved.isolation, &request.host_config, obstacle)?;
        let inherited = self.inherited_mounts(&request)?;
        let absent: BTreeSet<String> =
            bind_sources(&request).into_iter().filter(|source| !std::path::Path::new(source).exists()).collect();
        let environment = std::env::var("SBX_ISOLATION").unwrap_or_default();
        let context = Context {
            image: &facts,
            settings: &self.settings,
            machine: &machine,
            identity,
            isolation_environment: &environment,
            beside,
            inherited,
            absent_sources: absent,
        };
        let (mut spec, warnings) = resolve(request, context)?;
        self.share_hostname(&mut spec)?;
        self.find_mounted_images(&mut spec)?;
        Ok((spec, warnings.into_iter().map(|warning| warning.0).collect()))
    }

    /// Who shares a network shares the host name, as in Docker.
    fn share_hostname(&self, spec: &mut SandboxSpec) -> Result<()> {
        if let Some(donor) = spec.host_config.network_mode.strip_prefix("container:") {
            let donor = self.store.spec(&self.store.find(donor)?)?.config;
            spec.config.hostname = donor.hostname;
            spec.config.domainname = donor.domainname;
        }
        Ok(())
    }

    /// Image mounts stay with the images that they name now.
    fn find_mounted_images(&self, spec: &mut SandboxSpec) -> Result<()> {
        let private_users = spec.host_config.userns_mode == "private";
        for mount in spec.mounts.iter_mut().filter(|mount| mount.kind == MountKind::Image) {
            if private_users {
                let message = format!(
                    "invalid mount {}: an image cannot be mounted with --userns=private, whose users own none of its \
                     files; use --userns=host, or copy the files to a volume",
                    mount.destination
                );
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            if mount.options.image.is_empty() {
                let facts = image_facts(&self.image(&mount.name)?);
                (mount.options.image, mount.options.layers) = (facts.id, facts.layers);
            }
        }
        Ok(())
    }

    /// `container:NAME` becomes `container:ID`, so that a later rename changes nothing.
    fn name_other_containers(&self, request: &mut CreateRequest) -> Result<()> {
        let host = &mut request.host_config;
        for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
            let Some(reference) = mode.strip_prefix("container:") else { continue };
            if reference.is_empty() {
                continue;
            }
            *mode = format!("container:{}", self.store.find(reference)?);
        }
        if let Some(id) = host.ipc_mode.strip_prefix("container:") {
            let id = self.store.find(id)?;
            let donor = self.store.spec(&id)?.host_config.ipc_mode;
            if donor != "shareable" && donor != "host" {
                let message = format!(
                    "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
                     container)"
                );
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
        Ok(())
    }

    /// Mounts of the containers of `--volumes-from`.
    fn inherited_mounts(&self, request: &CreateRequest) -> Result<Vec<(String, Vec<MountPoint>)>> {
        let mut inherited = Vec::new();
        for entry in &request.host_config.volumes_from {
            let (name, _mode) = entry.split_once(':').unwrap_or((entry, ""));
            let id = self.store.find(name)?;
            inherited.push((entry.clone(), self.store.spec(&id)?.mounts));
        }
        Ok(inherited)
    }
}

/// The name that was asked for, or one made up, and others that will do as well where somebody has that.
fn names_for(id: &Id, asked: &str) -> Result<(String, Vec<String>)> {
    if asked.is_empty() {
        let mut candidates = names::candidates(id);
        let first = candidates.next().unwrap_or_default();
        return Ok((first, candidates.collect()));
    }
    let name = asked.strip_prefix('/').unwrap_or(asked);
    names::validate(name).map_err(|error| Error::of(ErrorKind::Invalid, error))?;
    Ok((name.to_owned(), Vec::new()))
}

fn image_facts(image: &Image) -> ImageFacts {
    ImageFacts {
        id: image.id.to_string(),
        digest: image.manifest.digest.to_string(),
        layers: image.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
        platform: image.config.platform().to_string(),
        config: image.config.config.clone(),
    }
}
