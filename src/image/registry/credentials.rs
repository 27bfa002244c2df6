//! Docker's client configuration: `auths`, `credsStore`, `credHelpers`, and the credential helper protocol.
//!
//! The file belongs to Docker as much as to us: what we do not know in it stays, it is replaced atomically and readable
//! by its owner only.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::host::DOCKER_HUB_KEY;
use crate::error::{Error, Result};

/// The user name with which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Longest answer of a helper.
const MAX_ANSWER: u64 = 1 << 20;

/// How a user is known to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// Exchanged for access tokens at the registry's token service.
    IdentityToken(String),
    /// Sent as it is.
    RegistryToken(String),
}

/// Docker's `config.json`.
pub(crate) struct DockerConfig {
    path: PathBuf,
    content: Map<String, Value>,
}

impl DockerConfig {
    /// Reads `config.json` of a directory; a missing one is empty.
    pub(crate) fn read(dir: &Path) -> Result<DockerConfig> {
        let path = dir.join("config.json");
        let fail = |problem: String| Error::Credentials { subject: path.display().to_string(), problem };
        let bytes = match std::fs::read(&path) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Vec::new()
            }
            Err(error) => return Err(fail(format!("cannot read it: {error}"))),
            Ok(bytes) => bytes,
        };
        let content = match bytes.iter().all(u8::is_ascii_whitespace) {
            true => Map::new(),
            false => serde_json::from_slice(&bytes).map_err(|error| fail(format!("not valid JSON: {error}")))?,
        };
        Ok(DockerConfig { path, content })
    }

    /// The credentials for a registry, if there are any.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper(key)? {
            let found = helper.get(key)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let entry = auths.get(key).or_else(|| {
            let mut same = auths.iter().filter(|(other, _)| host_of(other) == host_of(key));
            same.next().map(|(_, entry)| entry)
        });
        entry.map_or(Ok(None), |entry| self.decode(key, entry))
    }

    /// Stores credentials; returns the helper's name if one has taken them.
    pub(crate) fn put(&mut self, key: &str, credentials: &Credentials) -> Result<Option<String>> {
        let (username, secret) = match credentials {
            Credentials::Password { username, password } => (username.as_str(), password.as_str()),
            Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => (TOKEN_USER, token.as_str()),
        };
        if let Some(helper) = self.helper(key)? {
            helper.store(key, username, secret)?;
            // Docker leaves an empty entry, by which it knows where it is logged in.
            self.set(key, Some(json!({})))?;
            return Ok(Some(helper.name));
        }
        let entry = match credentials {
            Credentials::Password { .. } => {
                json!({ "auth": STANDARD.encode(format!("{username}:{secret}")) })
            }
            Credentials::IdentityToken(token) => json!({ "identitytoken": token }),
            Credentials::RegistryToken(token) => json!({ "registrytoken": token }),
        };
        self.set(key, Some(entry))?;
        Ok(None)
    }

    /// Forgets credentials; false when there were none.
    pub(crate) fn erase(&mut self, key: &str) -> Result<bool> {
        let mut found = false;
        if let Some(helper) = self.helper(key)? {
            found = helper.get(key)?.is_some();
            if found {
                helper.erase(key)?;
            }
        }
        let known: Vec<String> = self
            .content
            .get("auths")
            .and_then(Value::as_object)
            .map(|auths| auths.keys().filter(|other| host_of(other) == host_of(key)).cloned().collect())
            .unwrap_or_default();
        for other in &known {
            self.set(other, None)?;
        }
        Ok(found || !known.is_empty())
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn helper(&self, key: &str) -> Result<Option<Helper>> {
        let text = |value: &Value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        let helpers = self.content.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| helpers.get(key).or_else(|| helpers.get(host_of(key))).and_then(text));
        let Some(name) = own.or_else(|| self.content.get("credsStore").and_then(text)) else {
            return Ok(None);
        };
        // The name becomes part of a program's name: it may not lead out of $PATH.
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(self.fail(format!("\"{}\" is no name of a credential helper", name.escape_debug())));
        }
        Ok(Some(Helper { name }))
    }

    fn decode(&self, key: &str, entry: &Value) -> Result<Option<Credentials>> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Entry {
            auth: String,
            username: String,
            password: String,
            identitytoken: String,
            registrytoken: String,
        }
        let entry: Entry = serde_json::from_value(entry.clone())
            .map_err(|error| self.fail(format!("entry \"{key}\" of \"auths\": {error}")))?;
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(entry.identitytoken)));
        }
        if !entry.registrytoken.is_empty() {
            return Ok(Some(Credentials::RegistryToken(entry.registrytoken)));
        }
        if !entry.auth.is_empty() {
            let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let (username, password) = decoded.as_deref().and_then(|text| text.split_once(':')).ok_or_else(|| {
                self.fail(format!("entry \"{key}\" of \"auths\": \"auth\" is not base64 of user:password"))
            })?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials::Password { username: username.to_owned(), password }));
        }
        if entry.username.is_empty() && entry.password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credentials::Password { username: entry.username, password: entry.password }))
    }

    /// Replaces or removes an entry of `auths` in the file as it is now: another process may have changed it.
    fn set(&mut self, key: &str, entry: Option<Value>) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let failed = |error: std::io::Error| Error::Credentials {
            subject: self.path.display().to_string(),
            problem: format!("cannot write it: {error}"),
        };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let lock = std::fs::File::open(&dir).and_then(|dir| dir.lock().map(|()| dir)).map_err(failed)?;
        let mut content = DockerConfig::read(&dir)?.content;
        let auths = content.entry("auths").or_insert_with(|| json!({}));
        let Some(auths) = auths.as_object_mut() else {
            return Err(self.fail("\"auths\" is not an object".to_owned()));
        };
        match entry {
            Some(entry) => auths.insert(key.to_owned(), entry),
            None => auths.remove(key),
        };
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        content
            .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
            .map_err(|error| self.fail(error.to_string()))?;
        // A link to the file elsewhere (a home kept in version control) stays a link.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        crate::store::replace_file(&target, &text).map_err(failed)?;
        drop(lock);
        self.content = content;
        Ok(())
    }

    fn fail(&self, problem: String) -> Error {
        Error::Credentials { subject: self.path.display().to_string(), problem }
    }
}

