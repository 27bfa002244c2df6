//! Converting layers whose blobs are in the store already: for `load`, `import`, and images whose converted layers are
//! gone.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::{self, Expected};
use crate::manifest::Descriptor;
use crate::progress::{Event, LayerState, Progress};
use crate::pull::Limits;
use crate::sink::LayerSink;
use crate::store::{Image, Layer, Store};

/// Layers converted at the same time.
const PARALLEL: usize = 3;

/// Where layers come from and where they go.
#[derive(Clone, Copy)]
pub(crate) struct Conversion<'a> {
    pub(crate) store: &'a Store,
    pub(crate) sink: &'a dyn LayerSink,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) limits: Limits,
}

/// Converts those layers of an image that the sink does not have. Quick when it has all.
///
/// # Errors
/// [`Error::DamagedBlob`] when a blob is missing or altered, else why a layer cannot be converted.
pub fn ensure_layers(
    store: &Store,
    image: &Image,
    limits: Limits,
    sink: &dyn LayerSink,
    progress: &dyn Progress,
) -> Result<()> {
    let missing = image.layers.iter().filter(|layer| !sink.has(&layer.diff_id));
    let missing: BTreeMap<Digest, (&Descriptor, Digest)> =
        missing.map(|layer| (layer.blob.digest, (&layer.blob, layer.diff_id))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let conversion = Conversion { store, sink, progress, limits };
    conversion.all(missing.into_values().collect(), &BTreeMap::new()).map(|_| ())
}

impl Conversion<'_> {
    /// Converts one layer.
    pub(crate) fn one(&self, blob: &Descriptor, diff_id: Digest) -> Result<Layer> {
        let source = self.store.open_blob(blob)?;
        let tell = |state| self.progress.event(Event::Layer { blob: blob.digest, state });
        let consumed = |n: u64| tell(LayerState::Extracting { done: n.min(blob.size), total: blob.size });
        let expected = Expected { blob: blob.digest, diff_id, limits: self.limits };
        let size = match layer::convert(&expected, source, self.sink, &consumed) {
            Ok(size) => size,
            Err(error) => match self.store.discard_if_damaged(&blob.digest)? {
                Some(problem) => return Err(Error::DamagedBlob { digest: blob.digest, problem }),
                None => return Err(error),
            },
        };
        tell(LayerState::PullComplete);
        Ok(Layer { blob: Descriptor::new(&blob.media_type, blob.digest, blob.size), diff_id, size })
    }

    /// Converts several layers, a few at a time; those that are `known` and converted are left alone.
    pub(crate) fn all(
        &self,
        wanted: Vec<(&Descriptor, Digest)>,
        known: &BTreeMap<Digest, Layer>,
    ) -> Result<BTreeMap<Digest, Layer>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Ok(BTreeMap::new()));
        let worker = || {
            while let Some((blob, diff_id)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                let layer = match known.get(&blob.digest) {
                    Some(layer) if layer.diff_id == *diff_id && self.sink.has(diff_id) => {
                        let state = LayerState::AlreadyExists;
                        self.progress.event(Event::Layer { blob: blob.digest, state });
                        Ok(layer.clone())
                    }
                    _ => self.one(blob, *diff_id),
                };
                let mut done = done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                match (&mut *done, layer) {
                    (Ok(layers), Ok(layer)) => drop(layers.insert(blob.digest, layer)),
                    (Ok(_), Err(error)) => *done = Err(error),
                    (Err(_), _) => {}
                }
                if done.is_err() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL.min(wanted.len()) {
                scope.spawn(worker);
            }
            worker();
        });
        done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
