//! `--volume`, `--mount` and `--tmpfs`.

use std::{collections::BTreeMap, path::Path};

use sbx_sandbox::{
    config::Empty,
    host_config::{BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions},
    path::clean_rooted,
};

use crate::{flags::values::parse_bool, units::parse_size};

/// What `--volume` asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Volumes {
    pub(crate) binds: Vec<String>,
    pub(crate) anonymous: BTreeMap<String, Empty>,
}

/// `source:target[:options]`, or a path alone. A source that starts with a dot is below `directory`.
///
/// # Errors
/// Empty parts, a relative target, an unknown option, a source that is neither a path nor a volume's name.
pub(crate) fn volumes(given: &[String], directory: &Path) -> Result<Volumes, String> {
    let mut found = Volumes::default();
    for text in given {
        if text.is_empty() {
            return Err("invalid empty volume spec".to_owned());
        }
        let parts: Vec<&str> = text.split(':').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("invalid spec: {text}: empty section between colons"));
        }
        let (source, target, options) = match parts.as_slice() {
            [target] => {
                check_target(text, target)?;
                found.anonymous.insert((*target).to_owned(), Empty {});
                continue;
            }
            [source, target] => (*source, *target, ""),
            [source, target, options] => (*source, *target, *options),
            _ => return Err(format!("invalid volume specification: '{text}'")),
        };
        check_target(text, target)?;
        check_source(source)?;
        check_options(source, options)?;
        let rest = &text[source.len()..];
        let bind = format!("{}{rest}", absolute_source(source, directory));
        if !found.binds.contains(&bind) {
            found.binds.push(bind);
        }
    }
    Ok(found)
}

fn check_target(text: &str, target: &str) -> Result<(), String> {
    if !target.starts_with('/') {
        return Err(format!(
            "invalid volume specification: '{text}': invalid mount config: invalid mount path: '{target}' mount path \
             must be absolute"
        ));
    }
    if clean_rooted(target) == "/" {
        return Err(format!("invalid volume specification: '{text}': invalid mount config: destination can't be '/'"));
    }
    Ok(())
}

fn check_source(source: &str) -> Result<(), String> {
    if source.starts_with(['/', '.']) {
        return Ok(());
    }
    let mut letters = source.bytes();
    let first = letters.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || !letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err(format!(
            "\"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        ));
    }
    if source.len() == 1 {
        return Err("volume name is too short, names should be at least two alphanumeric characters".to_owned());
    }
    Ok(())
}

const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Each kind of option may be said once.
fn check_options(source: &str, options: &str) -> Result<(), String> {
    if options.is_empty() {
        return Ok(());
    }
    let is_path = source.starts_with(['/', '.']);
    let mut seen = [false; 5];
    for option in options.split(',') {
        let kind = match option {
            "ro" | "rw" => 0,
            "z" | "Z" => 1,
            "nocopy" if !is_path => 2,
            "consistent" | "cached" | "delegated" | "default" => 3,
            option if PROPAGATION.contains(&option) && is_path => 4,
            _ => return Err(format!("invalid mode: {options}")),
        };
        if std::mem::replace(&mut seen[kind], true) {
            return Err(format!("invalid mode: {options}"));
        }
    }
    Ok(())
}

/// Docker makes a path absolute only where it starts with a dot; other relative ones are names.
fn absolute_source(source: &str, directory: &Path) -> String {
    if !source.starts_with('.') {
        return source.to_owned();
    }
    clean_rooted(&format!("{}/{source}", directory.display()))
}

/// `--tmpfs path[:options]`, by path.
///
/// # Errors
/// A path that is not absolute.
pub(crate) fn tmpfs(given: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for text in given {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        if !path.starts_with('/') {
            return Err(format!("invalid tmpfs mount: invalid mount path: '{path}' mount path must be absolute"));
        }
        found.insert(path.to_owned(), options.to_owned());
    }
    Ok(found)
}

/// The fields of one line of CSV (RFC 4180, as Go's `encoding/csv` reads it).
///
/// # Errors
/// An empty line, or quotes out of place.
pub(crate) fn split_fields(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let fault = |at: usize, why: &str| Err(format!("parse error on line 1, column {}: {why}", at + 1));
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut inner = quoted;
            loop {
                let Some(end) = inner.find('"') else {
                    return fault(line.len(), "extraneous or missing \" in quoted-field");
                };
                field.push_str(&inner[..end]);
                inner = &inner[end + 1..];
                match inner.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        inner = more;
                    }
                    None => break,
                }
            }
            fields.push(field);
            at = line.len() - inner.len();
            if inner.is_empty() {
                return Ok(fields);
            }
            if !inner.starts_with(',') {
                return fault(at - 1, "extraneous or missing \" in quoted-field");
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(bare) = rest[..end].find('"') {
                return fault(at + bare, "bare \" in non-quoted-field");
            }
            fields.push(rest[..end].to_owned());
            at += end;
            if at == line.len() {
                return Ok(fields);
            }
        }
        at += 1;
    }
}

