//! Fields of an OCI configuration that this runtime does not honour: refused, each by its name.
//!
//! A field that is present but says nothing (an empty list) is no reason to refuse.

use oci_spec::runtime::{Hooks, Linux, Process, Spec};

use super::Error;

pub(super) fn unsupported(config: &Spec) -> Result<(), Error> {
    version(config.version())?;
    platforms(config)?;
    if let Some(hooks) = config.hooks() {
        no_hooks(hooks)?;
    }
    if let Some(process) = config.process() {
        no_process_extras(process)?;
    }
    config.linux().as_ref().map_or(Ok(()), no_linux_extras)
}

/// Any 1.x: the specification promises that a minor version only adds, and what it adds is refused by name.
fn version(version: &str) -> Result<(), Error> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(_), Some(_)] => Ok(()),
        _ => Err(Error::invalid("ociVersion", format!("{version:?}: want 1.x.y"))),
    }
}

fn refuse_if(present: bool, field: &str, reason: &str) -> Result<(), Error> {
    if present { Err(Error::unsupported(field, reason)) } else { Ok(()) }
}

#[allow(deprecated, reason = "fields that never were in the specification are refused too")]
fn platforms(config: &Spec) -> Result<(), Error> {
    let reason = "this is a Linux runtime";
    refuse_if(config.solaris().is_some(), "solaris", reason)?;
    refuse_if(config.windows().is_some(), "windows", reason)?;
    refuse_if(config.zos().is_some(), "zos", reason)?;
    refuse_if(config.vm().is_some(), "vm", "ask for a virtual machine by the isolation mode")?;
    refuse_if(config.uid_mappings().is_some(), "uidMappings", "it belongs into linux")?;
    refuse_if(config.gid_mappings().is_some(), "gidMappings", "it belongs into linux")
}

#[allow(deprecated, reason = "prestart is deprecated, and refused like the others")]
fn no_hooks(hooks: &Hooks) -> Result<(), Error> {
    let reason = "no program outside the container is run for it";
    for (name, list) in [
        ("hooks.prestart", hooks.prestart()),
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
    ] {
        refuse_if(list.as_ref().is_some_and(|list| !list.is_empty()), name, reason)?;
    }
    Ok(())
}

fn no_process_extras(process: &Process) -> Result<(), Error> {
    refuse_if(process.command_line().is_some(), "process.commandLine", "this is a Linux runtime; use args")?;
    refuse_if(process.io_priority().is_some(), "process.ioPriority", "set it inside the container (ionice)")?;
    refuse_if(process.scheduler().is_some(), "process.scheduler", "set it inside the container (chrt)")?;
    refuse_if(process.exec_cpu_affinity().is_some(), "process.execCPUAffinity", "use linux.resources.cpu.cpus")?;
    refuse_if(process.user().umask().is_some_and(|umask| umask != 0o022), "process.user.umask", "the umask is 0022")?;
    refuse_if(process.user().username().is_some(), "process.user.username", "this is a Linux runtime; use uid and gid")
}

fn no_linux_extras(linux: &Linux) -> Result<(), Error> {
    let filled = |map: Option<usize>| map.is_some_and(|length| length > 0);
    refuse_if(
        filled(linux.net_devices().as_ref().map(|map| map.len())),
        "linux.netDevices",
        "interfaces are made, not moved",
    )?;
    refuse_if(
        linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()),
        "linux.mountLabel",
        "files are not labelled",
    )?;
    refuse_if(linux.intel_rdt().is_some(), "linux.intelRdt", "resctrl groups are not managed")?;
    refuse_if(linux.memory_policy().is_some(), "linux.memoryPolicy", "use linux.resources.cpu.mems")?;
    refuse_if(linux.personality().is_some(), "linux.personality", "run the program through setarch(8)")?;
    refuse_if(
        filled(linux.time_offsets().as_ref().map(|map| map.len())),
        "linux.timeOffsets",
        "clocks are not shifted",
    )?;
    let Some(resources) = linux.resources() else {
        return Ok(());
    };
    let limits = resources.hugepage_limits().as_ref().map(Vec::len);
    refuse_if(
        filled(limits),
        "linux.resources.hugepageLimits",
        "on cgroup v2 write hugetlb.*.max through linux.resources.unified",
    )?;
    refuse_if(resources.network().is_some(), "linux.resources.network", "network classes exist in cgroup v1 only")?;
    refuse_if(
        filled(resources.rdma().as_ref().map(|map| map.len())),
        "linux.resources.rdma",
        "on cgroup v2 write rdma.max through linux.resources.unified",
    )
}
