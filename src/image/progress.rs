//! What happens during a pull, load or import, as events; how it looks is the caller's business.

use crate::digest::Digest;

/// A receiver of events. Called from several threads at once and often: it must be quick.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The reference was resolved: `3.20: Pulling from library/alpine`.
    Pulling {
        /// Tag or digest.
        tag: &'a str,
        /// Repository without its domain.
        repository: &'a str,
    },
    /// A mirror could not serve the image; the next place is tried.
    MirrorFailed {
        /// The mirror.
        host: &'a str,
        /// Why.
        problem: &'a str,
    },
    /// Something happened to one layer.
    Layer {
        /// The blob's digest; Docker shows its first 12 digits.
        blob: Digest,
        /// What happened.
        state: LayerState<'a>,
    },
}

/// The states of a layer, in Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState<'a> {
    /// `Pulling fs layer`: known, not started.
    PullingFsLayer,
    /// `Waiting`: all download slots are taken, or another process downloads it.
    Waiting,
    /// `Downloading`: bytes so far, including those of an earlier attempt.
    Downloading {
        /// Bytes on disk.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// `Retrying in n seconds`.
    Retrying {
        /// Until the next attempt.
        seconds: u64,
        /// Why the last one failed.
        problem: &'a str,
    },
    /// `Verifying Checksum`.
    Verifying,
    /// `Download complete`.
    DownloadComplete,
    /// `Extracting`: the layer is being converted; bytes of the blob read so far.
    Extracting {
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// `Pull complete`.
    PullComplete,
    /// `Already exists`.
    AlreadyExists,
}

/// A receiver that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}
