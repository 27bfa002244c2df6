//! Manifests and indexes: which documents are accepted, and what they say.
//!
//! A document is read once, by the type that its transport declared, and refused when it could be read as another one:
//! with both `manifests` and `layers` (CVE-2021-41190), or with a `mediaType` of its own that differs. OCI image-spec
//! manifest.md and image-index.md; Docker's image manifest v2 schema 2.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::config::MAX_LAYERS;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// Longest manifest or index: what registries themselves limit it to (distribution-spec, "Pushing Manifests").
pub(crate) const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Most entries of an index.
const MAX_ENTRIES: usize = 4096;

/// The media types that are understood.
pub mod media_type {
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// What is asked of a registry, in order of preference.
pub(crate) const ACCEPT: [&str; 4] =
    [media_type::OCI_INDEX, media_type::DOCKER_LIST, media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST];

/// A reference to content (OCI image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor without annotations and platform.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
    }
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// Bottom first.
    #[serde(deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// Free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// Several manifests, by platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The entries.
    #[serde(deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// A document that a reference can lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// Which members a document has, whatever their type. Repeated members are an error of the derive.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads `bytes` as the `declared` type. `subject` names the document in errors.
    pub(crate) fn parse(bytes: &[u8], declared: &str, subject: &str) -> Result<Document> {
        let fail = |problem: String| Error::document(subject, problem);
        if bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(fail(format!("{} bytes long, more than {MAX_MANIFEST_SIZE}", bytes.len())));
        }
        let declared = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if is_schema1(&declared) {
            return Err(fail(SCHEMA1.to_owned()));
        }
        if !ACCEPT.contains(&declared.as_str()) {
            return Err(fail(format!("not an image manifest but \"{}\"", clip(&declared))));
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|error| fail(format!("not valid JSON: {error}")))?;
        if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
            return Err(fail(SCHEMA1.to_owned()));
        }
        if shape.schema_version != Some(2) {
            return Err(fail("schemaVersion is not 2".to_owned()));
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(fail("ambiguous: it has both \"manifests\" and \"layers\" or \"config\"".to_owned()));
        }
        if let Some(own) = shape.media_type.filter(|own| !own.is_empty() && !own.eq_ignore_ascii_case(&declared)) {
            return Err(fail(format!("its mediaType \"{}\" is not the declared type \"{declared}\"", clip(&own))));
        }
        let document = if matches!(declared.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST) {
            Document::Index(serde_json::from_slice(bytes).map_err(|error| fail(error.to_string()))?)
        } else {
            Document::Manifest(serde_json::from_slice(bytes).map_err(|error| fail(error.to_string()))?)
        };
        document.check().map_err(fail)?;
        Ok(document)
    }

    fn check(&self) -> std::result::Result<(), String> {
        match self {
            Document::Index(index) if index.manifests.len() > MAX_ENTRIES => {
                Err(format!("{} entries, more than {MAX_ENTRIES}", index.manifests.len()))
            }
            Document::Index(_) => Ok(()),
            Document::Manifest(manifest) => manifest.check(),
        }
    }
}

impl Manifest {
    /// An OCI manifest of these parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.layers.len() > MAX_LAYERS {
            return Err(format!("{} layers, more than {MAX_LAYERS}", self.layers.len()));
        }
        if !matches!(self.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Err(format!("not a container image: its config is \"{}\"", clip(&self.config.media_type)));
        }
        self.layers.iter().try_for_each(check_layer)
    }
}

impl Index {
    /// The entry for `wanted`; of several that fit equally the first.
    pub(crate) fn select(&self, wanted: &Platform, reference: &str) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| ACCEPT.contains(&entry.media_type.as_str()));
        let best = images()
            .filter_map(|entry| Some((wanted.distance(entry.platform.as_ref()?)?, entry)))
            .min_by_key(|&(distance, _)| distance);
        if let Some((_, entry)) = best {
            return Ok(entry);
        }
        // Nested indexes and single images need not say a platform; the image itself will.
        let mut unsaid = images().filter(|entry| entry.platform.is_none());
        if let (Some(entry), None) = (unsaid.next(), unsaid.next()) {
            return Ok(entry);
        }
        let mut available: Vec<String> = images()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| !platform.is_unknown())
            .map(|platform| platform.normalised().to_string())
            .collect();
        available.dedup();
        Err(Error::NoMatchingPlatform { reference: reference.to_owned(), wanted: wanted.to_string(), available })
    }
}

/// Refuses layers that cannot be a part of an image here.
fn check_layer(layer: &Descriptor) -> std::result::Result<(), String> {
    let kind = layer.media_type.as_str();
    if kind.contains(".foreign.") || kind.contains("nondistributable") {
        return Err(format!("layer {} is a foreign (nondistributable) layer; these are not supported", layer.digest));
    }
    if kind.contains("encrypted") {
        return Err(format!("layer {} is encrypted; these are not supported", layer.digest));
    }
    let known = [
        media_type::OCI_LAYER,
        media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD,
    ];
    if !known.contains(&kind) {
        return Err(format!("layer {} is of the unsupported type \"{}\"", layer.digest, clip(kind)));
    }
    Ok(())
}

