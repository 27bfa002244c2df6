//! Reading what a registry sends: bounded in length and in patience.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;

use super::Registries;
use super::failure::{Failure, explain};
use super::session::authority;
use crate::error::Error;

/// Least bytes per window of silence: a registry that drips slower is as good as dead.
const LEAST_PROGRESS: u64 = 1024;

/// Watches that a body keeps coming.
pub(crate) struct Pace {
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(registries: &Registries) -> Pace {
        Pace { window: registries.read_timeout, since: Instant::now(), bytes: 0 }
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn next(&mut self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let chunk = match tokio::time::timeout(self.window, response.chunk()).await {
            Err(_) => {
                return Err(Failure::transient(format!("nothing came for {} seconds", self.window.as_secs_f32())));
            }
            Ok(Err(error)) => return Err(Failure::transient(explain(&error))),
            Ok(Ok(chunk)) => chunk,
        };
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.since.elapsed() >= self.window {
            if chunk.is_some() && self.bytes < LEAST_PROGRESS {
                return Err(Failure::transient(format!(
                    "only {} bytes came in {} seconds",
                    self.bytes,
                    self.window.as_secs_f32()
                )));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(chunk)
    }
}

/// Reads a small body whole; `what` says in an error what was too long.
pub(crate) async fn read_body(
    mut response: Response,
    max: u64,
    what: &str,
    registries: &Registries,
) -> Result<Vec<u8>, Failure> {
    let too_long = |response: &Response| {
        Failure::Final(Error::Registry {
            host: authority(response.url()),
            step: format!("read the {what} that it sends"),
            problem: format!("it is longer than {max} bytes"),
        })
    };
    if response.content_length().is_some_and(|len| len > max) {
        return Err(too_long(&response));
    }
    let mut body = Vec::new();
    let mut pace = Pace::new(registries);
    while let Some(chunk) = pace.next(&mut response).await? {
        if body.len() as u64 + chunk.len() as u64 > max {
            return Err(too_long(&response));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
