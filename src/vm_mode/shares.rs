//! Binds and volumes: directories and files of the host that the guest sees through virtio-fs, sockets through vsock.
//!
//! Each mount is a share of its own: a device that knows one directory, or one file and nothing beside it. Read-only is
//! the share's, not only the mount's.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sbx_protocol::guest::Furnishing;
use sbx_sandbox::spec::{MountKind, SandboxSpec};

use crate::error::Error;
use crate::room::Room;

/// A directory or file that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Name of the device.
    pub(crate) tag: String,
    /// On the host.
    pub(crate) path: PathBuf,
    /// One file instead of a directory.
    pub(crate) is_file: bool,
    /// Nothing can be changed.
    pub(crate) read_only: bool,
    /// The container's users are others than the machine's.
    pub(crate) mappable: bool,
}

/// A unix socket of the host that programs of the guest may connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// On the host.
    pub(crate) path: PathBuf,
    /// The guest reaches it by this port.
    pub(crate) port: u32,
}

/// Everything that is shared, and what the guest does to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) shares: Vec<Share>,
    /// The container has users of its own.
    mappable: bool,
    room: Room,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) furnishings: Vec<Furnishing>,
    /// Path in the guest by mount destination.
    pub(crate) sources: BTreeMap<String, PathBuf>,
}

impl Shared {
    /// What a container's mounts need. `prepared` has the directories of volumes by mount destination.
    pub(crate) fn of(spec: &SandboxSpec, prepared: &BTreeMap<String, PathBuf>, room: &Room) -> Result<Self, Error> {
        let mut shared = Self {
            shares: Vec::new(),
            mappable: spec.host_config.userns_mode == "private",
            room: room.clone(),
            sockets: Vec::new(),
            furnishings: Vec::new(),
            sources: BTreeMap::new(),
        };
        for mount in &spec.mounts {
            if mount.kind == MountKind::Tmpfs {
                continue;
            }
            let path = prepared.get(&mount.destination).cloned().unwrap_or_else(|| PathBuf::from(&mount.source));
            let metadata = std::fs::metadata(&path).map_err(Error::io(format!("look at {}", path.display())))?;
            let kind = metadata.file_type();
            if kind.is_socket() {
                shared.add_socket(&mount.destination, path, &metadata);
            } else if kind.is_char_device() || kind.is_block_device() {
                return Err(Error::Unsupported(format!(
                    "invalid mount {}: {} is a device of the host, which a virtual machine does not have; use \
                     --isolation=process",
                    mount.destination,
                    path.display()
                )));
            } else {
                shared.add_share(&mount.destination, path, kind.is_file(), !mount.rw);
            }
        }
        Ok(shared)
    }

    fn add_share(&mut self, destination: &str, path: PathBuf, is_file: bool, read_only: bool) {
        let tag = self.room.tag(self.shares.len());
        let target = self.room.share(self.shares.len());
        self.furnishings.push(Furnishing::Mount {
            source: tag.clone(),
            fstype: "virtiofs".into(),
            target: target.clone(),
            read_only,
            options: Vec::new(),
        });
        let name = if is_file { path.file_name().map(Path::new) } else { None };
        let source = name.map_or_else(|| PathBuf::from(&target), |name| Path::new(&target).join(name));
        self.sources.insert(destination.to_owned(), source);
        self.shares.push(Share { tag, path, is_file, read_only, mappable: self.mappable });
    }

    fn add_socket(&mut self, destination: &str, path: PathBuf, metadata: &std::fs::Metadata) {
        let port = self.room.first_port + u32::try_from(self.sockets.len()).unwrap_or(u32::MAX / 2);
        let inside = format!("{}/{port}", self.room.sockets());
        if self.sockets.is_empty() {
            self.furnishings.push(Furnishing::Directory { path: self.room.sockets(), mode: 0o711 });
        }
        self.furnishings.push(Furnishing::Socket {
            path: inside.clone(),
            mode: metadata.mode() & 0o777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            port,
        });
        self.sources.insert(destination.to_owned(), inside.into());
        self.sockets.push(Socket { path, port });
    }
}
