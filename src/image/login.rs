//! `login` and `logout`: credentials are tried at the registry, then kept where Docker keeps them.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::reference::{DEFAULT_DOMAIN, Reference};
use crate::registry::Registries;
use crate::registry::auth::Authorizer;
use crate::registry::credentials::{Credentials, DockerConfig};
use crate::registry::failure::{Failure, retrying};
use crate::registry::host::Endpoint;
use crate::registry::session::Session;

/// Who logs in where.
#[derive(Clone)]
pub struct LoginRequest {
    /// `host[:port]`; empty is docker.io. A scheme and a path are ignored, as Docker does.
    pub server: String,
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// Where credentials were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In clear in this file: Docker warns.
    File(PathBuf),
    /// In this credential helper.
    Helper(String),
}

/// A login that worked.
#[derive(Clone, Debug)]
pub struct LoginResult {
    /// `Login Succeeded`.
    pub message: String,
    /// Where the credentials are now.
    pub stored: Stored,
}

impl LoginResult {
    /// Docker's warning, if one is due.
    pub fn warning(&self) -> Option<String> {
        match &self.stored {
            Stored::Helper(_) => None,
            Stored::File(path) => Some(format!(
                "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning.",
                path.display()
            )),
        }
    }
}

/// Verifies credentials with the registry and stores them as Docker does.
///
/// # Errors
/// `unauthorized: …` when the registry refuses them, else why it or the store could not be used.
pub fn login(request: &LoginRequest, registries: &Registries) -> Result<LoginResult> {
    let endpoint = endpoint(&request.server, registries)?;
    if request.username.is_empty() || request.password.is_empty() {
        let problem = "username and password must not be empty".to_owned();
        return Err(Error::Unauthorized { host: endpoint.name, problem });
    }
    let credentials = Credentials::Password { username: request.username.clone(), password: request.password.clone() };
    let mut config = DockerConfig::read(&registries.docker_config)?;
    let failed = |problem: String| Error::Registry { host: endpoint.name.clone(), step: "log in".to_owned(), problem };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let attempt = || async {
        let authorizer = Authorizer::for_login(credentials.clone());
        let session = Session::connect(endpoint.clone(), String::new(), authorizer, registries).await?;
        let response = session.ping().await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(Failure::of_response(response, registries).await),
        }
    };
    runtime.block_on(retrying(registries, attempt)).map_err(|failure| match failure {
        Failure::Refused { status: 401 | 403, message, .. } => Error::Unauthorized {
            host: endpoint.name.clone(),
            problem: match message.is_empty() {
                true => "incorrect username or password".to_owned(),
                false => format!("incorrect username or password ({message})"),
            },
        },
        other => other.into_error(&endpoint.name, "log in"),
    })?;
    let stored = match config.put(endpoint.credentials_key(), &credentials)? {
        Some(helper) => Stored::Helper(helper),
        None => Stored::File(config.path().to_path_buf()),
    };
    Ok(LoginResult { message: "Login Succeeded".to_owned(), stored })
}

/// Removes the credentials of a registry. Returns Docker's line: `Removing login credentials for HOST` or
/// `Not logged in to HOST`.
///
/// # Errors
/// When the configuration or the helper cannot be used.
pub fn logout(server: &str, registries: &Registries) -> Result<String> {
    let endpoint = endpoint(server, registries)?;
    let key = endpoint.credentials_key();
    Ok(match DockerConfig::read(&registries.docker_config)?.erase(key)? {
        true => format!("Removing login credentials for {key}"),
        false => format!("Not logged in to {key}"),
    })
}

fn endpoint(server: &str, registries: &Registries) -> Result<Endpoint> {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let host = rest.split('/').next().unwrap_or(rest);
    let host = match host {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN,
        other => other,
    };
    let reads_as_host = Reference::parse(&format!("{host}/x")).is_ok_and(|reference| reference.domain() == host);
    match reads_as_host {
        true => Ok(Endpoint::of(host, registries)),
        // A bare word is a host here, though in a reference it would be a namespace.
        false if host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Ok(Endpoint::of(host, registries)),
        false => Err(Error::Registry {
            host: host.chars().take(200).flat_map(char::escape_debug).collect(),
            step: "log in".to_owned(),
            problem: "it is no registry's HOST or HOST:PORT".to_owned(),
        }),
    }
}
