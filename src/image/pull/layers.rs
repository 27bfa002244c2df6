//! The layers of an image: which are there already, which are downloaded, each converted while it arrives.

use std::collections::BTreeMap;
use std::io::Read;
use std::thread::Scope;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::download::Download;
use super::tail::tail;
use super::{Limits, PullRequest};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::{self, Expected};
use crate::manifest::Descriptor;
use crate::progress::{Event, LayerState, Progress};
use crate::registry::session::Session;
use crate::sink::LayerSink;
use crate::store::{Layer, Partial, Store};

/// How often to look whether another process has finished the same download.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What all layers of a pull share.
pub(super) struct Layers<'scope, 'env> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) store: &'env Store,
    pub(super) sink: &'env dyn LayerSink,
    pub(super) progress: &'env dyn Progress,
    pub(super) sessions: &'env [Session<'env>],
    pub(super) limits: Limits,
    /// One permit per download.
    slots: Semaphore,
    /// Blobs whose diff id and length were verified by an earlier pull.
    known: BTreeMap<Digest, Layer>,
}

impl<'scope, 'env> Layers<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        store: &'env Store,
        doors: (&'env dyn LayerSink, &'env dyn Progress),
        sessions: &'env [Session<'env>],
        request: &PullRequest,
    ) -> Result<Layers<'scope, 'env>> {
        let known = store.known_layers()?;
        Ok(Layers {
            scope,
            store,
            sink: doors.0,
            progress: doors.1,
            sessions,
            limits: request.limits,
            slots: Semaphore::new(request.parallel.max(1)),
            known,
        })
    }

    /// Brings one layer into the store and the sink.
    pub(super) async fn fetch(&self, blob: &'env Descriptor, diff_id: Digest) -> Result<Layer> {
        if let Some(known) = self.known.get(&blob.digest)
            && known.diff_id == diff_id
            && self.store.has_blob(blob)
            && self.sink.has(&diff_id)
        {
            self.tell(blob, LayerState::AlreadyExists);
            return Ok(known.clone());
        }
        self.tell(blob, LayerState::PullingFsLayer);
        if blob.size > self.limits.blob {
            let problem = format!("it is {} bytes long, more than {}", blob.size, self.limits.blob);
            return Err(Error::Layer { digest: blob.digest, problem });
        }
        if self.slots.available_permits() == 0 {
            self.tell(blob, LayerState::Waiting);
        }
        let size = self.download(blob, diff_id).await?;
        self.tell(blob, LayerState::PullComplete);
        Ok(Layer { blob: Descriptor::new(&blob.media_type, blob.digest, blob.size), diff_id, size })
    }

    /// Returns the length of the tar.
    async fn download(&self, blob: &'env Descriptor, diff_id: Digest) -> Result<u64> {
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_| Error::Layer { digest: blob.digest, problem: "the pull was given up".to_owned() })?;
        let partial = loop {
            if let Some(partial) = self.claim(blob).await? {
                break partial;
            }
            self.tell(blob, LayerState::DownloadComplete);
            let converted = self.convert(blob, diff_id, self.store.open_blob(blob)?)?.await;
            // A blob that the disk has spoiled is removed, and downloaded as if it had never been there.
            if converted.is_ok() || self.store.discard_if_damaged(&blob.digest)?.is_none() {
                return converted;
            }
        };
        let (writer, reader) = tail(partial.reader()?);
        let converting = self.convert(blob, diff_id, reader)?;
        let tell = |state: LayerState<'_>| self.tell(blob, state);
        let download = Download { sessions: self.sessions, blob, tail: &writer, tell: &tell };
        let partial = download.run(partial).await?;
        partial.commit(self.store, &blob.digest)?;
        self.tell(blob, LayerState::DownloadComplete);
        let converted = match writer.finish() {
            true => converting.await,
            // The download began anew: what was converted so far were other bytes.
            false => {
                let _ = converting.await;
                self.convert(blob, diff_id, self.store.open_blob(blob)?)?.await
            }
        };
        if converted.is_err() {
            // Verified, but of no use: it would only be found again by the next pull.
            self.store.drop_unused_blob(&blob.digest)?;
        }
        converted
    }

    /// The right to download a blob; `None` when it is there, perhaps because another process has just brought it.
    async fn claim(&self, blob: &Descriptor) -> Result<Option<Partial>> {
        let mut told = false;
        loop {
            if self.store.has_blob(blob) {
                return Ok(None);
            }
            if let Some(partial) = self.store.try_partial(&blob.digest)? {
                if self.store.has_blob(blob) {
                    partial.discard();
                    return Ok(None);
                }
                return Ok(Some(partial));
            }
            if !told {
                self.tell(blob, LayerState::Waiting);
                told = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Starts the conversion in threads of its own.
    fn convert<S: Read + Send + 'scope>(
        &self,
        blob: &'env Descriptor,
        diff_id: Digest,
        source: S,
    ) -> Result<impl Future<Output = Result<u64>> + use<'scope, 'env, S>> {
        let (done, outcome) = oneshot::channel();
        let (sink, progress, total) = (self.sink, self.progress, blob.size);
        let digest = blob.digest;
        let expected = Expected { blob: digest, diff_id, limits: self.limits };
        let work = move || {
            let consumed = |n: u64| {
                let state = LayerState::Extracting { done: n.min(total), total };
                progress.event(Event::Layer { blob: digest, state });
            };
            // The receiver is gone only when the pull has failed elsewhere.
            let _ = done.send(layer::convert(&expected, source, sink, &consumed));
        };
        std::thread::Builder::new()
            .name("layer-convert".to_owned())
            .spawn_scoped(self.scope, work)
            .map_err(|error| Error::Layer { digest, problem: format!("cannot start a thread: {error}") })?;
        Ok(async move {
            let lost = |_| Error::Layer { digest, problem: "its conversion was lost".to_owned() };
            outcome.await.map_err(lost)?
        })
    }

    fn tell(&self, blob: &Descriptor, state: LayerState<'_>) {
        self.progress.event(Event::Layer { blob: blob.digest, state });
    }
}
