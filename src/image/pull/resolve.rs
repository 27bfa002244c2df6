//! From a reference to the manifest and configuration of one image, through mirrors and indexes.

use super::PullRequest;
use crate::config::{ImageConfig, MAX_CONFIG_SIZE};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::{DEFAULT_DOMAIN, Reference};
use crate::registry::Registries;
use crate::registry::failure::{Failure, retrying};
use crate::registry::host::Endpoint;
use crate::registry::session::{Fetched, Session};

/// Indexes within indexes: deeper ones serve nothing.
const MAX_DEPTH: usize = 3;

/// An image as a registry describes it.
pub(super) struct Found<'a> {
    /// Where to get the layers: the place that had the manifest, then those after it.
    pub(super) sessions: Vec<Session<'a>>,
    /// What the reference led to.
    pub(super) root: Digest,
    pub(super) manifest: Manifest,
    pub(super) descriptor: Descriptor,
    pub(super) config: ImageConfig,
    /// Indexes, manifest and configuration as they came.
    pub(super) documents: Vec<Vec<u8>>,
}

/// Asks the mirrors in order, then the registry itself.
pub(super) async fn resolve<'a>(
    request: &PullRequest,
    registries: &'a Registries,
    progress: &dyn Progress,
) -> Result<Found<'a>> {
    let reference = &request.reference;
    let endpoints = Endpoint::all(reference.domain(), registries)?;
    let tag = reference.digest().map(|digest| digest.to_string());
    let tag = tag.as_deref().or(reference.tag()).unwrap_or("latest");
    progress.event(Event::Pulling { tag, repository: reference.path() });
    let mut remaining = endpoints.into_iter();
    while let Some(endpoint) = remaining.next() {
        let is_mirror = endpoint.is_mirror;
        let host = endpoint.host.clone();
        let attempt = async {
            let session =
                retrying(registries, || Session::open(endpoint.clone(), reference.path(), registries)).await?;
            let found = follow(request, &session, tag).await?;
            Ok::<_, Failure>((session, found))
        };
        match attempt.await {
            Ok((session, (root, manifest, descriptor, config, documents))) => {
                let mut sessions = vec![session];
                if is_mirror {
                    for next in remaining {
                        // A place that cannot be reached now is no help for the layers either.
                        sessions.extend(Session::open(next, reference.path(), registries).await.ok());
                    }
                }
                return Ok(Found { sessions, root, manifest, descriptor, config, documents });
            }
            Err(failure) if is_mirror => {
                progress.event(Event::MirrorFailed { host: &host, problem: &failure.problem() });
            }
            Err(failure) => return Err(explain(failure, reference)),
        }
    }
    Err(Error::Registry {
        host: reference.domain().to_owned(),
        step: "pull".to_owned(),
        problem: "there is no place to pull from".to_owned(),
    })
}

type Followed = (Digest, Manifest, Descriptor, ImageConfig, Vec<Vec<u8>>);

/// Follows a tag or digest through indexes to a manifest and its configuration.
async fn follow(request: &PullRequest, session: &Session<'_>, tag: &str) -> Result<Followed, Failure> {
    let registries = session.registries();
    let familiar = request.reference.familiar();
    let wanted = request.platform.as_ref().map_or_else(Platform::host, Platform::normalised);
    let expected = request.reference.digest();
    let mut fetched: Fetched = retrying(registries, || session.manifest(tag, expected)).await?;
    let root = fetched.digest;
    let mut documents = Vec::new();
    for _ in 0..MAX_DEPTH {
        let subject = format!("manifest {} of {familiar}", fetched.digest);
        let document = Document::parse(&fetched.bytes, &fetched.content_type, &subject)?;
        let len = fetched.bytes.len() as u64;
        documents.push(fetched.bytes);
        match document {
            Document::Index(index) => {
                let entry = index.select(&wanted, &familiar)?;
                let digest = entry.digest;
                let name = digest.to_string();
                fetched = retrying(registries, || session.manifest(&name, Some(digest))).await?;
                check_entry(entry, &fetched)?;
            }
            Document::Manifest(manifest) => {
                let kind = fetched.content_type.split(';').next().unwrap_or_default().trim().to_owned();
                let descriptor = Descriptor::new(&kind, fetched.digest, len);
                let (config, bytes) = configuration(&manifest, session).await?;
                documents.push(bytes);
                return Ok((root, manifest, descriptor, config, documents));
            }
        }
    }
    Err(Error::document(format!("index of {familiar}"), "indexes within indexes are nested too deep").into())
}

/// An index entry and the document that it leads to must be one thing.
fn check_entry(entry: &Descriptor, fetched: &Fetched) -> Result<()> {
    let kind = fetched.content_type.split(';').next().unwrap_or_default().trim();
    let subject = || format!("manifest {}", entry.digest);
    if fetched.bytes.len() as u64 != entry.size {
        let problem = format!("it is {} bytes long, its index says {}", fetched.bytes.len(), entry.size);
        return Err(Error::document(subject(), problem));
    }
    if kind != entry.media_type {
        return Err(Error::document(subject(), "the registry sends it as another type than its index says"));
    }
    Ok(())
}

async fn configuration(manifest: &Manifest, session: &Session<'_>) -> Result<(ImageConfig, Vec<u8>), Failure> {
    let Descriptor { digest, size, .. } = manifest.config;
    let fetch = || session.small_blob(&digest, size, MAX_CONFIG_SIZE);
    let bytes = retrying(session.registries(), fetch).await?;
    let config = ImageConfig::parse(&bytes, digest)?;
    check_image(&config, manifest, digest)?;
    Ok((config, bytes))
}

/// What must hold between a manifest and its configuration.
pub(crate) fn check_image(config: &ImageConfig, manifest: &Manifest, id: Digest) -> Result<()> {
    let subject = || format!("image configuration {id}");
    if !matches!(config.os.as_str(), "linux" | "") {
        let os: String = config.os.chars().take(40).flat_map(char::escape_debug).collect();
        return Err(Error::document(subject(), format!("operating system \"{os}\" is not supported")));
    }
    let (diff_ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    if diff_ids != layers {
        let problem = format!("it has {diff_ids} layers, its manifest {layers}");
        return Err(Error::document(subject(), problem));
    }
    Ok(())
}

/// The failure in Docker's words.
fn explain(failure: Failure, reference: &Reference) -> Error {
    let repository = reference.familiar_repository();
    let login = match reference.domain() {
        DEFAULT_DOMAIN => "sbx login".to_owned(),
        host => format!("sbx login {host}"),
    };
    match failure {
        Failure::Refused { status: 404, code, .. } if code == "NAME_UNKNOWN" => {
            Error::AccessDenied { repository, login, detail: String::new() }
        }
        Failure::Refused { status: 404, message, .. } => {
            let detail = if message == "manifest unknown" { String::new() } else { message };
            Error::ManifestUnknown { reference: reference.familiar(), detail }
        }
        Failure::Refused { status: 401 | 403, message: detail, .. } => {
            Error::AccessDenied { repository, login, detail }
        }
        other => other.into_error(reference.domain(), &format!("get the manifest of {}", reference.familiar())),
    }
}
