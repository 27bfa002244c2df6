//! Named and anonymous volumes.
//!
//! ```text
//! ROOT/volumes/NAME/_data        its content, bound into containers
//!                  /volume.json  labels, options, when it was made
//! ROOT/volumes.lock              held while one is made or removed
//! ```
//!
//! A volume is in use while the specification of any container names it: that is read from the store each time,
//! nobody counts. A volume with options (`type`, `device`, `o`) is a mount that the caller makes on its data
//! directory; here it is only written down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::spec::{MountKind, SandboxSpec};
use crate::store::{ASIDE, Durability, Lock, Store, StoreError, lock, make_directory, read_json, try_lock, write_json};
use crate::timestamp::Timestamp;

/// Version of the stored form.
const SCHEMA: u32 = 1;
/// Name before that of a volume while it is made.
const NEW: &str = ".new-";
/// Bytes.
const LONGEST: usize = 200;
/// The label that Docker gives to volumes that nobody named.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// File systems that an option `type` may name. Network file systems are mounted by the kernel alone.
const TYPES: [&str; 4] = ["tmpfs", "nfs", "nfs4", "none"];

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// One character.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    ShortName,
    /// Characters of the name.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If \
         you intended to pass a host directory, use absolute path"
    )]
    Name(String),
    /// Of the name.
    #[error("volume name {0:?}… is too long, names have at most 200 bytes")]
    LongName(String),
    /// `--opt`.
    #[error("{0}")]
    Options(String),
    /// Nothing has that name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// Containers use it.
    #[error("remove {name}: volume is in use - [{}]", users.iter().map(Id::as_str).collect::<Vec<_>>().join(", "))]
    InUse {
        /// Of the volume.
        name: String,
        /// Whose specification names it.
        users: Vec<Id>,
    },
    /// It exists with other options.
    #[error("volume {0:?} exists with other options: remove it first, or leave the options out")]
    OtherOptions(String),
    /// The driver is not there.
    #[error("plugin {0:?} not found: the only volume driver is \"local\"")]
    Driver(String),
    /// Reading or writing.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is stored of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Version of the stored form.
    pub schema: u32,
    /// 64 hexadecimal digits where nobody named it.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// User metadata.
    pub labels: BTreeMap<String, String>,
    /// `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
    /// Nobody named it.
    pub anonymous: bool,
}

/// A mount that a volume with options stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// As in `/proc/filesystems`; `none` with `bind` among the options is a bind mount.
    pub fstype: String,
    /// What is mounted.
    pub device: String,
    /// mount(8) options.
    pub options: Vec<String>,
}

/// What is asked of a new volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Empty makes an anonymous one.
    pub name: String,
    /// `local` or empty.
    pub driver: String,
    /// User metadata.
    pub labels: BTreeMap<String, String>,
    /// `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
}

/// Which unused volumes `prune` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Those that nobody named (the default).
    Anonymous,
    /// All (`--all`).
    All,
}

/// Whether a name can be a volume's.
pub fn validate_name(name: &str) -> Result<(), VolumeError> {
    if name.chars().count() == 1 {
        return Err(VolumeError::ShortName);
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err(VolumeError::Name(name.chars().take(LONGEST).collect()));
    }
    if name.len() > LONGEST {
        return Err(VolumeError::LongName(name.chars().take(40).collect()));
    }
    Ok(())
}

/// Whether `--opt`s make sense together (moby `daemon/volume/local/local_unix.go`).
pub fn validate_options(options: &BTreeMap<String, String>) -> Result<(), VolumeError> {
    let wrong = |message: String| Err(VolumeError::Options(message));
    for name in options.keys() {
        match name.as_str() {
            "type" | "device" | "o" => {}
            "size" => return wrong("quota size requested but no quota support".to_owned()),
            _ => return wrong(format!("invalid option: {name:?}")),
        }
    }
    for (given, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if options.contains_key(given) && !options.contains_key(needed) {
            return wrong(format!("missing required option: {needed:?}"));
        }
    }
    let Some(mount) = mount_of(options) else {
        return Ok(());
    };
    let bind = mount.options.iter().any(|word| matches!(word.as_str(), "bind" | "rbind"));
    if !bind && !TYPES.contains(&mount.fstype.as_str()) {
        return wrong(format!("volume type {:?} is not supported: want {}, or o=bind", mount.fstype, TYPES.join(", ")));
    }
    if mount.fstype == "none" && !bind {
        return wrong("type \"none\" is a bind mount: add o=bind".to_owned());
    }
    if bind && !mount.device.starts_with('/') {
        return wrong(format!("device {:?} of a bind mount is not an absolute path", mount.device));
    }
    if options.values().any(|value| value.contains('\0')) {
        return wrong("an option contains a null byte".to_owned());
    }
    Ok(())
}

