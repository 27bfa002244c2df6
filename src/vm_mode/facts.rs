//! What the guest can do. It runs the kernel that `kernel/` configures, so nothing has to be looked up.

use sbx_sandbox::facts::{CgroupVersion, Controllers, MachineFacts, NamespaceSupport};

use crate::size::Size;

/// The version of the guest's kernel.
const KERNEL: (u32, u32) = (6, 12);
/// The guest kernel's last capability, `CAP_CHECKPOINT_RESTORE` (capabilities(7)).
const LAST_CAPABILITY: u8 = 40;

/// The guest's facts, on a host with facts of its own.
#[must_use]
pub fn machine(host: &MachineFacts, size: Size) -> MachineFacts {
    MachineFacts {
        kernel: KERNEL,
        platform: host.platform.clone(),
        hostname: host.hostname.clone(),
        cpus: size.cpus,
        cpu_list: if size.cpus == 1 { "0".into() } else { format!("0-{}", size.cpus - 1) },
        memory_nodes: "0".into(),
        memory: size.memory,
        cgroup: CgroupVersion::V2,
        controllers: Controllers::ALL_V2,
        systemd_cgroups: false,
        namespaces: NamespaceSupport { user: true, cgroup: true, time: true },
        cap_last_cap: LAST_CAPABILITY,
        apparmor: false,
        selinux: false,
        seccomp: true,
        thermal_throttle: Vec::new(),
        ipv4_forwarding: true,
        id_maps: host.id_maps.clone(),
        vm_obstacle: host.vm_obstacle.clone(),
    }
}
