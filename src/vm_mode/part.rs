//! A device of a container, as words and descriptors: what a machine that starts is made of, and what is sent to one that runs.
//!
//! Whoever describes a part has the privileges to open what it needs; whoever makes the device of it has none.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use sbx_rootfs::disk::{PartitionTable, partitions};
use sbx_vmm::virtio::Device;
use sbx_vmm::virtio::blk::{Access, Blk, BlkConfig, Extent, Limits};
use sbx_vmm::virtio::fs::{self, Caching, Fs, Root};
use sbx_vmm::virtio::net::{self, Net};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::machine::Parts;
use crate::share_root;
use crate::shares::Share;

/// Partitions of the layers begin at multiples of it.
const LAYER_ALIGNMENT: u64 = 4096;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    /// The image's layers, each a partition of one disk; with a descriptor for each.
    Layers {
        /// Bytes of each.
        lengths: Vec<u64>,
    },
    /// The disk that the container writes to.
    Writable,
    /// A network card; with its tap.
    Card {
        /// Its hardware address.
        address: [u8; 6],
        /// Bytes.
        mtu: u16,
    },
    /// A directory or file of the host; with a descriptor of it.
    Share {
        /// Name by which the guest mounts it.
        tag: String,
        /// Name of a file; `None` for a directory.
        file: Option<CString>,
        /// Nothing can be changed.
        read_only: bool,
        /// The container's users are others than the machine's.
        mappable: bool,
    },
}

/// A part with its descriptors.
pub(crate) type Described = (Part, Vec<OwnedFd>);

/// Describes the devices of one container, in the order of their addresses: layers, writable disk, card, shares.
pub(crate) fn describe(parts: Parts) -> Result<Vec<Described>, Error> {
    let layers = parts.layers.layers().iter().map(|layer| layer.file().try_clone().map(OwnedFd::from));
    let layers = layers.collect::<Result<_, _>>().map_err(Error::io("duplicate a layer's file"))?;
    let mut described = vec![
        (Part::Layers { lengths: parts.layers.lengths() }, layers),
        (Part::Writable, vec![OwnedFd::from(parts.writable)]),
    ];
    if let Some(tap) = parts.tap {
        described.push((Part::Card { address: tap.card, mtu: tap.mtu }, vec![tap.fd]));
    }
    for share in &parts.shares {
        let (root, file) = share_root::open(share)?;
        let Share { tag, read_only, mappable, .. } = share.clone();
        described.push((Part::Share { tag, file, read_only, mappable }, vec![root]));
    }
    Ok(described)
}

impl Part {
    /// As it goes over a control socket.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        postcard::to_stdvec(self).map_err(|error| Error::Unsupported(format!("describe a device: {error}")))
    }

    /// Makes a device of what [`Self::to_bytes`] has written; `descriptors` is the process's own `/proc/self/fd`.
    pub(crate) fn make_from(
        bytes: &[u8],
        files: Vec<OwnedFd>,
        descriptors: BorrowedFd<'_>,
    ) -> Result<Box<dyn Device>, Error> {
        let part: Self = postcard::from_bytes(bytes)
            .map_err(|error| Error::Unsupported(format!("the description of a device: {error}")))?;
        part.make(files, descriptors)
    }

    /// Makes the device.
    pub(crate) fn make(self, mut files: Vec<OwnedFd>, descriptors: BorrowedFd<'_>) -> Result<Box<dyn Device>, Error> {
        let missing = || Error::Unsupported(String::from("a device without its descriptor"));
        if let Self::Layers { lengths } = &self {
            return Ok(Box::new(Blk::new(disk("layers", Access::ReadOnly), layer_extents(lengths, files)?)?));
        }
        let file = files.pop().ok_or_else(missing)?;
        Ok(match self {
            Self::Layers { .. } => return Err(missing()),
            Self::Writable => {
                let extent = Extent::whole(file.into()).map_err(Error::io("measure the writable layer"))?;
                Box::new(Blk::new(disk("writable", Access::ReadWrite), vec![extent])?)
            }
            Self::Card { address, mtu } => Box::new(Net::new(net::Config { mac: address, mtu }, file)?),
            Self::Share { tag, file: name, read_only, mappable } => {
                let root = match name {
                    Some(name) => Root::File { file, name },
                    None => Root::Directory(file),
                };
                let proc = descriptors.try_clone_to_owned().map_err(Error::io("duplicate a descriptor"))?;
                let access = if read_only { fs::Access::ReadOnly } else { fs::Access::ReadWrite };
                // What the host changes is seen at once, as by a process.
                let caching = Caching::default();
                let share = fs::Share { tag, root, proc, access, mappable, caching, limits: fs::Limits::default() };
                Box::new(Fs::new(share).map_err(|error| Error::Unsupported(error.to_string()))?)
            }
        })
    }
}

fn disk(name: &str, access: Access) -> BlkConfig {
    BlkConfig { name: name.into(), serial: name.into(), access, block_size: 512, limits: Limits::default() }
}

/// The disk of the layers: a partition table, the files, and room between them.
fn layer_extents(lengths: &[u64], files: Vec<OwnedFd>) -> Result<Vec<Extent>, Error> {
    if lengths.len() != files.len() {
        return Err(Error::Unsupported(format!("{} layers with {} descriptors", lengths.len(), files.len())));
    }
    let table: PartitionTable =
        partitions(lengths, LAYER_ALIGNMENT).map_err(|error| Error::Unsupported(error.to_string()))?;
    let mut at = table.head.len() as u64;
    let mut extents = vec![Extent::Bytes(table.head.into())];
    for (place, file) in table.extents.iter().zip(files) {
        if place.offset > at {
            extents.push(Extent::Zeroes(place.offset - at));
        }
        extents.push(Extent::File { file: Arc::new(File::from(file)), offset: 0, length: place.length });
        at = place.offset + place.length;
    }
    if table.tail_offset > at {
        extents.push(Extent::Zeroes(table.tail_offset - at));
    }
    extents.push(Extent::Bytes(table.tail.into()));
    Ok(extents)
}
