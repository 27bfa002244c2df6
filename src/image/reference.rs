//! Image references: `alpine`, `host:5000/team/app:1.2`, `name@sha256:…`.
//!
//! The grammar and its normalisation are those of the `distribution/reference` package, which Docker uses: a name
//! without a domain belongs to docker.io, one without a namespace to `library/`, one without tag and digest is `latest`.
//! A `Reference` is always in that full form; `familiar` gives the short form back for display.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The registry of names that do not say one.
pub const DEFAULT_DOMAIN: &str = "docker.io";

const OFFICIAL: &str = "library/";
/// `distribution/reference`: RepositoryNameTotalLengthMax.
const MAX_PATH: usize = 255;
/// Not in the grammar: DNS's own limit, so that a name can be a file or directory name everywhere.
const MAX_DOMAIN: usize = 255;
const MAX_TAG: usize = 128;

/// A full reference: domain, path, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads what a user types.
    ///
    /// # Errors
    /// `invalid reference format`, with the rule that is broken.
    pub fn parse(text: &str) -> Result<Reference> {
        let fail = |reason| Error::Reference { text: text.chars().take(300).collect(), reason };
        if text.is_empty() {
            return Err(fail("repository name must have at least one component"));
        }
        if text.len() > MAX_DOMAIN + MAX_PATH + MAX_TAG + 80 {
            return Err(fail("reference is too long"));
        }
        if Digest::from_hex(text).is_some() {
            return Err(fail("cannot specify 64-byte hexadecimal strings as a repository name"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let digest = digest
            .map(|given| {
                given.parse::<Digest>().map_err(|error| match error {
                    Error::Digest { reason, .. } => fail(reason),
                    other => other,
                })
            })
            .transpose()?;
        let (domain, remainder) = split_domain(name);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if path.is_empty() {
            return Err(fail("repository name must have at least one component"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail("repository name must be lowercase"));
        }
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("{OFFICIAL}{path}"),
            false => path.to_owned(),
        };
        if path.len() > MAX_PATH {
            return Err(fail("repository name must not be more than 255 characters"));
        }
        if domain.len() > MAX_DOMAIN || !is_domain(domain) || !path.split('/').all(is_component) {
            return Err(fail(""));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("invalid tag"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// The registry's host, with its port if one was given: `docker.io`, `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Domain and path in full: `docker.io/library/alpine`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Domain and path as a user would type them: `alpine`.
    pub fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.path,
        };
        // `docker.io/localhost/x` would read back as a host; it keeps its domain.
        match split_domain(short).0 == DEFAULT_DOMAIN && Digest::from_hex(short).is_none() {
            true => short.to_owned(),
            false => self.repository(),
        }
    }

    /// The whole reference as a user would type it: `alpine:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    /// The same repository with exactly this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository with exactly this tag and no digest.
    ///
    /// # Errors
    /// When the tag breaks the grammar.
    pub fn with_tag(&self, tag: &str) -> Result<Reference> {
        if !is_tag(tag) {
            return Err(Error::Reference { text: tag.chars().take(300).collect(), reason: "invalid tag" });
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Whether both name the same repository.
    pub fn same_repository(&self, other: &Reference) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

/// Domain and the rest. The first component is a domain when it looks like a host: it has a dot, a colon or an upper
/// case letter, or is `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_DOMAIN, name);
    };
    let is_host = first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase());
    match first {
        "index.docker.io" => (DEFAULT_DOMAIN, rest),
        host if is_host => (host, rest),
        _ => (DEFAULT_DOMAIN, name),
    }
}

/// `host[:port]`; a host is a domain name, an IPv4 address or an IPv6 address in brackets.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, tail)) => {
                let v6 = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                if !v6 {
                    return false;
                }
                return match tail.strip_prefix(':') {
                    Some(port) => is_port(port),
                    None => tail.is_empty(),
                };
            }
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    }) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes
            .split(|&b| alphanumeric(b))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    matches!(bytes.len(), 1..=MAX_TAG) && word(bytes[0]) && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Reference::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        let at = format!("alpine@{DIGEST}");
        let both = format!("alpine:3.20@{DIGEST}");
        let full_at = format!("docker.io/library/alpine@{DIGEST}");
        let full_both = format!("docker.io/library/alpine:3.20@{DIGEST}");
        for (given, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("a/b/c", "docker.io/a/b/c:latest", "a/b/c:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("Upper/app", "Upper/app:latest", "Upper/app:latest"),
            ("app.example/x__y/z---w:A_b.c-D", "app.example/x__y/z---w:A_b.c-D", "app.example/x__y/z---w:A_b.c-D"),
            ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
            (&at, &full_at, &at),
            (&both, &full_both, &both),
        ] {
            let reference = Reference::parse(given).unwrap();
            assert_eq!(reference.to_string(), full, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
            assert_eq!(Reference::parse(full).unwrap(), reference, "{given}");
            assert_eq!(Reference::parse(familiar).unwrap(), reference, "{given}");
        }
    }

    #[test]
    fn broken_names_are_refused_in_dockers_words() {
        let long_path = "a/".repeat(128) + "b";
        let long_tag = format!("a:{}", "t".repeat(129));
        let hex = "a".repeat(64);
        for (bad, words) in [
            ("", "at least one component"),
            ("Alpine", "repository name must be lowercase"),
            ("user/App:1", "repository name must be lowercase"),
            (":tag", "at least one component"),
            ("alpine:", "invalid tag"),
            ("alpine:-x", "invalid tag"),
            ("alpine:a b", "invalid tag"),
            (&long_tag, "invalid tag"),
            (&long_path, "more than 255"),
            (&hex, "64-byte hexadecimal"),
            ("alpine@sha256:abc", "invalid digest length"),
            ("alpine@sha512:abc", "unsupported digest algorithm"),
            ("alpine@", "invalid digest format"),
            ("../etc", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a/", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a._b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a-", "invalid reference format"),
            ("host.:5000/a", "invalid reference format"),
            ("-host.x/a", "invalid reference format"),
            ("host:port/a", "invalid reference format"),
            ("host:99999/a", "invalid reference format"),
            ("[::1/a", "invalid reference format"),
            ("[]/a", "invalid reference format"),
            ("http://host/a", "invalid reference format"),
            ("über/a", "invalid reference format"),
            ("a\nb", "invalid reference format"),
            ("a\0", "invalid reference format"),
        ] {
            let error = Reference::parse(bad).expect_err(bad).to_string();
            assert!(error.contains("invalid reference format") && error.contains(words), "{bad:?}: {error}");
        }
    }

    #[test]
    fn tag_and_digest_replace_each_other() {
        let reference = Reference::parse("host:1/app:v1").unwrap();
        let digest = Digest::of(b"x");
        assert_eq!(reference.with_digest(digest).familiar(), format!("host:1/app@{digest}"));
        assert_eq!(reference.with_tag("v2").unwrap().familiar(), "host:1/app:v2");
        assert!(reference.with_tag("a/b").is_err());
        let text = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_reads_back(text in "[a-zA-Z0-9:/@._\\[\\]-]{0,40}|\\PC{0,20}") {
            if let Ok(reference) = Reference::parse(&text) {
                proptest::prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                proptest::prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
