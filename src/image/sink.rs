//! The door to whoever turns a layer's tar into something mountable.
//!
//! This crate knows digests and tars, not file systems. A conversion runs while the layer is still being downloaded, so
//! its result must stay invisible until `commit`, which is called only after the blob's digest and size *and* the digest
//! of the tar have been found right.

use std::io::Read;

use crate::digest::Digest;
use crate::error::SinkError;

/// Converts layers; shared by several threads.
pub trait LayerSink: Sync {
    /// Whether the converted layer is already there and need not be made.
    fn has(&self, diff_id: &Digest) -> bool;

    /// Reads the whole uncompressed tar and writes the converted layer to a place where nobody finds it.
    ///
    /// The bytes are *not yet verified*. A read error means that the layer is bad or that the pull was given up; the
    /// error to return is then any, the caller reports the reason. Reading may stop at the end of the archive.
    ///
    /// # Errors
    /// Whatever makes the layer impossible to convert, in words for the user.
    fn convert<'a>(&'a self, diff_id: &Digest, tar: &mut dyn Read) -> Result<Box<dyn PendingLayer + 'a>, SinkError>;
}

/// A converted layer that nobody sees yet. Dropping it discards it.
pub trait PendingLayer: Send {
    /// Makes the layer visible under its diff id, atomically. Making one that exists already is no error.
    ///
    /// # Errors
    /// When it cannot be moved to its place.
    fn commit(self: Box<Self>) -> Result<(), SinkError>;
}