/// `https://host/v1/` → `host`. docker.io has several spellings.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "docker.io" | "registry-1.docker.io" => host_of(DOCKER_HUB_KEY),
        other => other,
    }
}

/// A program `docker-credential-NAME`. Its protocol: verb as argument, question on stdin, answer on stdout.
struct Helper {
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperEntry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    username: String,
    secret: String,
}

impl Helper {
    fn get(&self, key: &str) -> Result<Option<Credentials>> {
        let Some(answer) = self.run("get", key.as_bytes())? else {
            return Ok(None);
        };
        let entry: HelperEntry =
            serde_json::from_slice(&answer).map_err(|error| self.fail("get", &format!("bad answer: {error}")))?;
        if entry.username.is_empty() && entry.secret.is_empty() {
            return Ok(None);
        }
        Ok(Some(match entry.username.as_str() {
            TOKEN_USER => Credentials::IdentityToken(entry.secret),
            _ => Credentials::Password { username: entry.username, password: entry.secret },
        }))
    }

    fn store(&self, key: &str, username: &str, secret: &str) -> Result<()> {
        let entry =
            HelperEntry { server_url: key.to_owned(), username: username.to_owned(), secret: secret.to_owned() };
        let question = serde_json::to_vec(&entry).map_err(|error| self.fail("store", &error.to_string()))?;
        self.run("store", &question)?.map(|_| ()).ok_or_else(|| self.fail("store", "credentials not found"))
    }

    fn erase(&self, key: &str) -> Result<()> {
        self.run("erase", key.as_bytes()).map(|_| ())
    }

