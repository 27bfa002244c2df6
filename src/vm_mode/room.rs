//! What a container has for itself in its machine: directories of the guest, tags of shares, ports of the host.
//!
//! ```text
//! /run/sbx/                    the container that the machine was made for
//!   layers/N  writable  files/{hostname,hosts,resolv.conf}  shares/N  sockets/PORT
//!   tenants/ID/                one that shares the machine: the same below it
//! ```

use std::path::PathBuf;

use sbx_protocol::guest::Tenant;
use sbx_sandbox::id::Id;

/// vsock port of the first socket of the container that the machine was made for; each socket has the next.
const FIRST_PORT: u32 = 2048;

/// First processes of the containers whose namespaces are joined, as the guest numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinedPids {
    pub(crate) network: Option<i32>,
    pub(crate) ipc: Option<i32>,
    pub(crate) pid: Option<i32>,
}

/// A container's room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    directory: String,
    /// Where the files are that the container sees below `/etc`: another's where it shares that one's network.
    files: String,
    /// Short id of a tenant.
    tenant: Option<String>,
    pub(crate) joined: JoinedPids,
    /// First vsock port of the host that is the container's.
    pub(crate) first_port: u32,
}

impl Room {
    /// Of the container that the machine was made for.
    pub(crate) fn own() -> Self {
        let directory = String::from("/run/sbx");
        let files = format!("{directory}/files");
        Self { directory, files, tenant: None, joined: JoinedPids::default(), first_port: FIRST_PORT }
    }

    /// Of one that shares the machine of `owner`.
    pub(crate) fn of_tenant(id: &Id, first_port: u32) -> Self {
        let directory = format!("{}/tenants/{id}", Self::own().directory);
        let files = format!("{directory}/files");
        Self { directory, files, tenant: Some(id.short().to_owned()), joined: JoinedPids::default(), first_port }
    }

    /// With the namespaces of others; where the network is one of them, with the files of whose it is.
    pub(crate) fn joining(self, joined: JoinedPids, network: Option<&Room>) -> Self {
        let files = network.map_or(self.files, |room| room.files.clone());
        Self { files, joined, ..self }
    }

    /// Where a layer is mounted.
    pub(crate) fn layer(&self, number: usize) -> String {
        format!("{}/layers/{number}", self.directory)
    }

    /// Where the writable disk is mounted.
    pub(crate) fn writable(&self) -> String {
        format!("{}/writable", self.directory)
    }

    /// Where the files for `/etc` are.
    pub(crate) fn files(&self) -> String {
        self.files.clone()
    }

    /// One of the files for `/etc`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        [&self.files, name].iter().collect()
    }

    /// Where a share is mounted.
    pub(crate) fn share(&self, number: usize) -> String {
        format!("{}/shares/share{number}", self.directory)
    }

    /// Where sockets are made.
    pub(crate) fn sockets(&self) -> String {
        format!("{}/sockets", self.directory)
    }

    /// The tag of a share: the machine's kernel knows each once.
    pub(crate) fn tag(&self, number: usize) -> String {
        let of = self.tenant.as_ref().map(|id| format!("{id}.")).unwrap_or_default();
        format!("{of}share{number}")
    }

    /// What the agent is told of it; nothing where it is the machine's own container.
    pub(crate) fn tenant(&self) -> Option<Tenant> {
        self.tenant.as_ref().map(|_| Tenant { directory: self.directory.clone() })
    }
}
