//! Everything that is mounted for the user: which, where, and who wins at the same place.
//!
//! Docker's order (moby `daemon/volumes.go`, `registerMountPoints`): the mounts of other containers, then `-v`, then
//! `--mount`, then the image's volumes where nothing is yet. Two of `-v`, `--mount` and `--tmpfs` at one place are an
//! error.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::config::CreateRequest;
use crate::host_config::{BindOptions, HostConfig, ImageOptions, Mount, VolumeOptions};
use crate::id::Id;
use crate::path::clean_rooted;
use crate::spec::{MountKind, MountOptions, MountOrigin, MountPoint};

use super::{Invalid, Resolver, mount_text, tmpfs};

/// Host paths whose existence decides about a request: the sources of `--mount type=bind`.
pub fn bind_sources(request: &CreateRequest) -> Vec<String> {
    let mounts = request.host_config.mounts.iter();
    mounts.filter(|mount| mount.r#type == "bind").map(|mount| mount.source.clone()).collect()
}

pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Result<Vec<MountPoint>, Invalid> {
    let host = &resolver.request.host_config;
    let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
    for point in inherited(resolver)? {
        points.insert(point.destination.clone(), point);
    }
    let mut own = tmpfs_mounts(host)?;
    own.extend(binds(resolver)?);
    own.extend(mounts(resolver)?);
    let mut taken = BTreeSet::new();
    for point in own {
        if !taken.insert(point.destination.clone()) {
            return Err(Invalid::new("HostConfig.Mounts", format!("Duplicate mount point: {}", point.destination)));
        }
        points.insert(point.destination.clone(), point);
    }
    for path in resolver.request.config.volumes.keys() {
        let destination = clean_rooted(path);
        if !points.contains_key(&destination) {
            let point = anonymous(resolver, destination);
            points.insert(point.destination.clone(), point);
        }
    }
    Ok(points.into_values().collect())
}

fn target(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("field Target must not be empty".to_owned());
    }
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    if path.contains('\0') {
        return Err(format!("invalid mount path: {path:?} contains a null byte"));
    }
    let target = clean_rooted(path);
    if target == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(target)
}

/// A key of `Config.Volumes`.
pub(super) fn anonymous_target(path: &str) -> Result<(), Invalid> {
    target(path).map(drop).map_err(|message| Invalid::new("Config.Volumes", message))
}

fn inherited(resolver: &Resolver<'_>) -> Result<Vec<MountPoint>, Invalid> {
    let field = "HostConfig.VolumesFrom";
    for entry in &resolver.request.host_config.volumes_from {
        mount_text::volumes_from(entry).map_err(|message| Invalid::new(field, message))?;
        if !resolver.context.inherited.iter().any(|(source, _)| source == entry) {
            let name = entry.split(':').next().unwrap_or_default();
            return Err(Invalid::new(field, format!("No such container: {name}")));
        }
    }
    let mut points = Vec::new();
    for (entry, mounts) in &resolver.context.inherited {
        let read_only = mount_text::volumes_from(entry).map_err(|message| Invalid::new(field, message))?;
        for point in mounts {
            let mut point = point.clone();
            point.rw &= !read_only;
            point.mode.clear();
            point.options.copy_data = false;
            // It belongs to the other container, which alone removes it.
            point.options.anonymous = false;
            point.origin = MountOrigin::Inherited;
            points.push(point);
        }
    }
    Ok(points)
}

fn tmpfs_mounts(host: &HostConfig) -> Result<Vec<MountPoint>, Invalid> {
    let mut points = Vec::new();
    for (path, options) in &host.tmpfs {
        let wrong = |message: String| Invalid::new("HostConfig.Tmpfs", message);
        let destination = target(path).map_err(wrong)?;
        let options = tmpfs::merge(options).map_err(wrong)?;
        points.push(tmpfs_point(destination, options, MountOrigin::Tmpfs));
    }
    Ok(points)
}

