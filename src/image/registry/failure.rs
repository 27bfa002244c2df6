//! How a request can fail, and which failures are worth another attempt.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::Registries;
use super::body::read_body;
use crate::error::Error;

/// Longest wait between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Longest wait that a registry can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Longest error document that is looked at.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// How a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Worth another attempt, perhaps not before `after`.
    Transient { problem: String, after: Option<Duration> },
    /// There is no connection. In the middle of a pull worth another attempt, at its beginning not.
    Unreachable { problem: String },
    /// The registry says no.
    Refused { status: u16, code: String, message: String },
    /// Another attempt would end the same.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

/// A registry's error document (distribution-spec, "Error Codes").
#[derive(Default, Deserialize)]
struct ErrorDocument {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    /// Token services often say it so.
    #[serde(default)]
    details: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorEntry {
    code: String,
    message: String,
}

impl Failure {
    pub(crate) fn transient(problem: impl Into<String>) -> Failure {
        Failure::Transient { problem: problem.into(), after: None }
    }

    /// A request that got no answer.
    pub(crate) fn of_request(error: &reqwest::Error) -> Failure {
        let problem = explain(error);
        match error.is_connect() {
            true => Failure::Unreachable { problem },
            false => Failure::Transient { problem, after: None },
        }
    }

    /// An answer that is not a success.
    pub(crate) async fn of_response(response: Response, registries: &Registries) -> Failure {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let after = after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let body = read_body(response, MAX_ERROR_BODY, "error message", registries).await.unwrap_or_default();
        let document: ErrorDocument = serde_json::from_slice(&body).unwrap_or_default();
        let entry = document.errors.into_iter().next().unwrap_or_default();
        let message = clean(if entry.message.is_empty() { &document.details } else { &entry.message });
        let transient = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED);
        if transient {
            let problem = match message.is_empty() {
                true => format!("status {status}"),
                false => format!("status {status}: {message}"),
            };
            return Failure::Transient { problem, after };
        }
        Failure::Refused { status: status.as_u16(), code: clean(&entry.code), message }
    }

    /// What went wrong, in words.
    pub(crate) fn problem(&self) -> String {
        match self {
            Failure::Transient { problem, .. } | Failure::Unreachable { problem } => problem.clone(),
            Failure::Refused { status, code, message } => {
                let reason = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
                let mut text = format!("status {status} {}", reason.unwrap_or_default()).trim_end().to_owned();
                for part in [code, message].into_iter().filter(|part| !part.is_empty()) {
                    text.push_str(": ");
                    text.push_str(part);
                }
                text
            }
            Failure::Final(error) => error.to_string(),
        }
    }

    /// The failure as the error of a step at a host.
    pub(crate) fn into_error(self, host: &str, step: &str) -> Error {
        match self {
            Failure::Final(error) => error,
            other => Error::Registry { host: host.to_owned(), step: step.to_owned(), problem: other.problem() },
        }
    }
}

/// Runs `attempt` until it succeeds, fails for good, or has used up the attempts.
pub(crate) async fn retrying<T, F>(registries: &Registries, mut attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut tries = 0;
    loop {
        match attempt().await {
            Err(Failure::Transient { after, .. }) if tries + 1 < registries.attempts => {
                tokio::time::sleep(wait(registries, tries, after)).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

/// How long to wait after the failure of attempt `tries` (from 0).
pub(crate) fn wait(registries: &Registries, tries: u32, after: Option<Duration>) -> Duration {
    let doubled = registries.first_retry.saturating_mul(1 << tries.min(16)).min(MAX_WAIT);
    after.map_or(doubled, |after| after.max(doubled))
}

/// The innermost causes of a failed request. The address is left out: it can hold a signature.
pub(crate) fn explain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(next.to_string());
        cause = next.source();
    }
    causes.dedup();
    let from = causes.len().saturating_sub(2);
    match causes[from..].join(": ") {
        text if !text.is_empty() => clean(&text),
        _ if error.is_timeout() => "it took too long".to_owned(),
        _ if error.is_builder() => "the request cannot be made".to_owned(),
        _ => "the connection broke".to_owned(),
    }
}

/// Text from outside, fit for a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}
