//! What a virtual machine gets as disks: the image's layers as they are in the store, and a writable disk of its own.
//!
//! ```text
//! LayerStore ──LayerFiles::open──▶ open files ──partitions()──▶ one read-only disk (or each file a device of its own)
//! container's directory ──WritableDisk──▶ locked sparse file ──▶ one writable disk
//! ```
//!
//! The host mounts none of it: the layers' files serve process mode too, by mounts of their own ([`crate::LayerMounts`]), and what a guest
//! has written no kernel but the guest's ever interprets.

mod layer_files;
mod partitions;
mod writable;

pub use layer_files::{LayerFile, LayerFiles};
pub use partitions::{Extent, MOST_PARTITIONS, PartitionTable, SECTOR, TooManyPartitions, partitions};
pub use writable::WritableDisk;
