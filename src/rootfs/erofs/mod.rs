//! The tar of a layer in, one EROFS image file out.
//!
//! Content goes straight from the tar into blocks of the image; names, attributes and files smaller than a block are kept in memory and
//! written behind it at the end (EROFS allows metadata anywhere). Larger files are block-aligned to their last byte and never share a block, so
//! that a guest can map them with DAX. One pass, nothing seeks in the input, nothing is unpacked.

mod directory;
mod format;
mod image_writer;
mod layer;
mod metadata;
mod path;
mod reached;
mod sparse_content;
mod tree;
pub(crate) mod xattrs;

use std::fs::File;
use std::io::Read;

pub(crate) use self::format::{BLOCK, SUPER_END, image_bytes};
use crate::error::LayerError;
use sbx_archive::Reader;

/// How much a layer may cost. What exceeds it is refused; nothing is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the tar, and with them inodes and names (about 110 bytes of memory each, and the name). Default 4 million.
    pub entries: u64,
    /// Bytes of the tar stream, padding included. Default 1 TiB.
    pub tar_bytes: u64,
    /// Bytes of the image file, metadata included. Default 1 TiB.
    pub image_bytes: u64,
    /// Bytes of one entry's path and of one symbolic link's target. Default 4096, Linux's `PATH_MAX`.
    pub path_bytes: u64,
    /// Bytes of all names and link targets together. Default 512 MiB.
    pub name_bytes: u64,
    /// Bytes of one extended header (PAX or GNU long name). Default 1 MiB, as Go's reader and with it Docker.
    pub header_bytes: u64,
    /// Bytes of all distinct extended attributes together. Default 64 MiB.
    pub xattr_bytes: u64,
    /// Data segments of all sparse files together (24 bytes of memory each). Default 1 million.
    pub sparse_segments: u64,
    /// Bytes of small files that are kept in memory to be packed beside their inodes; once used up, small files take
    /// a block each. Default 64 MiB.
    pub packed_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            tar_bytes: 1 << 40,
            image_bytes: 1 << 40,
            path_bytes: 4096,
            name_bytes: 512 << 20,
            header_bytes: 1 << 20,
            xattr_bytes: 64 << 20,
            sparse_segments: 1_000_000,
            packed_bytes: 64 << 20,
        }
    }
}

impl Limits {
    fn of_the_tar(&self) -> sbx_archive::Limits {
        sbx_archive::Limits {
            bytes: self.tar_bytes,
            header_bytes: self.header_bytes,
            sparse_segments: self.sparse_segments,
        }
    }
}

/// What a conversion read and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Entries of the tar (headers that describe a file; extended headers are part of these).
    pub entries: u64,
    /// Bytes of the tar stream, to its very end.
    pub tar_bytes: u64,
    /// Bytes of the files' content as the tar holds it (holes do not count).
    pub data_bytes: u64,
    /// Bytes of the image file.
    pub image_bytes: u64,
    /// Inodes in the image.
    pub inodes: u64,
    /// Names and directories that hide something of lower layers.
    pub whiteouts: u64,
    /// Extended attributes left out: `trusted.overlay.*`, which belong to the overlay, name spaces that Linux lacks, and such as Linux does
    /// not allow on that type of file (`user.*` on a symbolic link).
    pub dropped_xattrs: u64,
}

/// Converts the (decompressed) tar of a layer into an EROFS image, in one pass and without touching any other file.
///
/// `image` must be empty and open for writing; it is written from its start, and a failure leaves it unusable. The stream is read to its
/// very end, past the tar's end mark, so that the caller can hash it. The same tar gives the same bytes.
pub fn write_layer(tar: &mut dyn Read, image: &File, limits: &Limits) -> Result<LayerStats, LayerError> {
    let mut reader = Reader::new(tar, limits.of_the_tar());
    let mut layer = layer::Layer::new(image, limits);
    while let Some(entry) = reader.next_entry()? {
        layer.apply(&entry, &mut reader)?;
    }
    reader.drain()?;
    layer.stats.tar_bytes = reader.offset();
    layer.finish()
}
