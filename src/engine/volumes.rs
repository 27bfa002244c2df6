//! Named volumes.

use sbx_sandbox::spec::{MountKind, SandboxSpec};
use sbx_sandbox::timestamp::Timestamp;
use sbx_sandbox::volumes::{Prune, Volume, VolumeError, VolumeRequest, Volumes, of_mount, users};

use crate::{Engine, Error, ErrorKind, Result};

impl From<VolumeError> for Error {
    fn from(error: VolumeError) -> Self {
        let kind = match &error {
            VolumeError::NotFound(_) => ErrorKind::NotFound,
            VolumeError::InUse { .. } | VolumeError::OtherOptions(_) => ErrorKind::Conflict,
            VolumeError::Store(_) => ErrorKind::Other,
            _ => ErrorKind::Invalid,
        };
        Self::of(kind, error)
    }
}

impl Engine {
    fn volumes(&self) -> Volumes {
        Volumes::of(&self.store)
    }

    /// Makes the volumes of a new container, as Docker does with `create`.
    pub(crate) fn make_volumes(&self, spec: &SandboxSpec) -> Result<()> {
        for mount in spec.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            self.volumes().ensure(of_mount(mount, spec.created))?;
        }
        Ok(())
    }

    /// Makes a volume, or finds the one of that name.
    pub fn create_volume(&self, request: VolumeRequest) -> Result<Volume> {
        Ok(self.volumes().create(request, Timestamp::now())?)
    }

    /// Every volume, by name.
    pub fn list_volumes(&self) -> Result<Vec<Volume>> {
        Ok(self.volumes().list()?)
    }

    /// The volume of a name.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        Ok(self.volumes().get(name)?)
    }

    /// Where the content of a volume is.
    #[must_use]
    pub fn volume_data(&self, volume: &Volume) -> std::path::PathBuf {
        self.volumes().data(&volume.name)
    }

    /// Whether a container names the volume.
    pub fn volume_in_use(&self, volume: &Volume) -> Result<bool> {
        Ok(!users(&self.store, &volume.name)?.is_empty())
    }

    /// Removes a volume that no container names.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        Ok(self.volumes().remove(&self.store, name)?)
    }

    /// Removes volumes that no container names and that `matches`.
    pub fn prune_volumes(&self, which: Prune, matches: impl Fn(&Volume) -> bool) -> Result<Vec<Volume>> {
        Ok(self.volumes().prune(&self.store, which, matches)?)
    }
}