fn mount_of(options: &BTreeMap<String, String>) -> Option<VolumeMount> {
    let device = options.get("device").filter(|device| !device.is_empty())?;
    let words = options.get("o").map(String::as_str).unwrap_or_default();
    Some(VolumeMount {
        fstype: options.get("type").cloned().unwrap_or_default(),
        device: device.clone(),
        options: words.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
    })
}

impl Volume {
    /// The mount that its options stand for; `None` is a plain directory.
    pub fn mount(&self) -> Option<VolumeMount> {
        mount_of(&self.options)
    }
}

/// The volumes below a root directory.
#[derive(Clone, Debug)]
pub struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// The volumes of a store.
    pub fn of(store: &Store) -> Self {
        Self { root: store.root().to_owned() }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// Where the content of a volume is, whether it exists or not.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory(name).join("_data")
    }

    fn lock(&self) -> Result<Lock, StoreError> {
        lock(&self.root.join("volumes.lock"))
    }

    /// Makes a volume, or returns the one that has the name (`created` is then the older time).
    pub fn create(&self, request: VolumeRequest, created: Timestamp) -> Result<Volume, VolumeError> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(VolumeError::Driver(request.driver));
        }
        validate_options(&request.options)?;
        let anonymous = request.name.is_empty();
        let name = if anonymous {
            Id::random().map_err(|error| VolumeError::Options(error.to_string()))?.to_string()
        } else {
            request.name
        };
        let volume =
            Volume { schema: SCHEMA, name, created, labels: request.labels, options: request.options, anonymous };
        self.ensure(volume)
    }

    /// Makes the volume that a mount of a container stands for, or returns the one that has the name.
    ///
    /// It is written down whole before it can be seen under its name.
    pub fn ensure(&self, volume: Volume) -> Result<Volume, VolumeError> {
        validate_name(&volume.name)?;
        if let Some(existing) = self.read(&volume.name)? {
            return same(existing, &volume);
        }
        make_directory(&self.root.join("volumes"))?;
        let _lock = self.lock()?;
        if let Some(existing) = self.read(&volume.name)? {
            return same(existing, &volume);
        }
        let directory = self.directory(&volume.name);
        let unfinished = self.directory(&format!("{NEW}{}", volume.name));
        remove_tree(&unfinished)?;
        // Without its description its content is nobody's.
        remove_tree(&directory)?;
        make_directory(&unfinished)?;
        make_data(&unfinished.join("_data"))?;
        write_json(&unfinished.join("volume.json"), &volume, Durability::Rebuildable)?;
        fs::rename(&unfinished, &directory).map_err(|source| StoreError::io("make volume", &directory, source))?;
        Ok(volume)
    }

    fn read(&self, name: &str) -> Result<Option<Volume>, StoreError> {
        read_json(&self.directory(name).join("volume.json"), SCHEMA)
    }

    /// The volume of a name.
    pub fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        let not_found = || VolumeError::NotFound(name.to_owned());
        if validate_name(name).is_err() {
            return Err(not_found());
        }
        self.read(name)?.ok_or_else(not_found)
    }

    /// Every volume, by name.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let directory = self.root.join("volumes");
        let failed = |source| StoreError::io("list", &directory, source);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source).into()),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| validate_name(name).is_ok()).map(str::to_owned));
        }
        let mut volumes = Vec::new();
        for name in names {
            volumes.extend(self.read(&name)?);
        }
        Ok(volumes)
    }

    /// Removes a volume that no container names. Where it stands for a mount that is still there, it stays: what is
    /// mounted is never removed.
    pub fn remove(&self, store: &Store, name: &str) -> Result<(), VolumeError> {
        let volume = self.get(name)?;
        let _lock = self.lock()?;
        let users = users(store, name)?;
        if !users.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), users });
        }
        let directory = self.directory(&volume.name);
        if volume.mount().is_some() {
            // Always empty when nothing is mounted; a mount point is busy (rmdir(2)).
            let data = self.data(&volume.name);
            match fs::remove_dir(&data) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &data, source).into());
                }
                _ => {}
            }
        }
        let doomed = self.directory(&format!("{ASIDE}{}", volume.name));
        remove_tree(&doomed)?;
        // Under another name it is no volume; what a crash leaves of it is swept away.
        match fs::rename(&directory, &doomed) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(StoreError::io("remove", &directory, source).into())
            }
            _ => Ok(remove_tree(&doomed)?),
        }
    }

    /// Removes what crashes have left of volumes that were being made or removed. Costs one directory listing where
    /// there is nothing; what somebody is working on stays.
    pub fn sweep(&self) -> Result<(), StoreError> {
        if self.unfinished()?.is_empty() {
            return Ok(());
        }
        let Some(_lock) = try_lock(&self.root.join("volumes.lock"))? else { return Ok(()) };
        self.unfinished()?.iter().try_for_each(|path| remove_tree(path))
    }

    /// Volumes under the names that they have while they are made or removed.
    fn unfinished(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.root.join("volumes");
        let failed = |source| StoreError::io("list", &directory, source);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut unfinished = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(NEW) || name.starts_with(ASIDE) {
                unfinished.push(entry.path());
            }
        }
        Ok(unfinished)
    }

    /// Removes unused volumes and says which. `matches` is the filter of the user (labels).
    pub fn prune(
        &self,
        store: &Store,
        prune: Prune,
        matches: impl Fn(&Volume) -> bool,
    ) -> Result<Vec<Volume>, VolumeError> {
        let mut removed = Vec::new();
        for volume in self.list()? {
            let wanted = prune == Prune::All || volume.anonymous;
            if !wanted || !matches(&volume) {
                continue;
            }
            match self.remove(store, &volume.name) {
                Ok(()) => removed.push(volume),
                Err(VolumeError::InUse { .. } | VolumeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

/// Asking for an existing volume by name is how containers share it; options that differ would be dropped.
fn same(existing: Volume, wanted: &Volume) -> Result<Volume, VolumeError> {
    if wanted.options.is_empty() || wanted.options == existing.options {
        return Ok(existing);
    }
    Err(VolumeError::OtherOptions(existing.name))
}

fn make_data(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    make_directory(path)?;
    // Processes of any user of the container reach it through the bind mount; on the host its parents are private.
    let opened = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    opened.map_err(|source| StoreError::io("make volume", path, source))
}

fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// The containers whose specification names a volume. One that cannot be read is an error: it might.
pub fn users(store: &Store, name: &str) -> Result<Vec<Id>, StoreError> {
    let mut users = Vec::new();
    for listed in store.specs()? {
        if names(&listed.spec?).any(|used| used == name) {
            users.push(listed.id);
        }
    }
    Ok(users)
}

fn names(spec: &SandboxSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.mounts.iter().filter(|mount| mount.kind == MountKind::Volume);
    volumes.map(|mount| mount.name.as_str())
}

/// The volumes that go with a container (`rm -v`, `--rm`): those that nobody named, and that it did not inherit.
pub fn owned(spec: &SandboxSpec) -> Vec<String> {
    let owned = spec.mounts.iter().filter(|mount| mount.kind == MountKind::Volume && mount.options.anonymous);
    owned.map(|mount| mount.name.clone()).collect()
}

/// The volume that a mount of a container stands for.
pub fn of_mount(mount: &crate::spec::MountPoint, created: Timestamp) -> Volume {
    let mut labels = mount.options.labels.clone();
    if mount.options.anonymous {
        labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
    }
    Volume {
        schema: SCHEMA,
        name: mount.name.clone(),
        created,
        labels,
        options: mount.options.driver_options.clone(),
        anonymous: mount.options.anonymous,
    }
}

#[cfg(test)]
mod tests;
