//! What Docker has and sbx has not: refused by name, with the way out.

use crate::config::CreateRequest;

use super::Invalid;

pub(super) fn check(request: &CreateRequest) -> Result<(), Invalid> {
    let host = &request.host_config;
    if !matches!(host.runtime.as_str(), "" | "sbx" | "io.sbx" | "runc" | "io.containerd.runc.v2") {
        let message = format!(
            "unknown or invalid runtime name: {}; sbx is its own runtime, choose the kind by --isolation=process|vm",
            host.runtime
        );
        return Err(Invalid::new("HostConfig.Runtime", message));
    }
    refuse(
        !host.links.is_empty(),
        "HostConfig.Links",
        "--link is not supported: use a network and the container's name",
    )?;
    refuse(
        !host.device_requests.is_empty(),
        "HostConfig.DeviceRequests",
        "--gpus is not supported: pass the device nodes with --device",
    )?;
    refuse(!host.cgroup.is_empty(), "HostConfig.Cgroup", "HostConfig.Cgroup is not supported: use --cgroup-parent")?;
    if !matches!(host.volume_driver.as_str(), "" | "local") {
        let message = format!("plugin {:?} not found: the only volume driver is \"local\"", host.volume_driver);
        return Err(Invalid::new("HostConfig.VolumeDriver", message));
    }
    refuse(
        !host.container_id_file.is_empty() && host.container_id_file.contains('\0'),
        "HostConfig.ContainerIDFile",
        "the path of --cidfile contains a null byte",
    )?;
    refuse(request.config.args_escaped, "Config.ArgsEscaped", "ArgsEscaped is for Windows images")?;
    if host.annotations.keys().any(String::is_empty) {
        let message = "invalid Annotations: the empty string is not permitted as an annotation key";
        return Err(Invalid::new("HostConfig.Annotations", message));
    }
    platform(&request.platform)
}

fn refuse(present: bool, field: &'static str, message: &str) -> Result<(), Invalid> {
    if present { Err(Invalid::new(field, message)) } else { Ok(()) }
}

/// `OS[/ARCHITECTURE[/VARIANT]]`, or an architecture alone.
fn platform(platform: &str) -> Result<(), Invalid> {
    let parts: Vec<&str> = platform.split('/').collect();
    let well_formed = parts.len() <= 3
        && parts.iter().all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        });
    if platform.is_empty() || well_formed {
        return Ok(());
    }
    let message = format!("{platform:?} is an invalid OS/architecture combination: want for example linux/amd64");
    Err(Invalid::new("platform", message))
}
