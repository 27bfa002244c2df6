//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, written anew for every start.

use std::fs;
use std::path::{Path, PathBuf};

use sbx_network::{Attachment, EtcFiles};
use sbx_sandbox::spec::{HostPaths, SandboxSpec};

use crate::error::Error;
use crate::sandbox::Setting;

/// Writes the files, or names those of the container whose network is shared.
pub(crate) fn write(spec: &SandboxSpec, setting: &Setting, attachment: &Attachment) -> Result<HostPaths, Error> {
    let mut paths = HostPaths::default();
    let joined = &setting.joined;
    paths.join_ipc = joined.ipc.map(|pid| namespace(pid, "ipc"));
    paths.join_pid = joined.pid.map(|pid| namespace(pid, "pid"));
    paths.shm = joined.ipc.map(|pid| PathBuf::from(format!("/proc/{pid}/root/dev/shm")));
    if let Some((pid, files)) = &joined.network {
        paths.join_net = Some(namespace(*pid, "net"));
        paths.hosts = Some(files.hosts());
        paths.resolv_conf = Some(files.resolv_conf());
        paths.hostname = Some(files.hostname());
        return Ok(paths);
    }
    let files = &setting.files;
    let texts = EtcFiles::of(spec, &setting.network, attachment)?;
    put(&files.hostname(), &texts.hostname)?;
    put(&files.hosts(), &texts.hosts)?;
    put(&files.resolv_conf(), &texts.resolv_conf)?;
    paths.hostname = Some(files.hostname());
    paths.hosts = Some(files.hosts());
    paths.resolv_conf = Some(files.resolv_conf());
    Ok(paths)
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    // Written in place: a container that is bound to the file must see the new text.
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
