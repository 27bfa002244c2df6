//! What a container in a virtual machine cannot have: whatever means something of the host's own kernel. Refused by name.

use crate::config::CreateRequest;
use crate::host_config::HostConfig;
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
    if let Some((field, flag, _)) = fields.iter().find(|(.., value)| *value == "host") {
        let message = format!(
            "{flag} host is not possible with --isolation=vm: a virtual machine has a kernel of its own and shares \
             nothing with the host's kernel; {WAY_OUT}"
        );
        return Err(Invalid::new(field, message));
    }
    match fields.iter().find(|(.., value)| value.starts_with("container:")) {
        Some((_, flag, value)) => tenant(host, &format!("{flag} {value}")),
        None => Ok(()),
    }
}

/// What the host enforces on a machine as a whole is for its own container to ask for, not for one that joins it.
fn tenant(host: &HostConfig, joined: &str) -> Result<(), Invalid> {
    for (field, flag, set) in [
        ("HostConfig.CpusetCpus", "--cpuset-cpus", !host.cpuset_cpus.is_empty()),
        ("HostConfig.CpusetMems", "--cpuset-mems", !host.cpuset_mems.is_empty()),
        ("HostConfig.BlkioWeightDevice", "--blkio-weight-device", !host.blkio_weight_device.is_empty()),
        ("HostConfig.BlkioDeviceReadBps", "--device-read-bps", !host.blkio_device_read_bps.is_empty()),
        ("HostConfig.BlkioDeviceWriteBps", "--device-write-bps", !host.blkio_device_write_bps.is_empty()),
        ("HostConfig.BlkioDeviceReadIOps", "--device-read-iops", !host.blkio_device_read_iops.is_empty()),
        ("HostConfig.BlkioDeviceWriteIOps", "--device-write-iops", !host.blkio_device_write_iops.is_empty()),
    ] {
        if set {
            let message = format!(
                "{flag} is not possible with --isolation=vm and {joined}: the host enforces it on the virtual machine, which \
                 is that container's; give it to that one, or {WAY_OUT}"
            );
            return Err(Invalid::new(field, message));
        }
    }
    Ok(())
}

/// `--storage-opt size=`: the writable disk's.
fn disk_size(host: &HostConfig) -> Result<(), Invalid> {
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
