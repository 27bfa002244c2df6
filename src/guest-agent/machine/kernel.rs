//! Settings of the kernel that containers inherit or cannot change for themselves.

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::sethostname;
use sbx_container::Error;

/// Kernel parameters as on a machine that Docker runs on: what dockerd and systemd set, and what programs in containers
/// commonly ask an administrator for. Links of the machine itself carry frames only, so they need no IPv6, and nothing
/// filters what passes the bridge.
const PARAMETERS: [(&str, &str); 11] = [
    // Inherited by every new network namespace.
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
    ("kernel/pid_max", "4194304"),
    ("fs/file-max", "9223372036854775807"),
    ("vm/max_map_count", "1048576"),
    // On a host with more memory than the limit a program gets the addresses that it asks for, and learns of the limit when
    // it uses them; here the limit is nearly all there is.
    ("vm/overcommit_memory", "1"),
    // Out of memory ends a program, never the machine.
    ("vm/panic_on_oom", "0"),
];

pub(crate) fn name_machine() -> Result<(), Error> {
    sethostname("localhost").map_err(|error| Error::new("set the host name", error.desc()))
}

pub(crate) fn set_parameters() {
    for (name, value) in PARAMETERS {
        // A kernel that lacks the parameter lacks what it is about.
        let _ = fs::write(format!("/proc/sys/{name}"), value);
    }
}

/// Limits as a container has them under dockerd's service: none on core files and processes, a million descriptors. What
/// the user wants otherwise stands in the plan.
pub(crate) fn lift_limits() -> Result<(), Error> {
    const DESCRIPTORS: u64 = 1 << 20;
    let limits = [
        (Resource::RLIMIT_CORE, RLIM_INFINITY),
        (Resource::RLIMIT_NPROC, RLIM_INFINITY),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
    ];
    limits.into_iter().try_for_each(|(resource, limit)| {
        setrlimit(resource, limit, limit).map_err(|error| Error::new(format!("lift {resource:?}"), error.desc()))
    })
}

/// The kernel looks elsewhere when memory runs out. Containers do not inherit this.
pub(crate) fn protect_agent() -> Result<(), Error> {
    fs::write("/proc/self/oom_score_adj", "-1000").map_err(|error| Error::new("protect the agent", error))
}