const SCHEMA1: &str =
    "Docker image manifest version 2, schema 1, which is no longer supported; push the image again with a newer tool";

fn is_schema1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

fn clip(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{}","size":3}}"#, Digest::of(b"abc"))
    }

    fn manifest(kind: &str, layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}]}}"#,
            descriptor(media_type::OCI_CONFIG),
            descriptor(layer)
        )
    }

    #[test]
    fn the_four_types_are_read() {
        for kind in [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST] {
            let text = manifest(kind, media_type::OCI_LAYER_ZSTD);
            let Document::Manifest(read) = Document::parse(text.as_bytes(), kind, "x").unwrap() else { panic!() };
            assert_eq!(read.layers[0].size, 3);
        }
        for kind in [media_type::OCI_INDEX, media_type::DOCKER_LIST] {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(media_type::OCI_MANIFEST));
            let with_charset = format!("{kind}; charset=utf-8");
            assert!(matches!(Document::parse(text.as_bytes(), &with_charset, "x"), Ok(Document::Index(_))));
        }
    }

    #[test]
    fn documents_of_two_readings_are_refused() {
        let oci = media_type::OCI_MANIFEST;
        let plain = manifest(oci, media_type::OCI_LAYER);
        let both = plain.replace("\"layers\"", "\"manifests\":[],\"layers\"");
        let twice = plain.replace("\"layers\"", "\"layers\":[],\"layers\"");
        let one = plain.replace("\"schemaVersion\":2", "\"schemaVersion\":1");
        let negative = plain.replace("\"size\":3", "\"size\":-3");
        let deep = plain.replace("\"layers\"", &format!("\"x\":{}{},\"layers\"", "[".repeat(9999), "]".repeat(9999)));
        let huge = format!("{}{}", plain, " ".repeat(4 << 20));
        for (text, declared, words) in [
            (both.as_str(), oci, "ambiguous"),
            (&twice, oci, "duplicate"),
            (&one, oci, "schema 1"),
            (&plain, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
            (&plain, media_type::DOCKER_MANIFEST, "is not the declared type"),
            (&plain, media_type::OCI_INDEX, "is not the declared type"),
            (&plain, "text/html", "not an image manifest"),
            (&plain, "", "not an image manifest"),
            (&negative, oci, "invalid value"),
            (&huge, oci, "more than 4194304"),
            ("<html>", oci, "not valid JSON"),
        ] {
            let error = Document::parse(text.as_bytes(), declared, "manifest x").unwrap_err().to_string();
            assert!(error.starts_with("manifest x: ") && error.contains(words), "{words}: {error}");
        }
        // Unknown members are skipped without recursion.
        Document::parse(deep.as_bytes(), oci, "x").unwrap();
    }

    #[test]
    fn layers_that_cannot_be_used_are_refused_by_name() {
        for (kind, words) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "nondistributable"),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
            ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "unsupported type"),
        ] {
            let text = manifest(media_type::OCI_MANIFEST, kind);
            let error = Document::parse(text.as_bytes(), media_type::OCI_MANIFEST, "x").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let text = manifest(media_type::OCI_MANIFEST, media_type::OCI_LAYER)
            .replace(media_type::OCI_CONFIG, "application/vnd.oci.empty.v1+json");
        let error = Document::parse(text.as_bytes(), media_type::OCI_MANIFEST, "x").unwrap_err().to_string();
        assert!(error.contains("not a container image"), "{error}");
    }

    #[test]
    fn the_best_platform_wins_and_a_missing_one_is_listed() {
        let entry = |name: &str, platform: Option<&str>| Descriptor {
            platform: platform.map(|text| match text {
                "unknown/unknown" => {
                    Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() }
                }
                text => text.parse().unwrap(),
            }),
            ..Descriptor::of(media_type::OCI_MANIFEST, name.as_bytes())
        };
        let index = Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: vec![
                entry("att", Some("unknown/unknown")),
                entry("v6", Some("linux/arm/v6")),
                entry("v7", Some("linux/arm/v7")),
                entry("amd", Some("linux/amd64")),
            ],
            annotations: BTreeMap::new(),
        };
        let pick = |platform: &str| index.select(&platform.parse().unwrap(), "app:1").map(|entry| entry.digest);
        assert_eq!(pick("linux/arm/v7").unwrap(), Digest::of(b"v7"));
        assert_eq!(pick("linux/arm/v6").unwrap(), Digest::of(b"v6"));
        assert_eq!(pick("linux/amd64").unwrap(), Digest::of(b"amd"));
        let error = pick("linux/arm64").unwrap_err().to_string();
        assert_eq!(
            error,
            "no matching manifest for linux/arm64 in the manifest list entries: app:1 has linux/arm/v6, linux/arm/v7, linux/amd64"
        );
    }
}
