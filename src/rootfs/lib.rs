//! Image layers become something mountable; writable layers; volumes' first content.
//!
//! A layer goes through this crate in one direction:
//!
//! ```text
//! tar stream ──erofs::write_layer──▶ image file ──LayerStore──▶ layers/HEX.erofs
//!                                                                    │ LayerMounts::acquire
//! WritableLayer ──┐                                                  ▼
//!                 ├──overlay()──▶ detached mount ◀──────────── LayerMount (one per layer and host)
//! ```
//!
//! Nothing of a layer is ever unpacked into the host's file system: names, links and devices of a hostile tar only
//! ever become bytes in an image file. The host's kernel then mounts that file; a guest gets the same file as a disk ([`disk::LayerFiles`]), and
//! instead of a [`WritableLayer`] a disk of its own ([`disk::WritableDisk`]) with a file system that [`ext4`] makes.

mod checksum;
pub mod disk;
pub mod erofs;
mod error;
pub mod ext4;
mod layer_id;
mod loop_device;
mod mounts;
mod overlay;
mod shared_mounts;
mod spread;
mod store;
mod sys;
mod volume;
mod volume_mount;
pub mod volumes;
mod walk;
mod writable;

pub use erofs::{LayerStats, Limits, write_layer};
pub use error::{LayerError, RootfsError};
pub use layer_id::LayerId;
pub use mounts::{Backing, LayerMount, LayerMounts};
pub use overlay::{OverlayMethod, OverlayOptions, UpperFate, clone_mount, idmap, overlay};
pub use shared_mounts::Released;
pub use spread::spread;
pub use store::{LayerStore, LayerWriter};
pub use volume::{CopyUp, copy_up};
pub use writable::WritableLayer;
