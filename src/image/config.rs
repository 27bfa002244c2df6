//! The image configuration: what a container of the image starts from (OCI image-spec, config.md).
//!
//! Docker's extensions (`Healthcheck`, `OnBuild`, `Shell`, `ArgsEscaped`, `StopTimeout`) are part of the container
//! configuration of `sbx_sandbox`, which both formats deserialise to.

use sbx_sandbox::config::Config;
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// Longest configuration that is read: far above any real one, small enough to hold in memory.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// Most layers of one image. The kernel's overlay takes 500 lower directories.
pub const MAX_LAYERS: usize = 500;

/// An image configuration. Its digest is the image id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339; absent in reproducible images of some builders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub author: String,
    /// Docker's commit message.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub comment: String,
    /// Go's CPU name.
    #[serde(default)]
    pub architecture: String,
    /// Go's system name.
    #[serde(default)]
    pub os: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub variant: String,
    /// Windows only; kept.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// What a container of it is configured with.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: Config,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it was built, bottom first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub history: Vec<History>,
}

/// The layers of an image, as digests of their uncompressed tars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Bottom first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step of the build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub created_by: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub author: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub comment: String,
    /// The step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a configuration and checks what everything else relies on.
    ///
    /// # Errors
    /// Names `digest` and what is wrong.
    pub fn parse(bytes: &[u8], digest: Digest) -> Result<ImageConfig> {
        let subject = || format!("image configuration {digest}");
        let config: ImageConfig = serde_json::from_slice(bytes).map_err(|error| Error::document(subject(), error))?;
        if !matches!(config.rootfs.kind.as_str(), "layers" | "") {
            let kind: String = config.rootfs.kind.chars().take(40).collect();
            return Err(Error::document(subject(), format!("rootfs of type \"{kind}\" is not supported")));
        }
        if config.rootfs.diff_ids.len() > MAX_LAYERS {
            let problem = format!("{} layers, more than {MAX_LAYERS}", config.rootfs.diff_ids.len());
            return Err(Error::document(subject(), problem));
        }
        Ok(config)
    }

    /// Where the image runs.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
        }
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_extended_form_is_read_whole() {
        let layer = Digest::of(b"layer");
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","docker_version":"20.10",
            "container_config":{{"Cmd":null}},"config":{{"User":"1000:1000","Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,
            "WorkingDir":"/w","ExposedPorts":{{"80/tcp":{{}}}},"Volumes":{{"/data":{{}}}},"Labels":null,"OnBuild":null,
            "StopSignal":"SIGQUIT","Shell":["/bin/bash","-c"],"ArgsEscaped":true,
            "Healthcheck":{{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Retries":3}}}},
            "rootfs":{{"type":"layers","diff_ids":["{layer}"]}},
            "history":[{{"created":"2024-01-02T03:04:05Z","created_by":"COPY"}},{{"empty_layer":true}}]}}"#
        );
        let config = ImageConfig::parse(text.as_bytes(), layer).unwrap();
        assert_eq!(config.rootfs.diff_ids, [layer]);
        assert_eq!(config.config.stop_signal, "SIGQUIT");
        assert_eq!(config.config.shell, ["/bin/bash", "-c"]);
        assert!(config.config.args_escaped && config.history[1].empty_layer);
        assert_eq!(config.config.healthcheck.as_ref().unwrap().retries, 3);
        let again = serde_json::to_vec(&config).unwrap();
        assert_eq!(ImageConfig::parse(&again, layer).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_an_image_is_refused() {
        let id = Digest::of(b"");
        let many =
            format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, vec![format!("\"{id}\""); 501].join(","));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (bad, words) in [
            ("", "image configuration"),
            ("null", "image configuration"),
            ("{\"rootfs\":{\"type\":\"foo\"}}", "not supported"),
            ("{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:x\"]}}", "invalid digest"),
            (many.as_str(), "501 layers"),
            (deep.as_str(), "image configuration"),
        ] {
            let error = ImageConfig::parse(bad.as_bytes(), id).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        ImageConfig::parse(b"{}", id).unwrap();
    }
}
