//! What follows from a request for the two profiles of a container: its capabilities and its filter of system calls.

use crate::capabilities;
use crate::facts::MachineFacts;
use crate::host_config::HostConfig;
use crate::seccomp;
use crate::spec::{SeccompChoice, Security};
use sbx_container::plan::Seccomp;

/// The bounding, permitted and effective set; sorted.
pub(crate) fn capabilities(host: &HostConfig, last: u8) -> Result<Vec<String>, capabilities::Error> {
    // A name that does not exist is refused for a privileged container too, which would not look at it.
    let tweaked = capabilities::resolve(&host.cap_add, &host.cap_drop, last)?;
    let mut set = if host.privileged { capabilities::all(last) } else { tweaked };
    set.sort();
    Ok(set)
}

/// The filter; `None` is unconfined. A privileged container has none unless it names one, as in Docker.
pub(crate) fn seccomp(
    security: &Security,
    host: &HostConfig,
    machine: &MachineFacts,
) -> Result<Option<Seccomp>, seccomp::Error> {
    let capabilities = &security.capabilities;
    match &security.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default if host.privileged => Ok(None),
        SeccompChoice::Default => Ok(Some(seccomp::default_profile(capabilities, machine.kernel))),
        SeccompChoice::Custom(text) => seccomp::from_json(text, capabilities, machine.kernel).map(Some),
    }
}
