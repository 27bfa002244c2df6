//! Operating system, architecture and variant: parsing, Docker's aliases, and which entry of an index fits.
//!
//! A variant is compatible downwards (arm v7 runs v6, amd64 v3 runs v2); another architecture never is. containerd
//! would also take 386 for amd64 and arm for arm64: a silent change of architecture is not offered here, `--platform`
//! asks for it by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A platform in normal form, or as found in an index (OCI image-spec, image-index.md, "platform").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Go's CPU name: `amd64`, `arm64`, ….
    pub architecture: String,
    /// Go's system name: `linux`.
    pub os: String,
    /// `v7` and the like; empty is the architecture's default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows only; kept.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        Platform { os: "linux".to_owned(), architecture: std::env::consts::ARCH.to_owned(), ..Platform::default() }
            .normalised()
    }

    /// The same platform under its canonical names (containerd's platforms package, `normalizeArch`).
    pub fn normalised(&self) -> Platform {
        let os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let given = self.variant.to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), given.as_str()) {
            ("i386" | "i686" | "x86", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("powerpc64le", other) => ("ppc64le", other),
            (arch, other) => (arch, other),
        };
        Platform {
            os,
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os_version: self.os_version.clone(),
        }
    }

    /// Whether an image for `image` serves who asked for `self` by name. An image that does not say its architecture is
    /// taken at its word: it may be anything.
    pub fn is_served_by(&self, image: &Platform) -> bool {
        image.architecture.is_empty() || self.distance(image).is_some()
    }

    /// How well `candidate` serves `self`: `None` not at all, else lower is better.
    pub(crate) fn distance(&self, candidate: &Platform) -> Option<u32> {
        let (want, have) = (self.normalised(), candidate.normalised());
        if want.os != have.os || want.architecture != have.architecture {
            return None;
        }
        let (want, have) = (level(&want)?, level(&have)?);
        want.checked_sub(have)
    }

    /// Whether an index entry is no image at all (`unknown/unknown` marks build attestations).
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

/// A variant as a number that grows with what it can run; `None` for a variant that is not understood.
fn level(platform: &Platform) -> Option<u32> {
    let variant = match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("amd64", "") => "v1",
        ("arm64", "") => "v8",
        (_, "") => "v0",
        (_, other) => other,
    };
    let (major, minor) = variant.strip_prefix('v')?.split_once('.').unwrap_or((&variant[1..], "0"));
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 1000 && minor < 1000).then_some(major * 1000 + minor)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/arch[/variant]`, `os` or `arch`, as `--platform` takes it.
    fn from_str(text: &str) -> Result<Platform> {
        let fail = |reason| Error::Platform { text: text.chars().take(80).collect(), reason };
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            if part.is_empty() {
                return Err(fail("a component is empty"));
            }
            if !part.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                return Err(fail("a component does not begin with a letter or digit"));
            }
            if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
                return Err(fail("a component has a character other than letters, digits, '_', '.' and '-'"));
            }
        }
        let host = Platform::host();
        let make = |os: &str, architecture: &str, variant: &str| {
            Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.to_owned(),
                os_version: String::new(),
            }
            .normalised()
        };
        match parts[..] {
            [os] if KNOWN_OS.contains(&os.to_ascii_lowercase().as_str()) => {
                Ok(make(os, &host.architecture, &host.variant))
            }
            [arch] if KNOWN_ARCH.contains(&make("linux", arch, "").architecture.as_str()) => {
                Ok(make("linux", arch, ""))
            }
            [_] => Err(fail("unknown operating system or architecture")),
            [os, arch] => Ok(make(os, arch, "")),
            [os, arch, variant] => Ok(make(os, arch, variant)),
            _ => Err(fail("too many components")),
        }
    }
}

const KNOWN_OS: [&str; 12] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];

const KNOWN_ARCH: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn aliases_become_go_names() {
        for (given, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/ARM64", "linux/arm64"),
            ("i386", "linux/386"),
        ] {
            assert_eq!(platform(given).to_string(), want, "{given}");
        }
        assert_eq!(platform("linux"), Platform::host());
    }

    #[test]
    fn malformed_platforms_are_refused_by_name() {
        for bad in ["", "/", "linux/", "/amd64", "linux/amd64/v1/x", "pdp11", "linux/am d64", "linux/../x"] {
            let error = bad.parse::<Platform>().unwrap_err().to_string();
            assert!(error.contains("invalid platform"), "{error}");
        }
    }

    #[test]
    fn a_variant_runs_lower_ones_and_never_another_architecture() {
        let v7 = platform("linux/arm/v7");
        assert_eq!(v7.distance(&platform("linux/arm/v7")), Some(0));
        assert!(v7.distance(&platform("linux/arm/v6")) < v7.distance(&platform("linux/arm/v5")));
        assert_eq!(platform("linux/arm/v6").distance(&v7), None);
        assert_eq!(platform("linux/arm64").distance(&v7), None);
        assert_eq!(platform("linux/amd64").distance(&platform("linux/amd64/v3")), None);
        assert!(platform("linux/amd64/v3").distance(&platform("linux/amd64")).is_some());
        assert_eq!(platform("linux/amd64").distance(&platform("windows/amd64")), None);
        let odd = Platform { variant: "é".into(), ..platform("linux/amd64") };
        assert_eq!(platform("linux/amd64").distance(&odd), None);
    }
}
