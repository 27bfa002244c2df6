//! Answering a registry's challenge: Basic, or a Bearer token from the service that it names.
//!
//! Credentials leave this machine only over TLS, only to the registry that they are for, and to the token service that
//! this registry names; plain HTTP is for loopback (compare CVE-2020-15157).

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::Registries;
use super::body::read_body;
use super::challenge::Challenge;
use super::credentials::{Credentials, DockerConfig};
use super::failure::Failure;
use super::host::{Endpoint, is_loopback};
use super::session::{Clients, authority};
use crate::error::Error;

/// Longest answer of a token service.
const MAX_TOKEN_BODY: u64 = 1 << 20;

/// Name of this client for token services.
const CLIENT_ID: &str = "sbx";

/// What is sent with requests to one registry.
pub(crate) struct Authorizer {
    /// `repository:PATH:pull`; empty for a login.
    scope: String,
    credentials: Source,
    header: Mutex<Option<HeaderValue>>,
    /// Held while a token is fetched, so that parallel requests fetch one.
    fetching: tokio::sync::Mutex<()>,
}

/// Where credentials come from.
enum Source {
    /// Docker's configuration, looked up when a registry wants some: a helper may ask the user.
    Configured,
    Given(Credentials),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenAnswer {
    token: String,
    access_token: String,
}

impl Authorizer {
    pub(crate) fn for_repository(path: &str) -> Authorizer {
        Authorizer::new(format!("repository:{path}:pull"), Source::Configured)
    }

    pub(crate) fn for_login(credentials: Credentials) -> Authorizer {
        Authorizer::new(String::new(), Source::Given(credentials))
    }

    fn new(scope: String, credentials: Source) -> Authorizer {
        Authorizer { scope, credentials, header: Mutex::new(None), fetching: tokio::sync::Mutex::new(()) }
    }

    /// What to send now.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.header.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Prepares for another attempt after a 401 to a request that was sent with `used`. False: there is nothing more
    /// to be shown.
    pub(crate) async fn answer(
        &self,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
        endpoint: &Endpoint,
        base: &Url,
        clients: &Clients<'_>,
    ) -> Result<bool, Failure> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = challenges.filter_map(Challenge::parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(challenges.first()) else {
            return Ok(false);
        };
        let _fetching = self.fetching.lock().await;
        if self.header().as_ref() != used {
            // Another request has renewed it meanwhile.
            return Ok(true);
        }
        let credentials = self.credentials(endpoint, clients.registries)?;
        let header = match (challenge, credentials) {
            (Challenge::Basic, Some(Credentials::Password { username, password })) => {
                self.refuse_plain(base, endpoint)?;
                basic(&username, &password)
            }
            (Challenge::Basic, _) => return Ok(false),
            (Challenge::Bearer { .. }, Some(Credentials::RegistryToken(token))) => {
                self.refuse_plain(base, endpoint)?;
                bearer_header(&token)
            }
            (Challenge::Bearer { realm, service, scope }, credentials) => {
                let scope = if scope.is_empty() { &self.scope } else { scope };
                let wanted = Wanted { realm, service, scope };
                bearer_header(&fetch(&wanted, credentials, endpoint, base, clients).await?)
            }
        };
        let header =
            header.ok_or_else(|| unauthorized(endpoint, "the credentials have characters that HTTP forbids"))?;
        if Some(&header) == used {
            return Ok(false);
        }
        *self.header.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(header);
        Ok(true)
    }

    fn credentials(&self, endpoint: &Endpoint, registries: &Registries) -> Result<Option<Credentials>, Error> {
        match &self.credentials {
            Source::Given(credentials) => Ok(Some(credentials.clone())),
            Source::Configured => DockerConfig::read(&registries.docker_config)?.get(endpoint.credentials_key()),
        }
    }

    fn refuse_plain(&self, base: &Url, endpoint: &Endpoint) -> Result<(), Error> {
        match base.scheme() == "https" || is_loopback(&authority(base)) {
            true => Ok(()),
            false => {
                Err(unauthorized(endpoint, "credentials are not sent over plain HTTP; give the registry a certificate"))
            }
        }
    }
}

/// The token that a registry wants.
struct Wanted<'a> {
    realm: &'a str,
    service: &'a str,
    scope: &'a str,
}

async fn fetch(
    wanted: &Wanted<'_>,
    credentials: Option<Credentials>,
    endpoint: &Endpoint,
    base: &Url,
    clients: &Clients<'_>,
) -> Result<String, Failure> {
    let mut realm = Url::parse(wanted.realm)
        .map_err(|_| unauthorized(endpoint, "its token service has an address that cannot be read"))?;
    let service_host = authority(&realm);
    let same_host = service_host == authority(base) && realm.scheme() == base.scheme();
    let protected = realm.scheme() == "https" || (realm.scheme() == "http" && is_loopback(&service_host));
    if !protected && (!same_host || credentials.is_some()) {
        let problem = format!("its token service {service_host} is neither HTTPS nor loopback; it gets no credentials");
        return Err(unauthorized(endpoint, &problem).into());
    }
    let client = clients.of(&realm)?;
    let mut fields = vec![("service", wanted.service), ("scope", wanted.scope)];
    let request = match &credentials {
        Some(Credentials::IdentityToken(token)) => {
            fields.extend([("client_id", CLIENT_ID), ("grant_type", "refresh_token"), ("refresh_token", token)]);
            let mut form = realm.clone();
            form.query_pairs_mut().clear().extend_pairs(fields.iter().filter(|(_, value)| !value.is_empty()));
            let body = form.query().unwrap_or_default().to_owned();
            client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        }
        Some(Credentials::Password { username, password }) => {
            fields.extend([("account", username.as_str()), ("client_id", CLIENT_ID)]);
            realm.query_pairs_mut().extend_pairs(fields.iter().filter(|(_, value)| !value.is_empty()));
            let header = basic(username, password)
                .ok_or_else(|| unauthorized(endpoint, "the credentials have characters that HTTP forbids"))?;
            client.get(realm).header(AUTHORIZATION, header)
        }
        Some(Credentials::RegistryToken(_)) | None => {
            realm.query_pairs_mut().extend_pairs(fields.iter().filter(|(_, value)| !value.is_empty()));
            client.get(realm)
        }
    };
    let patience = clients.registries.connect_timeout + clients.registries.read_timeout;
    let response = tokio::time::timeout(patience, request.send())
        .await
        .map_err(|_| Failure::transient("the token service does not answer"))?
        .map_err(|error| Failure::of_request(&error))?;
    if response.status().is_redirection() {
        return Err(unauthorized(endpoint, "its token service redirects; credentials are not taken elsewhere").into());
    }
    if !response.status().is_success() {
        return Err(Failure::of_response(response, clients.registries).await);
    }
    let body = read_body(response, MAX_TOKEN_BODY, "token", clients.registries).await?;
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|_| unauthorized(endpoint, "the answer of its token service cannot be read"))?;
    match [answer.token, answer.access_token].into_iter().find(|token| !token.is_empty()) {
        Some(token) => Ok(token),
        None => Err(unauthorized(endpoint, "its token service gave no token").into()),
    }
}

fn unauthorized(endpoint: &Endpoint, problem: &str) -> Error {
    Error::Unauthorized { host: endpoint.name.clone(), problem: problem.to_owned() }
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

fn bearer_header(token: &str) -> Option<HeaderValue> {
    secret(format!("Bearer {token}"))
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