fn tmpfs_point(destination: String, tmpfs: Vec<String>, origin: MountOrigin) -> MountPoint {
    MountPoint {
        kind: MountKind::Tmpfs,
        name: String::new(),
        source: String::new(),
        destination,
        driver: String::new(),
        mode: String::new(),
        rw: !tmpfs.iter().any(|option| option == "ro"),
        propagation: String::new(),
        origin,
        options: MountOptions { tmpfs, ..MountOptions::default() },
    }
}

fn binds(resolver: &Resolver<'_>) -> Result<Vec<MountPoint>, Invalid> {
    let mut points = Vec::new();
    for text in &resolver.request.host_config.binds {
        let wrong = |message: String| Invalid::new("HostConfig.Binds", message);
        let volume = mount_text::volume(text).map_err(wrong)?;
        let nested = |message: String| wrong(format!("invalid volume specification: '{text}': {message}"));
        if let Some(label) = mount_text::mode(&volume.mode).and_then(|mode| mode.label)
            && resolver.context.machine.selinux
        {
            return Err(nested(format!("{label}: sbx does not label files for SELinux")));
        }
        let mut point = mount_point(resolver, &volume.mount, MountOrigin::Volume).map_err(nested)?;
        point.mode = match (point.kind, volume.mode.as_str()) {
            // Docker shows a volume without a mode as one with this.
            (MountKind::Volume, "") => "z".to_owned(),
            (_, mode) => mode.to_owned(),
        };
        points.push(point);
    }
    Ok(points)
}

fn mounts(resolver: &Resolver<'_>) -> Result<Vec<MountPoint>, Invalid> {
    let mut points = Vec::new();
    for mount in &resolver.request.host_config.mounts {
        let wrong = |message: String| {
            Invalid::new("HostConfig.Mounts", format!("invalid mount config for type {:?}: {message}", mount.r#type))
        };
        let mut point = mount_point(resolver, mount, MountOrigin::Mount).map_err(wrong)?;
        let creates = point.options.create_source;
        if point.kind == MountKind::Bind && !creates && resolver.context.absent_sources.contains(&mount.source) {
            return Err(wrong(format!("bind source path does not exist: {}", mount.source)));
        }
        if point.kind == MountKind::Volume {
            "z".clone_into(&mut point.mode);
        }
        points.push(point);
    }
    Ok(points)
}

fn mount_point(resolver: &Resolver<'_>, mount: &Mount, origin: MountOrigin) -> Result<MountPoint, String> {
    exclusive(mount)?;
    let destination = target(&mount.target)?;
    if !matches!(mount.consistency.as_str(), "" | "default" | "consistent" | "cached" | "delegated") {
        return Err(format!("invalid consistency: {}", mount.consistency));
    }
    let mut point = MountPoint { origin, rw: !mount.read_only, ..tmpfs_point(destination, Vec::new(), origin) };
    match mount.r#type.as_str() {
        "bind" => bind(&mut point, mount)?,
        "volume" => volume(&mut point, mount, resolver)?,
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err("field Source must not be specified".to_owned());
            }
            point.options.tmpfs = tmpfs::merge(&tmpfs::of_mount(mount.tmpfs_options.as_ref(), mount.read_only)?)?;
        }
        "image" => image(&mut point, mount)?,
        _ => return Err("mount type unknown".to_owned()),
    }
    Ok(point)
}

fn exclusive(mount: &Mount) -> Result<(), String> {
    let kind = mount.r#type.as_str();
    for (own, present, name) in [
        ("bind", mount.bind_options.is_some(), "BindOptions"),
        ("volume", mount.volume_options.is_some(), "VolumeOptions"),
        ("image", mount.image_options.is_some(), "ImageOptions"),
        ("tmpfs", mount.tmpfs_options.is_some(), "TmpfsOptions"),
    ] {
        if present && own != kind {
            return Err(format!("field {name} must not be specified"));
        }
    }
    Ok(())
}

