//! `certs.d`: private authorities and client certificates per registry host, and the HTTP clients made of them.
//!
//! Layout as Docker documents it: `HOST[:PORT]/*.crt` are authorities, `X.cert` with `X.key` is a client certificate.

use std::path::{Path, PathBuf};
use std::sync::Once;

use reqwest::{Certificate, Client, Identity, redirect};

use super::Registries;
use super::host::{Transport, is_loopback};
use crate::error::{Error, Result, at};

/// What identifies us to registries.
const USER_AGENT: &str = concat!("sbx/", env!("CARGO_PKG_VERSION"));

impl Registries {
    /// The directory with the certificates of `host` (with port, as in references), if there is one.
    pub(crate) fn cert_dir(&self, host: &str) -> Option<PathBuf> {
        self.cert_dirs.iter().map(|dir| dir.join(host)).find(|dir| dir.is_dir())
    }

    /// A client for one host.
    pub(crate) fn client(&self, host: &str, transport: Transport) -> Result<Client> {
        // rustls asks for one provider per process; another part of the program may have chosen already.
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            // One connection per download: a single one's flow control would tie three layers together.
            .http1_only();
        if is_loopback(host) {
            builder = builder.no_proxy();
        }
        builder = match transport {
            Transport::Http => builder.tls_certs_only([]),
            Transport::HttpsUnverified => builder.tls_danger_accept_invalid_certs(true),
            Transport::Https => match self.cert_dir(host) {
                None => builder,
                Some(dir) => {
                    let certs = HostCerts::read(&dir)?;
                    builder = builder.tls_certs_merge(certs.authorities);
                    match certs.identity {
                        Some(identity) => builder.identity(identity),
                        None => builder,
                    }
                }
            },
        };
        builder.build().map_err(|error| Error::Registry {
            host: host.to_owned(),
            step: "prepare TLS".to_owned(),
            problem: super::explain(&error),
        })
    }
}

struct HostCerts {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl HostCerts {
    fn read(dir: &Path) -> Result<HostCerts> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(at("list", dir))? {
            files.push(entry.map_err(at("list", dir))?.path());
        }
        files.sort();
        let mut certs = HostCerts { authorities: Vec::new(), identity: None };
        for path in files {
            let extension = path.extension().and_then(|text| text.to_str()).unwrap_or_default();
            match extension {
                "crt" => {
                    let bytes = std::fs::read(&path).map_err(at("read", &path))?;
                    let read = Certificate::from_pem_bundle(&bytes)
                        .map_err(|error| unusable(&path, &super::explain(&error)))?;
                    if read.is_empty() {
                        return Err(unusable(&path, "no PEM certificate in it"));
                    }
                    certs.authorities.extend(read);
                }
                "cert" => {
                    let key = path.with_extension("key");
                    let mut pem = std::fs::read(&path).map_err(at("read", &path))?;
                    if !key.is_file() {
                        return Err(unusable(&path, &format!("missing key {} for it", key.display())));
                    }
                    pem.push(b'\n');
                    pem.extend(std::fs::read(&key).map_err(at("read", &key))?);
                    let read = Identity::from_pem(&pem).map_err(|error| unusable(&path, &super::explain(&error)))?;
                    certs.identity.get_or_insert(read);
                }
                "key" if !path.with_extension("cert").is_file() => {
                    return Err(unusable(&path, "missing client certificate (.cert) for it"));
                }
                _ => {}
            }
        }
        Ok(certs)
    }
}

fn unusable(path: &Path, problem: &str) -> Error {
    Error::Credentials { subject: path.display().to_string(), problem: problem.to_owned() }
}
