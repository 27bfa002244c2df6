//! `--network`: which of Docker's predefined networks, or whose.

use std::str::FromStr;

use crate::Error;

/// Where a container's network comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// The default bridge network: `bridge`, `default`, or nothing said.
    Bridge,
    /// A network namespace with a loopback interface only.
    None,
    /// The host's own network namespace.
    Host,
    /// The network namespace of another container, by name or id.
    Container(String),
}

impl FromStr for NetworkMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<NetworkMode, Error> {
        match text {
            "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
            "none" => Ok(NetworkMode::None),
            "host" => Ok(NetworkMode::Host),
            other => match other.strip_prefix("container:") {
                Some("") => Err(Error::Invalid("invalid container format container:<name|id>".into())),
                Some(name) => Ok(NetworkMode::Container(name.into())),
                None => Err(Error::Invalid(format!("network {other} not found"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_mode() {
        for (text, mode) in [
            ("", NetworkMode::Bridge),
            ("default", NetworkMode::Bridge),
            ("bridge", NetworkMode::Bridge),
            ("none", NetworkMode::None),
            ("host", NetworkMode::Host),
            ("container:web", NetworkMode::Container("web".into())),
        ] {
            assert_eq!(text.parse::<NetworkMode>().unwrap(), mode);
        }
    }

    #[test]
    fn refuses_by_name() {
        assert_eq!("front".parse::<NetworkMode>().unwrap_err().to_string(), "network front not found");
        assert!("container:".parse::<NetworkMode>().is_err());
    }
}
