//! Everything that can go wrong with an image, each naming the thing and, where there is one, the way out.
//!
//! One enum for the whole crate: the callers (command line, API) turn a variant into an exit code or a status, never
//! look into the text. Where Docker has well-known words for a case the text keeps them, since scripts match on them.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a layer converter may fail with.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation on an image failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference that the grammar does not allow.
    #[error("invalid reference format{}: \"{text}\"", suffix(.reason))]
    Reference {
        /// What was given.
        text: String,
        /// Docker's words for the rule that it breaks; may be empty.
        reason: &'static str,
    },
    /// A digest that is malformed or of an algorithm that is not stored.
    #[error("{reason}: \"{text}\"")]
    Digest {
        /// What was given.
        text: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A platform that cannot be read.
    #[error("\"{text}\" is an invalid platform: {reason} (use os/arch or os/arch/variant, such as linux/arm64)")]
    Platform {
        /// What was given.
        text: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// No image has this name or id.
    #[error("No such image: {name}")]
    NoSuchImage {
        /// The name as given.
        name: String,
    },
    /// An id prefix that several images share.
    #[error("image id prefix {prefix} is ambiguous: it fits {} images ({}); give more digits", .matches.len(), shorten(.matches))]
    AmbiguousId {
        /// The prefix as given.
        prefix: String,
        /// The ids that it fits.
        matches: Vec<Digest>,
    },
    /// The image is in use, or has other names.
    #[error("conflict: {message}")]
    Conflict {
        /// Docker's words.
        message: String,
    },
    /// A system call on one of our files failed.
    #[error("cannot {step} {}", .path.display())]
    Io {
        /// The step, as a verb.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob of the store that is missing, truncated or altered.
    #[error("blob {digest} of the image store is damaged: {problem}; `sbx pull` the image again to replace it")]
    DamagedBlob {
        /// Its name.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// A state file of the store that cannot be used.
    #[error("image store file {} cannot be used: {problem}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest, index or image configuration that is not what it must be.
    #[error("{subject}: {problem}")]
    Document {
        /// Which document.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An index without an entry for the platform.
    #[error("no matching manifest for {wanted} in the manifest list entries: {reference} has {}", list_or_none(.available))]
    NoMatchingPlatform {
        /// The image asked for.
        reference: String,
        /// The platform asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The registry knows the repository but not this tag or digest.
    #[error("manifest for {reference} not found: manifest unknown{}", suffix(.detail))]
    ManifestUnknown {
        /// The image asked for.
        reference: String,
        /// The registry's own words, if they say more.
        detail: String,
    },
    /// The registry denies the repository, or does not know it.
    #[error("pull access denied for {repository}, repository does not exist or may require '{login}'{}", suffix(.detail))]
    AccessDenied {
        /// The repository asked for.
        repository: String,
        /// The command that logs in to its registry.
        login: String,
        /// The registry's own words.
        detail: String,
    },
    /// The registry refused the credentials, or wants some.
    #[error("registry {host}: unauthorized: {problem}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// Why.
        problem: String,
    },
    /// A request to a registry failed for good.
    #[error("registry {host}: cannot {step}: {problem}")]
    Registry {
        /// The registry.
        host: String,
        /// What was asked for.
        step: String,
        /// Why it failed.
        problem: String,
    },
    /// A layer that cannot be used.
    #[error("layer {digest}: {problem}")]
    Layer {
        /// Digest of the blob.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// The converter refused a layer.
    #[error("cannot convert layer {diff_id}")]
    Convert {
        /// Digest of the layer's tar.
        diff_id: Digest,
        /// Why.
        source: SinkError,
    },
    /// An image archive that cannot be read or written.
    #[error("image archive: {0}")]
    Archive(String),
    /// The stream of an image archive failed.
    #[error("cannot {step} the image archive")]
    ArchiveIo {
        /// `read` or `write`.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A `--change` instruction that cannot be applied.
    #[error("--change \"{text}\": {problem}")]
    Change {
        /// The instruction as given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Docker's client configuration or a credential helper failed.
    #[error("{subject}: {problem}")]
    Credentials {
        /// The file or the helper program.
        subject: String,
        /// What went wrong.
        problem: String,
    },
}

/// What kind of failure it is, for exit codes and HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong (400).
    Invalid,
    /// Credentials are missing or wrong (401, 403).
    Denied,
    /// There is no such thing (404).
    NotFound,
    /// It clashes with the state of something else (409).
    Conflict,
    /// Everything else (500).
    Failed,
}

impl Error {
    /// The kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Reference { .. } | Error::Digest { .. } | Error::Platform { .. } | Error::Change { .. } => {
                ErrorKind::Invalid
            }
            Error::NoSuchImage { .. }
            | Error::NoMatchingPlatform { .. }
            | Error::ManifestUnknown { .. }
            | Error::AccessDenied { .. } => ErrorKind::NotFound,
            Error::AmbiguousId { .. } => ErrorKind::Invalid,
            Error::Conflict { .. } => ErrorKind::Conflict,
            Error::Unauthorized { .. } => ErrorKind::Denied,
            _ => ErrorKind::Failed,
        }
    }

    pub(crate) fn document(subject: impl ToString, problem: impl ToString) -> Error {
        Error::Document { subject: subject.to_string(), problem: problem.to_string() }
    }
}

/// `map_err` for a system call on a file of ours.
pub(crate) fn at<'a>(step: &'static str, path: &'a std::path::Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io { step, path: path.to_path_buf(), source }
}

fn suffix(reason: impl AsRef<str>) -> String {
    match reason.as_ref() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

fn shorten(digests: &[Digest]) -> String {
    let mut shown: Vec<String> = digests.iter().take(4).map(Digest::short).collect();
    if digests.len() > shown.len() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

fn list_or_none(items: &[String]) -> String {
    match items.len() {
        0 => "no platform at all".to_owned(),
        1..=32 => items.join(", "),
        more => format!("{} and {} more", items[..32].join(", "), more - 32),
    }
}
