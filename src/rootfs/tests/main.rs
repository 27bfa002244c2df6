//! The crate's behaviour against the kernel, GNU tar and erofs-utils. Needs root; every test has a mount namespace of its own.

mod archive;
mod compare;
mod disks;
mod ext4;
mod scratch;

mod hostile;
mod large_files;
mod layers;
mod mounts;
mod overlays;
mod random_trees;
mod round_trip;
mod spread;
mod stores;
mod volumes;
mod writable_layers;
