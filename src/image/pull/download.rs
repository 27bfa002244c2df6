//! One blob over the network: resumed, retried, bounded, verified.
//!
//! ```text
//!           ┌────────────── broken connection, 5xx, 429: wait, resume by Range ◄─┐
//!           ▼                                                                    │
//!   [bytes on disk] ── GET (Range) ──► 206 with the right range: append ─────────┤
//!                                 ├──► 200: from the beginning ──────────────────┤
//!                                 └──► 416, wrong range: from the beginning      │
//!   all bytes there ── digest right? ──► verified                                │
//!                          └─ no: once more from the beginning, then give up ────┘
//! ```

use std::time::Duration;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::tail::TailWriter;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::progress::LayerState;
use crate::registry::body::Pace;
use crate::registry::failure::{Failure, wait};
use crate::registry::session::Session;
use crate::store::Partial;

/// Progress that earns a download its attempts back.
const PROGRESS: u64 = 64 << 10;

/// Bytes between two `Downloading` events.
const EVENT_EVERY: u64 = 128 << 10;

/// A download under way.
pub(super) struct Download<'a> {
    /// Where to get it, in order: mirrors, then the registry itself.
    pub(super) sessions: &'a [Session<'a>],
    pub(super) blob: &'a Descriptor,
    pub(super) tail: &'a TailWriter,
    pub(super) tell: &'a (dyn Fn(LayerState<'_>) + Sync),
}

/// What has arrived.
struct Arrived {
    partial: Partial,
    hasher: Hasher,
    told: u64,
}