fn bind(point: &mut MountPoint, mount: &Mount) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    if !mount.source.starts_with('/') {
        return Err(format!("invalid mount path: '{}' mount path must be absolute", mount.source));
    }
    if mount.source.contains('\0') {
        return Err(format!("invalid mount path: {:?} contains a null byte", mount.source));
    }
    let defaults = BindOptions::default();
    let options = mount.bind_options.as_ref().unwrap_or(&defaults);
    if !options.propagation.is_empty() && !mount_text::is_propagation(&options.propagation) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    let (non_recursive, forced) = (options.read_only_non_recursive, options.read_only_force_recursive);
    for (conflict, message) in [
        (!mount.read_only && non_recursive, "!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (!mount.read_only && forced, "!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (non_recursive && forced, "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"),
    ] {
        if conflict {
            return Err(format!("mount options conflict: {message}"));
        }
    }
    point.kind = MountKind::Bind;
    point.source = clean_rooted(&mount.source);
    point.propagation =
        if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation.clone() };
    point.options = MountOptions {
        non_recursive: options.non_recursive,
        read_only_non_recursive: non_recursive,
        read_only_force_recursive: forced,
        create_source: options.create_mountpoint,
        ..MountOptions::default()
    };
    Ok(())
}

fn volume(point: &mut MountPoint, mount: &Mount, resolver: &Resolver<'_>) -> Result<(), String> {
    let defaults = VolumeOptions::default();
    let options = mount.volume_options.as_ref().unwrap_or(&defaults);
    let anonymous = mount.source.is_empty();
    subpath(&options.subpath)?;
    if anonymous && !options.subpath.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".to_owned());
    }
    if !anonymous {
        crate::volumes::validate_name(&mount.source).map_err(|error| error.to_string())?;
    }
    let driver = options.driver_config.clone().unwrap_or_default();
    if !matches!(driver.name.as_str(), "" | "local") {
        return Err(format!("plugin {:?} not found: the only volume driver is \"local\"", driver.name));
    }
    crate::volumes::validate_options(&driver.options).map_err(|error| error.to_string())?;
    point.kind = MountKind::Volume;
    point.name = if anonymous {
        anonymous_name(&resolver.context.identity.id, &point.destination)
    } else {
        mount.source.clone()
    };
    "local".clone_into(&mut point.driver);
    point.source = volume_source(resolver, &point.name);
    point.options = MountOptions {
        copy_data: !options.no_copy,
        anonymous,
        labels: options.labels.clone(),
        driver_options: driver.options,
        subpath: options.subpath.clone(),
        ..MountOptions::default()
    };
    Ok(())
}

fn image(point: &mut MountPoint, mount: &Mount) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    let defaults = ImageOptions::default();
    let options = mount.image_options.as_ref().unwrap_or(&defaults);
    subpath(&options.subpath)?;
    point.kind = MountKind::Image;
    point.name.clone_from(&mount.source);
    point.rw = false;
    "rprivate".clone_into(&mut point.propagation);
    point.options = MountOptions { subpath: options.subpath.clone(), ..MountOptions::default() };
    Ok(())
}

fn subpath(path: &str) -> Result<(), String> {
    let mut depth = 0_i32;
    for part in path.split('/') {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            break;
        }
    }
    if path.starts_with('/') || depth < 0 || path.contains('\0') {
        return Err("subpath must be a relative path within the volume".to_owned());
    }
    Ok(())
}

/// Where the store keeps the content of a volume.
fn volume_source(resolver: &Resolver<'_>, name: &str) -> String {
    let data = resolver.context.settings.paths.root.join("volumes").join(name).join("_data");
    data.to_string_lossy().into_owned()
}

fn anonymous(resolver: &Resolver<'_>, destination: String) -> MountPoint {
    let name = anonymous_name(&resolver.context.identity.id, &destination);
    MountPoint {
        kind: MountKind::Volume,
        source: volume_source(resolver, &name),
        name,
        driver: "local".to_owned(),
        options: MountOptions { copy_data: true, anonymous: true, ..MountOptions::default() },
        ..tmpfs_point(destination, Vec::new(), MountOrigin::Anonymous)
    }
}

/// 64 hexadecimal digits that follow from the container and the place, so that a crash between writing the
/// specification and making the volume leaves nothing that cannot be found.
fn anonymous_name(id: &Id, destination: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(id.as_str());
    hash.update(b"\0");
    hash.update(destination);
    hex::encode(hash.finalize())
}
