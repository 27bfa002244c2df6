//! How registries are reached: addresses, mirrors, certificates, credentials. Everything is data here.

pub(crate) mod auth;
pub(crate) mod body;
mod certs;
mod challenge;
pub(crate) mod credentials;
pub(crate) mod failure;
pub(crate) mod host;
pub(crate) mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use failure::explain;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Registries {
    /// Hosts (`host` or `host:port`) that may be spoken to over plain HTTP or with an unverified certificate.
    /// Loopback needs no entry. Docker's `insecure-registries`.
    pub insecure: Vec<String>,
    /// Mirrors of docker.io, tried in order before it: `https://host[:port][/path]`. Docker's `registry-mirrors`.
    pub mirrors: Vec<String>,
    /// Mirrors of other registries, by their host.
    pub host_mirrors: BTreeMap<String, Vec<String>>,
    /// Directories with `HOST:PORT/{*.crt,*.cert,*.key}`; the first that has the host wins.
    pub cert_dirs: Vec<PathBuf>,
    /// Directory of Docker's `config.json`.
    pub docker_config: PathBuf,
    /// Longest time to connect, including the TLS handshake.
    pub connect_timeout: Duration,
    /// Longest silence of a registry, and the window in which a download must make some progress.
    pub read_timeout: Duration,
    /// Attempts for one request or blob that fail without any progress before giving up.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with each further one.
    pub first_retry: Duration,
}

impl Default for Registries {
    /// The system's directories, the user's Docker configuration, no mirrors, nothing insecure.
    fn default() -> Registries {
        let docker_config = docker_config_dir();
        let mut cert_dirs: Vec<PathBuf> =
            ["/etc/sbx/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from).to_vec();
        cert_dirs.insert(0, docker_config.join("certs.d"));
        Registries {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            host_mirrors: BTreeMap::new(),
            cert_dirs,
            docker_config,
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            attempts: 5,
            first_retry: Duration::from_secs(1),
        }
    }
}

/// `$DOCKER_CONFIG`, else `~/.docker`.
fn docker_config_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").unwrap_or_else(|| {
        let home = set("HOME")
            .or_else(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.dir));
        home.unwrap_or_else(|| PathBuf::from("/")).join(".docker")
    })
}