    /// Runs the helper; `None` when it says that it has no such credentials.
    fn run(&self, verb: &str, question: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut child = Command::new(format!("docker-credential-{}", self.name))
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| self.fail(verb, &error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its question answers with its exit status.
            let _ = stdin.write_all(question);
        }
        let mut answer = Vec::new();
        let read = match child.stdout.take() {
            Some(stdout) => stdout.take(MAX_ANSWER).read_to_end(&mut answer).map(|_| ()),
            None => Ok(()),
        };
        let status = child.wait().map_err(|error| self.fail(verb, &error.to_string()))?;
        read.map_err(|error| self.fail(verb, &error.to_string()))?;
        if status.success() {
            return Ok(Some(answer));
        }
        let said = String::from_utf8_lossy(&answer).trim().to_owned();
        if said.contains("credentials not found in native keychain") {
            return Ok(None);
        }
        let said: String = said.chars().take(300).flat_map(char::escape_debug).collect();
        Err(self.fail(verb, &format!("{status}: {said}")))
    }

    fn fail(&self, verb: &str, problem: &str) -> Error {
        Error::Credentials {
            subject: format!("credential helper docker-credential-{} {verb}", self.name),
            problem: problem.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let config = DockerConfig::read(dir.path()).unwrap();
        (dir, config)
    }

    fn password(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { username: username.into(), password: password.into() })
    }

    #[test]
    fn entries_are_found_by_any_spelling_of_their_host() {
        let (_dir, config) = config(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"Ym9iOnM6ZWNyZXQ="},"https://reg.test:5000":{"username":"u","password":"p"},
            "tok.test":{"auth":"","identitytoken":"id"},"raw.test":{"registrytoken":"r"},"empty.test":{}}}"#,
        );
        assert!(config.get(DOCKER_HUB_KEY).unwrap() == password("bob", "s:ecret"));
        assert!(config.get("docker.io").unwrap() == password("bob", "s:ecret"));
        assert!(config.get("reg.test:5000").unwrap() == password("u", "p"));
        assert!(config.get("tok.test").unwrap() == Some(Credentials::IdentityToken("id".into())));
        assert!(config.get("raw.test").unwrap() == Some(Credentials::RegistryToken("r".into())));
        for none in ["reg.test", "empty.test", "other.test"] {
            assert!(config.get(none).unwrap().is_none(), "{none}");
        }
    }

    #[test]
    fn storing_keeps_what_it_does_not_know_and_is_private() {
        let (dir, mut config) =
            config(r#"{"detachKeys":"ctrl-x","auths":{"a.test":{"auth":"eDp5","email":"e"}},"x":{"y":[1]}}"#);
        let stored = config.put("b.test", &password("u", "p").unwrap()).unwrap();
        assert_eq!(stored, None);
        let path = dir.path().join("config.json");
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(value["detachKeys"], "ctrl-x");
        assert_eq!(value["x"]["y"][0], 1);
        assert_eq!(value["auths"]["a.test"]["email"], "e");
        assert_eq!(value["auths"]["b.test"]["auth"], "dTpw");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(config.erase("b.test").unwrap());
        assert!(!config.erase("b.test").unwrap());
        assert!(DockerConfig::read(dir.path()).unwrap().get("a.test").unwrap() == password("x", "y"));
    }

    #[test]
    fn a_broken_file_is_named() {
        for (text, words) in [
            ("{", "not valid JSON"),
            ("[]", "not valid JSON"),
            (r#"{"auths":{"a.test":{"auth":"!!"}}}"#, "not base64"),
            (r#"{"auths":{"a.test":{"auth":5}}}"#, "a.test"),
            (r#"{"credsStore":"../../bin/sh"}"#, "credential helper"),
            (r#"{"credsStore":"surely-not-installed"}"#, "docker-credential-surely-not-installed"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            let read = DockerConfig::read(dir.path()).and_then(|config| config.get("a.test"));
            let error = read.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
