//! References, registries and the content store.
//!
//! - [`Reference`], [`Digest`], [`Platform`], [`ImageConfig`]: the nouns.
//! - [`Store`]: content by digest, names, ids; list, tag, remove, verify, collect garbage.
//! - [`pull`]: a registry's image into the store, layers handed to a [`LayerSink`] while they arrive.
//! - [`save`], [`load`], [`import`]: archives.
//! - [`login`], [`logout`]: credentials in Docker's client configuration.
//!
//! Every byte is checked against its digest before it can be found by it. Everything from a registry or an archive is
//! untrusted: sizes are bounded before memory is taken, names inside archives are never paths.

mod archive;
mod change;
mod config;
mod conversion;
mod decompress;
mod digest;
mod draft;
mod error;
mod import;
mod layer;
mod login;
mod manifest;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod sink;
mod store;
mod timestamp;

pub use archive::{LoadOptions, Loaded, load, save};
pub use change::apply_changes;
pub use config::{History, ImageConfig, MAX_CONFIG_SIZE, MAX_LAYERS, RootFs};
pub use conversion::ensure_layers;
pub use digest::Digest;
pub use draft::Draft;
pub use error::{Error, ErrorKind, Result, SinkError};
pub use import::{ImportRequest, import};
pub use login::{LoginRequest, LoginResult, Stored, login, logout};
pub use manifest::{Descriptor, Index, Manifest, media_type};
pub use platform::Platform;
pub use progress::{Event, LayerState, Progress, Silent};
pub use pull::{Limits, PullRequest, PulledImage, pull};
pub use reference::{DEFAULT_DOMAIN, Reference};
pub use registry::Registries;
pub use sink::{LayerSink, PendingLayer};
pub use store::{
    Damage, HistoryEntry, Image, ImageSummary, ImageUse, Layer, NewImage, Removal, RemoveMode, Store, Swept,
};
pub use timestamp::{parse_rfc3339, to_rfc3339};
