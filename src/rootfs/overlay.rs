//! A container's root on the host: the mounted layers and its writable layer, stacked by `container` as everywhere.

use std::os::fd::{BorrowedFd, OwnedFd};

use sbx_container::overlay as stacked;
pub use sbx_container::overlay::{OverlayMethod, OverlayOptions, UpperFate};

use crate::error::RootfsError;
use crate::mounts::LayerMount;
use crate::writable::WritableLayer;

/// Stacks the layers, lowest first (the order of `diff_ids` in the image's config), and the writable layer on top.
///
/// The result is a detached mount, see [`stacked::overlay`]. The layers' [`LayerMount`]s must be kept as long as the
/// container runs, only so that others can share them.
pub fn overlay(
    layers: &[LayerMount],
    writable: Option<&WritableLayer>,
    options: &OverlayOptions<'_>,
) -> Result<OwnedFd, RootfsError> {
    let roots: Vec<BorrowedFd<'_>> = layers.iter().map(LayerMount::root).collect();
    Ok(stacked::overlay(&roots, writable.map(WritableLayer::dir), options)?)
}

/// A detached mount of the directory `dir` (`open_tree(2)` with `OPEN_TREE_CLONE`).
pub fn clone_mount(dir: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
    Ok(stacked::clone_mount(dir)?)
}

/// Makes a detached mount show its files' owners through a user namespace, see [`stacked::idmap`].
pub fn idmap(mount: OwnedFd, user_namespace: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
    Ok(stacked::idmap(mount, user_namespace)?)
}
