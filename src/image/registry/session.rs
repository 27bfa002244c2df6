//! A conversation with one registry about one repository (OCI distribution-spec, "Pull").
//!
//! Redirects are followed here, not by the HTTP library: another host gets no `Authorization`, HTTPS never becomes HTTP,
//! and a loopback registry sends us to plain HTTP only where we would go ourselves.

use std::collections::BTreeMap;
use std::sync::Mutex;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Response, StatusCode, Url};

use super::Registries;
use super::auth::Authorizer;
use super::body::read_body;
use super::failure::{Failure, clean};
use super::host::{Endpoint, Transport, is_insecure, may_be_plain};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{ACCEPT as MANIFEST_TYPES, MAX_MANIFEST_SIZE};

const MAX_REDIRECTS: usize = 10;

/// One HTTP client per host and transport, made when first needed.
pub(crate) struct Clients<'a> {
    pub(crate) registries: &'a Registries,
    made: Mutex<BTreeMap<(String, Transport), Client>>,
}

impl<'a> Clients<'a> {
    pub(crate) fn new(registries: &'a Registries) -> Clients<'a> {
        Clients { registries, made: Mutex::new(BTreeMap::new()) }
    }

    /// The client for the host of `url`; refuses plain HTTP where it is not allowed.
    pub(crate) fn of(&self, url: &Url) -> Result<Client> {
        let host = authority(url);
        let refused = |problem: &str| Error::Registry {
            host: host.clone(),
            step: "connect".to_owned(),
            problem: problem.to_owned(),
        };
        let transport = match url.scheme() {
            "https" if is_insecure(&host, self.registries) => Transport::HttpsUnverified,
            "https" => Transport::Https,
            "http" if may_be_plain(&host, self.registries) => Transport::Http,
            "http" => {
                return Err(refused("plain HTTP is only for loopback and for hosts listed as insecure"));
            }
            _ => return Err(refused("it is neither HTTPS nor HTTP")),
        };
        let mut made = self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = made.get(&(host.clone(), transport)) {
            return Ok(client.clone());
        }
        let client = self.registries.client(&host, transport)?;
        made.insert((host, transport), client.clone());
        Ok(client)
    }
}

/// A conversation about one repository.
pub(crate) struct Session<'a> {
    clients: Clients<'a>,
    pub(crate) endpoint: Endpoint,
    base: Url,
    repository: String,
    authorizer: Authorizer,
}

/// A manifest or index as it came.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: String,
    pub(crate) digest: Digest,
}

