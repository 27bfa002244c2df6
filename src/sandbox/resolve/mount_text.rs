//! The text form of mounts: `-v SOURCE:TARGET:MODE` and `--volumes-from CONTAINER:MODE`.

use crate::host_config::{BindOptions, Mount, VolumeOptions};

const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// A `-v`, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Volume {
    pub(super) mount: Mount,
    /// The third part as it was given.
    pub(super) mode: String,
}

/// A mode, taken apart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mode<'a> {
    pub(super) read_only: bool,
    pub(super) propagation: Option<&'a str>,
    pub(super) no_copy: Option<bool>,
    /// `z` or `Z`.
    pub(super) label: Option<&'a str>,
}

/// Reads a mode; `None` when a word is unknown or of a kind that is there already.
pub(super) fn mode(text: &str) -> Option<Mode<'_>> {
    let mut mode = Mode::default();
    if text.is_empty() {
        return Some(mode);
    }
    let (mut access, mut consistency) = (0, 0);
    for word in text.split(',') {
        match word {
            "ro" | "rw" => {
                access += 1;
                mode.read_only = word == "ro";
            }
            "z" | "Z" => mode.label = single(mode.label, word)?,
            "nocopy" => mode.no_copy = single(mode.no_copy, true)?,
            "consistent" | "cached" | "delegated" => consistency += 1,
            _ if PROPAGATION.contains(&word) => mode.propagation = single(mode.propagation, word)?,
            _ => return None,
        }
    }
    (access <= 1 && consistency <= 1).then_some(mode)
}

fn single<T>(present: Option<T>, new: T) -> Option<Option<T>> {
    present.is_none().then_some(Some(new))
}

pub(super) fn is_propagation(word: &str) -> bool {
    PROPAGATION.contains(&word)
}

/// Reads a `-v` (moby `daemon/volume/mounts/linux_parser.go`, `ParseMountRaw`).
pub(super) fn volume(text: &str) -> Result<Volume, String> {
    let invalid = || format!("invalid volume specification: '{text}'");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, given) = match parts.as_slice() {
        [target] => ("", *target, ""),
        // A path with a mode but no source would be an anonymous volume, and these have no mode.
        [_, second] if mode(second).is_some() => return Err(invalid()),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(invalid()),
    };
    if parts.first().is_none_or(|first| first.is_empty()) {
        return Err(invalid());
    }
    let mode = mode(given).ok_or_else(|| format!("invalid mode: {given}"))?;
    let is_path = source.starts_with('/');
    let mut mount = Mount {
        r#type: if is_path { "bind" } else { "volume" }.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: mode.read_only,
        ..Mount::default()
    };
    if is_path {
        // `-v` makes a missing source; `--mount` does not.
        mount.bind_options = Some(BindOptions {
            propagation: mode.propagation.unwrap_or_default().to_owned(),
            create_mountpoint: true,
            ..BindOptions::default()
        });
        if mode.no_copy.is_some() {
            return Err(format!("{}: nocopy is for volumes", invalid()));
        }
    } else {
        if mode.propagation.is_some() {
            return Err(format!("{}: propagation is for binds", invalid()));
        }
        mount.volume_options = mode.no_copy.map(|no_copy| VolumeOptions { no_copy, ..VolumeOptions::default() });
    }
    Ok(Volume { mount, mode: given.to_owned() })
}

/// Whether the mounts of `--volumes-from CONTAINER[:MODE]` become read-only.
pub(super) fn volumes_from(text: &str) -> Result<bool, String> {
    if text.is_empty() {
        return Err("volumes-from specification cannot be an empty string".to_owned());
    }
    let (container, given) = text.split_once(':').unwrap_or((text, ""));
    let mode = mode(given).filter(|mode| mode.propagation.is_none() && mode.no_copy.is_none());
    match mode {
        _ if container.is_empty() => Err(format!("invalid volumes-from specification: {text:?}")),
        None => Err(format!("invalid mode: {given}")),
        Some(mode) => Ok(mode.read_only),
    }
}
