//! The container's root: the image's layers, mounted once for everybody, under its own writable layer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sbx_rootfs::{LayerId, LayerMount, OverlayOptions, UpperFate, WritableLayer, overlay};
use sbx_sandbox::spec::SandboxSpec;

use crate::error::Error;
use crate::sandbox::Setting;

/// A root that is ready to be attached, and the layers it stands on.
#[derive(Debug)]
pub(crate) struct RootFs {
    overlay: OwnedFd,
    _layers: Vec<LayerMount>,
}

impl RootFs {
    pub(crate) fn make(
        spec: &SandboxSpec,
        setting: &Setting,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let layers = mount_layers(&spec.image.layers, setting)?;
        let directory = &setting.files.directory;
        let writable = match WritableLayer::open(directory) {
            Ok(writable) => writable,
            Err(_) => WritableLayer::create(directory, &layers)?,
        };
        // What goes away with the container need not reach the disk when it is unmounted.
        let upper = if spec.host_config.auto_remove { UpperFate::Discarded } else { UpperFate::Kept };
        let overlay =
            overlay(&layers, Some(&writable), &OverlayOptions { user_namespace, upper, ..OverlayOptions::default() })?;
        Ok(Self { overlay, _layers: layers })
    }

    /// The mount, for the container.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Error> {
        self.overlay.try_clone().map_err(Error::io("duplicate the root's mount"))
    }

    /// The mount, to look into.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.overlay.as_fd()
    }
}

/// Mounts layers, lowest first, or joins those who use them.
pub(crate) fn mount_layers(diff_ids: &[String], setting: &Setting) -> Result<Vec<LayerMount>, Error> {
    let mut layers = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = LayerId::parse(diff_id)?;
        let image = setting.layers.path(&id);
        layers.push(setting.mounts.acquire(&id, &image)?);
    }
    Ok(layers)
}