impl<'a> Session<'a> {
    /// Finds out how the registry is to be spoken to.
    pub(crate) async fn open(
        endpoint: Endpoint,
        path: &str,
        registries: &'a Registries,
    ) -> Result<Session<'a>, Failure> {
        let repository = match endpoint.prefix.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        };
        let authorizer = Authorizer::for_repository(&repository);
        Session::connect(endpoint, repository, authorizer, registries).await
    }

    /// For a login: no repository, credentials given.
    pub(crate) async fn connect(
        endpoint: Endpoint,
        repository: String,
        authorizer: Authorizer,
        registries: &'a Registries,
    ) -> Result<Session<'a>, Failure> {
        let clients = Clients::new(registries);
        let mut last: Option<Failure> = None;
        for transport in &endpoint.transports {
            let base = format!("{}://{}/", transport.scheme(), endpoint.host);
            let base = Url::parse(&base).map_err(|error| Error::Registry {
                host: endpoint.name.clone(),
                step: "read its address".to_owned(),
                problem: error.to_string(),
            })?;
            if endpoint.transports.len() > 1
                && let Err(failure) = probe(&clients, &base).await
            {
                last = Some(failure);
                continue;
            }
            return Ok(Session { clients, endpoint, base, repository, authorizer });
        }
        Err(last.unwrap_or_else(|| Failure::Unreachable { problem: "there is no way to speak to it".to_owned() }))
    }

    /// The manifest or index that a tag or digest names. Its digest is computed, never believed.
    pub(crate) async fn manifest(&self, tag_or_digest: &str, expected: Option<Digest>) -> Result<Fetched, Failure> {
        let url = self.url("manifests", tag_or_digest);
        let response = self.get(url, &MANIFEST_TYPES.join(", "), None).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::of_response(response, self.registries()).await);
        }
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let content_type = header(CONTENT_TYPE.as_str());
        let announced = header("docker-content-digest");
        let bytes = read_body(response, MAX_MANIFEST_SIZE, "manifest", self.registries()).await?;
        let digest = Digest::of(&bytes);
        let wrong =
            |problem: String| Failure::Final(Error::document(format!("manifest {}", clean(tag_or_digest)), problem));
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(wrong(format!("the registry sent content with the digest {digest} instead of {expected}")));
        }
        if announced.starts_with("sha256:") && announced != digest.to_string() {
            return Err(wrong(format!(
                "the registry announced the digest {} but sent content with the digest {digest}",
                clean(&announced)
            )));
        }
        Ok(Fetched { bytes, content_type, digest })
    }

    /// The answer to a request for a blob from byte `from` on, whatever its status.
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<Response, Failure> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.get(self.url("blobs", &digest.to_string()), "*/*", range).await
    }

    /// A small blob, verified.
    pub(crate) async fn small_blob(&self, digest: &Digest, size: u64, max: u64) -> Result<Vec<u8>, Failure> {
        let wrong = |problem: String| Failure::Final(Error::document(format!("image configuration {digest}"), problem));
        if size > max {
            return Err(wrong(format!("it is {size} bytes long, more than {max}")));
        }
        let response = self.blob(digest, 0).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::of_response(response, self.registries()).await);
        }
        let bytes = read_body(response, max, "image configuration", self.registries()).await?;
        if bytes.len() as u64 != size {
            return Err(wrong(format!("the registry sent {} bytes instead of {size}", bytes.len())));
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(wrong(format!("the registry sent content with the digest {found}"))),
        }
    }

    /// `GET /v2/`: whether the registry lets us in.
    pub(crate) async fn ping(&self) -> Result<Response, Failure> {
        let mut url = self.base.clone();
        url.set_path("/v2/");
        self.get(url, "*/*", None).await
    }

    pub(crate) fn registries(&self) -> &'a Registries {
        self.clients.registries
    }

    fn url(&self, kind: &str, name: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{name}", self.repository));
        url
    }

    async fn get(&self, mut url: Url, accept: &str, range: Option<String>) -> Result<Response, Failure> {
        let mut redirects = 0;
        let mut answered = false;
        loop {
            let ours = same_origin(&url, &self.base);
            let authorization = self.authorizer.header().filter(|_| ours);
            let client = self.clients.of(&url)?;
            let mut request = client.get(url.clone()).header(ACCEPT, accept);
            if let Some(range) = &range {
                request = request.header(RANGE, range);
            }
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let patience = self.registries().connect_timeout + self.registries().read_timeout;
            let response = tokio::time::timeout(patience, request.send())
                .await
                .map_err(|_| Failure::transient(format!("no answer in {} seconds", patience.as_secs_f32())))?
                .map_err(|error| Failure::of_request(&error))?;
            if response.status() == StatusCode::UNAUTHORIZED && ours && !answered {
                answered = true;
                let headers = response.headers();
                let again =
                    self.authorizer.answer(headers, authorization.as_ref(), &self.endpoint, &self.base, &self.clients);
                if again.await? {
                    continue;
                }
            }
            let Some(next) = redirect(&response, &url)? else {
                return Ok(response);
            };
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(self.refuse("more than 10 redirects"));
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(self.refuse("it redirects from HTTPS to plain HTTP"));
            }
            url = next;
        }
    }

    fn refuse(&self, problem: &str) -> Failure {
        Failure::Final(Error::Registry {
            host: self.endpoint.name.clone(),
            step: "follow it".to_owned(),
            problem: problem.to_owned(),
        })
    }
}

/// Where a response sends us, if it does.
fn redirect(response: &Response, from: &Url) -> Result<Option<Url>, Failure> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).map(HeaderValue::to_str);
    let Some(Ok(location)) = location else {
        return Err(Failure::transient(format!("status {status} without a place to go to")));
    };
    let mut next = from.join(location).map_err(|_| Failure::transient("a redirect to an unreadable address"))?;
    // A user in the address would become credentials that nobody gave us.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(Some(next))
}

/// Whether something that speaks HTTP answers there as a registry would.
async fn probe(clients: &Clients<'_>, base: &Url) -> Result<(), Failure> {
    let mut url = base.clone();
    url.set_path("/v2/");
    let request = clients.of(&url)?.get(url).send();
    let response = tokio::time::timeout(clients.registries.connect_timeout, request)
        .await
        .map_err(|_| Failure::transient("no answer"))?
        .map_err(|error| Failure::of_request(&error))?;
    // Servers answer so to plain HTTP on a TLS port.
    match base.scheme() == "http" && response.status() == StatusCode::BAD_REQUEST {
        true => Err(Failure::Unreachable { problem: "it answers plain HTTP with status 400".to_owned() }),
        false => Ok(()),
    }
}

/// `host[:port]` as in references: brackets around IPv6, no default port.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}