/// `type=bind,source=…,target=…`; relative sources that start with a dot are below `directory`.
///
/// # Errors
/// An unknown key, a bad value, an option of another type, no target.
pub(crate) fn parse_mount(text: &str, directory: &Path) -> Result<Mount, String> {
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    for field in split_fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive", value) => {
                let on = value.map_or(Ok(true), parse_bool);
                let on = on.map_err(|_| format!("invalid value for {key}: {}", value.unwrap_or_default()))?;
                set_switch(&mut mount, &key, on);
            }
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            (key, Some(value)) => set_value(&mut mount, (key, value), &field, directory)?,
        }
    }
    check_together(&mount)?;
    Ok(mount)
}

fn set_switch(mount: &mut Mount, key: &str, on: bool) {
    match key {
        "volume-nocopy" => volume_options(mount).no_copy = on,
        "bind-nonrecursive" => bind_options(mount).non_recursive = on,
        _ => mount.read_only = on,
    }
}

fn bind_options(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume_options(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(|| VolumeOptions {
        driver_config: Some(DriverConfig::default()),
        ..VolumeOptions::default()
    })
}

fn set_value(mount: &mut Mount, (key, value): (&str, &str), field: &str, directory: &Path) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    let pair = || {
        let (name, value) = value.split_once('=').unwrap_or((value, ""));
        (name.to_owned(), value.to_owned())
    };
    match key {
        "type" => mount.r#type = value.to_ascii_lowercase(),
        "source" | "src" => mount.source = absolute_source(value, directory),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        "bind-propagation" => bind_options(mount).propagation = value.to_ascii_lowercase(),
        // The default; asks for nothing.
        "bind-recursive" if value == "enabled" => {}
        "bind-recursive" => set_recursive(bind_options(mount), value)?,
        "volume-subpath" => volume_options(mount).subpath = value.to_owned(),
        "volume-label" => volume_options(mount).labels.extend([pair()]),
        "volume-driver" => volume_options(mount).driver_config.get_or_insert_default().name = value.to_owned(),
        "volume-opt" => volume_options(mount).driver_config.get_or_insert_default().options.extend([pair()]),
        "image-subpath" => mount.image_options = Some(ImageOptions { subpath: value.to_owned() }),
        "tmpfs-size" => {
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).size_bytes =
                parse_size(value).map_err(|_| invalid())?;
        }
        "tmpfs-mode" => {
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).mode =
                u32::from_str_radix(value, 8).map_err(|_| invalid())?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn set_recursive(options: &mut BindOptions, value: &str) -> Result<(), String> {
    match value {
        "disabled" => options.non_recursive = true,
        "writable" => options.read_only_non_recursive = true,
        "readonly" => options.read_only_force_recursive = true,
        _ => {
            return Err(format!(
                "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \
                 \"readonly\")"
            ));
        }
    }
    Ok(())
}

fn check_together(mount: &Mount) -> Result<(), String> {
    let kind = mount.r#type.as_str();
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    for (options, of, given) in [
        ("volume", "volume", mount.volume_options.is_some()),
        ("bind", "bind", mount.bind_options.is_some()),
        ("tmpfs", "tmpfs", mount.tmpfs_options.is_some()),
        ("image", "image", mount.image_options.is_some()),
    ] {
        if given && kind != of {
            return Err(format!("cannot mix '{options}-*' options with mount type '{kind}'"));
        }
    }
    let Some(bind) = &mount.bind_options else {
        return Ok(());
    };
    let requires = |option: &str, other: &str| {
        Err(format!("option 'bind-recursive={option}' requires '{other}' to be specified in conjunction"))
    };
    if bind.read_only_non_recursive && !mount.read_only {
        return requires("writable", "readonly");
    }
    if bind.read_only_force_recursive && !mount.read_only {
        return requires("readonly", "readonly");
    }
    if bind.read_only_force_recursive && bind.propagation != "rprivate" {
        return requires("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

pub(crate) fn check_mount(text: &str) -> Result<(), String> {
    parse_mount(text, Path::new("/")).map(drop)
}
