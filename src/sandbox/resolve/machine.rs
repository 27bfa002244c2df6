//! What a container in a virtual machine cannot have: whatever means something of the host's own kernel. Refused by name.

use crate::config::CreateRequest;
use crate::isolation::Mode;
use crate::size;
use crate::spec::SandboxSpec;

use super::Invalid;

/// Where the way out is always the same.
const WAY_OUT: &str = "use --isolation=process";

/// Looks through a request.
pub(super) fn check(request: &CreateRequest, mode: Mode) -> Result<(), Invalid> {
    let host = &request.host_config;
    if mode == Mode::Process {
        return if host.storage_opt.is_empty() {
            Ok(())
        } else {
            let message = "--storage-opt is not supported: the writable layer has no quota; use --isolation=vm, or limit what is written with --mount type=tmpfs,tmpfs-size=…";
            Err(Invalid::new("HostConfig.StorageOpt", message))
        };
    }
    disk_size(host)?;
    let fields = [
        ("HostConfig.NetworkMode", "--network", &host.network_mode),
        ("HostConfig.PidMode", "--pid", &host.pid_mode),
        ("HostConfig.IpcMode", "--ipc", &host.ipc_mode),
        ("HostConfig.UTSMode", "--uts", &host.uts_mode),
        ("HostConfig.CgroupnsMode", "--cgroupns", &host.cgroupns_mode),
    ];
    for (field, flag, value) in fields {
        let shared = match value.as_str() {
            "host" => "the host's kernel",
            other if other.starts_with("container:") => "another container's kernel",
            _ => continue,
        };
        let message = format!(
            "{flag} {value} is not possible with --isolation=vm: a virtual machine has a kernel of its own and shares \
             nothing with {shared}; {WAY_OUT}"
        );
        return Err(Invalid::new(field, message));
    }
    Ok(())
}

/// `--storage-opt size=`: the writable disk's.
fn disk_size(host: &crate::host_config::HostConfig) -> Result<(), Invalid> {
    let field = "HostConfig.StorageOpt";
    if let Some(other) = host.storage_opt.keys().find(|key| *key != "size") {
        return Err(Invalid::new(field, format!("unknown option {other:?} of --storage-opt: the only one is size")));
    }
    let Some(size) = host.storage_opt.get("size") else { return Ok(()) };
    match size::parse_bytes(size) {
        Ok(bytes) if bytes >= LEAST_DISK => Ok(()),
        Ok(_) => Err(Invalid::new(field, "--storage-opt size must be at least 32m")),
        Err(error) => Err(Invalid::new(field, format!("--storage-opt size: {error}"))),
    }
}

/// Bytes of the smallest writable disk.
const LEAST_DISK: i64 = 32 << 20;

/// Looks through what has been decided.
pub(super) fn check_decided(spec: &SandboxSpec) -> Result<(), Invalid> {
    if spec.isolation.isolation == Mode::Process {
        return Ok(());
    }
    for mount in &spec.mounts {
        if matches!(mount.propagation.as_str(), "shared" | "rshared" | "slave" | "rslave") {
            let message = format!(
                "bind propagation {} of {} is not possible with --isolation=vm: mounts made later do not pass between \
                 two kernels; use rprivate or --isolation=process",
                mount.propagation, mount.destination
            );
            return Err(Invalid::new("HostConfig.Mounts", message));
        }
    }
    Ok(())
}