impl Download<'_> {
    /// Brings the file to its full length and verifies it. What has arrived stays when that fails, for the next pull.
    pub(super) async fn run(&self, partial: Partial) -> Result<Partial> {
        let mut arrived = self.resume(partial).await?;
        match self.complete(&mut arrived).await {
            Ok(()) => Ok(arrived.partial),
            Err(error) => {
                if arrived.hasher.len() == 0 {
                    arrived.partial.discard();
                }
                Err(error)
            }
        }
    }

    async fn complete(&self, arrived: &mut Arrived) -> Result<()> {
        let mut source = 0;
        let (mut tries, mut mismatches) = (0, 0);
        loop {
            let before = arrived.hasher.len();
            let session = &self.sessions[source];
            let failure = match self.attempt(session, arrived).await {
                Ok(()) => {
                    (self.tell)(LayerState::Verifying);
                    let found = arrived.hasher.clone().finish();
                    if found == self.blob.digest {
                        return Ok(());
                    }
                    mismatches += 1;
                    self.restart(arrived)?;
                    let problem = format!("filesystem layer verification failed: the content has the digest {found}");
                    if mismatches > 1 {
                        return Err(Error::Layer { digest: self.blob.digest, problem });
                    }
                    Failure::transient(problem)
                }
                Err(failure) => failure,
            };
            let registries = session.registries();
            if arrived.hasher.len() >= before + PROGRESS {
                tries = 0;
            }
            let (problem, after) = match failure {
                Failure::Transient { problem, after } => (problem, after),
                Failure::Unreachable { problem } => (problem, None),
                Failure::Final(error @ (Error::Io { .. } | Error::Layer { .. })) => {
                    return Err(error);
                }
                refused if source + 1 < self.sessions.len() => {
                    source += 1;
                    tries = 0;
                    (refused.problem(), None)
                }
                refused => return Err(self.failed(session, &refused.problem())),
            };
            tries += 1;
            if tries >= registries.attempts {
                if source + 1 == self.sessions.len() {
                    return Err(self.failed(session, &problem));
                }
                source += 1;
                tries = 0;
            }
            self.pause(wait(registries, tries.saturating_sub(1), after), &problem).await;
        }
    }

    /// Takes over what an earlier pull has left.
    async fn resume(&self, partial: Partial) -> Result<Arrived> {
        let size = self.blob.size;
        // Hashing gigabytes would hold up the other downloads.
        let hashed = tokio::task::spawn_blocking(move || {
            let mut partial = partial;
            if partial.len()? > size {
                partial.truncate(0)?;
            }
            let hasher = partial.rehash()?;
            Ok::<_, Error>(Arrived { partial, hasher, told: 0 })
        });
        let arrived = hashed.await.map_err(|error| Error::Layer {
            digest: self.blob.digest,
            problem: format!("cannot read what is there already: {error}"),
        })??;
        self.tail.advance(arrived.hasher.len());
        Ok(arrived)
    }

    /// One request, and as much of its answer as comes.
    async fn attempt(&self, session: &Session<'_>, arrived: &mut Arrived) -> Result<(), Failure> {
        let from = arrived.hasher.len();
        if from == self.blob.size {
            return Ok(());
        }
        let mut response = session.blob(&self.blob.digest, from).await?;
        match response.status() {
            StatusCode::OK => {
                if let Some(len) = response.content_length().filter(|len| *len != self.blob.size) {
                    return Err(Failure::transient(format!(
                        "it offers a size of {len} bytes, the manifest says {}",
                        self.blob.size
                    )));
                }
                if from > 0 {
                    self.restart(arrived)?;
                }
            }
            StatusCode::PARTIAL_CONTENT if from > 0 && self.continues(&response, from) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.restart(arrived)?;
                return Err(Failure::transient("it answered with another part than the one asked for"));
            }
            _ => return Err(Failure::of_response(response, session.registries()).await),
        }
        let mut pace = Pace::new(session.registries());
        while let Some(chunk) = pace.next(&mut response).await? {
            if arrived.hasher.len() + chunk.len() as u64 > self.blob.size {
                self.restart(arrived)?;
                let problem = format!("the registry sent more than its {} bytes", self.blob.size);
                return Err(Error::Layer { digest: self.blob.digest, problem }.into());
            }
            arrived.partial.write(&chunk)?;
            arrived.hasher.update(&chunk);
            let done = arrived.hasher.len();
            self.tail.advance(done);
            if done >= arrived.told + EVENT_EVERY || done == self.blob.size {
                arrived.told = done;
                (self.tell)(LayerState::Downloading { done, total: self.blob.size });
            }
        }
        match arrived.hasher.len() {
            len if len == self.blob.size => Ok(()),
            len => Err(Failure::transient(format!("the connection ended after {len} of {} bytes", self.blob.size))),
        }
    }

    /// Whether a 206 goes on exactly where the file ends (RFC 9110, 14.4).
    fn continues(&self, response: &Response, from: u64) -> bool {
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let parse = || -> Option<(u64, u64, &str)> {
            let (range, total) = header?.trim().strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?, total.trim()))
        };
        parse().is_some_and(|(first, last, total)| {
            first == from
                && last >= first
                && last < self.blob.size
                && (total == "*" || total.parse() == Ok(self.blob.size))
                && response.content_length().is_none_or(|len| len == last - first + 1)
        })
    }

    fn restart(&self, arrived: &mut Arrived) -> Result<()> {
        // The converter has read bytes that are now replaced; it starts over from the verified file.
        self.tail.restart();
        arrived.partial.truncate(0)?;
        arrived.hasher = Hasher::default();
        arrived.told = 0;
        Ok(())
    }

    async fn pause(&self, time: Duration, problem: &str) {
        let mut left = time;
        while !left.is_zero() {
            (self.tell)(LayerState::Retrying { seconds: left.as_secs_f32().ceil() as u64, problem });
            let step = left.min(Duration::from_secs(1));
            tokio::time::sleep(step).await;
            left -= step;
        }
    }

    fn failed(&self, session: &Session<'_>, problem: &str) -> Error {
        Error::Registry {
            host: session.endpoint.name.clone(),
            step: format!("download layer {}", self.blob.digest),
            problem: problem.to_owned(),
        }
    }
}
